//! Lists of orders: a user's own, and everybody's for administrators.

use ordermill_domain::orders::{Order, OrderStatus};
use ordermill_store::order_lists::{self, shown_statuses};
use ordermill_store::users;
use ordermill_store::word;

use super::view::OrderView;
use crate::routes::prelude::*;

/// How many orders a page has unless the client says otherwise.
const ORDERS_DEFAULT: i64 = 20;

/// Which orders a list is to have.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StatusQuery {
    /// Only orders that are shown with this status.
    #[param(schema_with = status_schema)]
    status: Option<String>,
}

/// Which orders an administrator's list is to have, besides their status.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OverdueQuery {
    /// `true`: only orders whose deadline has passed while they do not rest. `false`: only the others.
    #[param(value_type = Option<bool>)]
    overdue: Option<String>,
}

query!(StatusQuery, |parts| paging::parameters(parts, "status", "may stand in the query once"));
query!(OverdueQuery, |parts| paging::parameters(parts, "overdue", "may stand in the query once"));

fn status_schema() -> ObjectBuilder {
    words(shown_statuses().map(word))
}

impl StatusQuery {
    /// The statuses that are asked for; all where none is.
    fn check(&self, checks: &mut Checks) -> Vec<OrderStatus> {
        let known = shown_statuses().map(|status| (word(status), status));
        let status = checks.one_of("status", self.status.as_deref(), known);
        if self.status.is_none() { shown_statuses().collect() } else { status.into_iter().collect() }
    }
}

impl OverdueQuery {
    fn check(&self, checks: &mut Checks) -> Option<bool> {
        let overdue = self.overdue.as_deref()?;
        let parsed = overdue.parse().ok();
        if parsed.is_none() {
            checks.refuse("overdue", "UNKNOWN_VALUE", "must be true or false");
        }
        parsed
    }
}

/// List a user's orders, newest first
#[utoipa::path(
    get,
    path = "/v1/users/{user_id}/orders",
    params(StatusQuery, PageQuery),
    responses(
        (status = 200, description = "A page of orders", body = Items<OrderView>),
        Problems<(Caller, Id<path::User>, code::ValidationFailed)>,
    ),
)]
pub(super) async fn list_user_orders(
    State(api): State<Api>,
    caller: Caller,
    Id(user_id, _): Id<path::User>,
    status: StatusQuery,
    query: PageQuery,
) -> Result<JsonAnswer<Items<OrderView>>, Problem> {
    caller.acting_for(user_id)?;
    let (statuses, page) = Checks::all(|checks| (status.check(checks), query.check(ORDERS_DEFAULT, checks)))?;
    let (pool, now) = (&api.journal.pool, api.journal.now());
    users::find(pool, user_id).await?.ok_or_else(path::unknown::<path::User>)?;
    let rows = order_lists::of_user(pool, user_id, &statuses, page.after, page.rows()).await?;
    Ok(shown(rows, &page, now))
}

/// List everybody's orders, newest first (administrators)
#[utoipa::path(
    get,
    path = "/v1/orders",
    params(StatusQuery, OverdueQuery, PageQuery),
    responses(
        (status = 200, description = "A page of orders", body = Items<OrderView>),
        Problems<(Admin, code::ValidationFailed)>,
    ),
)]
pub(super) async fn list_orders(
    State(api): State<Api>,
    Admin(_caller): Admin,
    status: StatusQuery,
    overdue: OverdueQuery,
    query: PageQuery,
) -> Result<JsonAnswer<Items<OrderView>>, Problem> {
    let (statuses, overdue, page) = Checks::all(|checks| {
        (status.check(checks), overdue.check(checks), query.check(ORDERS_DEFAULT, checks))
    })?;
    let (pool, now) = (&api.journal.pool, api.journal.now());
    let rows = order_lists::of_everybody(pool, &statuses, overdue, now, page.after, page.rows()).await?;
    Ok(shown(rows, &page, now))
}

/// The page as a client sees it at that time; the next one begins below its last order.
fn shown(rows: Vec<Order>, page: &Page<Uuid>, now: Timestamp) -> JsonAnswer<Items<OrderView>> {
    JsonAnswer(Items::of_rows(rows, page.limit, |row| row.purchase.order_id, |row| OrderView::of(row, now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(status: Option<&str>) -> Result<Vec<OrderStatus>, Problem> {
        Checks::all(|checks| StatusQuery { status: status.map(str::to_owned) }.check(checks))
    }

    fn overdue(overdue: Option<&str>) -> Result<Option<bool>, Problem> {
        Checks::all(|checks| OverdueQuery { overdue: overdue.map(str::to_owned) }.check(checks))
    }

    #[test]
    fn a_status_is_one_that_clients_know_or_none() {
        assert_eq!(statuses(None), Ok(shown_statuses().collect()));
        for known in shown_statuses() {
            assert_eq!(statuses(Some(&word(known))), Ok(vec![known]));
        }
        for unknown in ["", "REJECTING", "pending", "PENDING,CONFIRMED", "ALL"] {
            let problem = format!("{:?}", statuses(Some(unknown)).unwrap_err());
            assert!(problem.contains("must be one of PENDING, REJECTED, "), "{unknown}: {problem}");
        }
    }

    #[test]
    fn overdue_is_true_or_false_or_not_asked_for() {
        assert_eq!(overdue(None), Ok(None));
        assert_eq!((overdue(Some("true")), overdue(Some("false"))), (Ok(Some(true)), Ok(Some(false))));
        for wrong in ["", "1", "TRUE", "yes"] {
            assert!(overdue(Some(wrong)).is_err(), "{wrong:?}");
        }
    }
}
