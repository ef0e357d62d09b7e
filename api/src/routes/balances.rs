//! Balances: the wallets that orders are paid from.

use ordermill_domain::payments::{Balance, Payments};
use ordermill_store::balances::{self, EntryRow};
use ordermill_store::{Decision, Written, users};

use crate::routes::prelude::*;

/// How many entries a page has unless the client says otherwise.
const ENTRIES_DEFAULT: i64 = 5;

/// The routes of balances.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    group(
        "Users and balances",
        OpenApiRouter::new()
            .routes(routes!(charge_balance))
            .routes(routes!(get_balance))
            .routes(routes!(list_balance_entries)),
    )
}

/// Money that a user puts in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCharge {
    /// How much, in the minor unit.
    #[schema(value_type = i64, example = 50_000, minimum = 1, maximum = 1_000_000_000)]
    amount: Whole,
}

impl NewCharge {
    fn check(&self) -> Result<Money, Problem> {
        if limits::CHARGE.contains(&self.amount.0) {
            return Ok(self.amount.0);
        }
        let detail = format!("amount must be from {} to {}", limits::CHARGE.start(), limits::CHARGE.end());
        let error =
            FieldError { field: "amount".into(), code: "OUT_OF_RANGE", detail: detail.clone().into() };
        Err(Problem::new(Code::InvalidAmount, detail).with_errors(vec![error]))
    }
}

view! {
    /// Money that was put in.
    #[schema(as = BalanceCharge)]
    struct ChargeView of(balance: &Balance, entry_id: Uuid, amount: Money, at: Timestamp) {
        /// The entry in the history.
        entry_id: Uuid = entry_id,
        /// Always `CHARGED`.
        #[schema(example = "CHARGED")]
        kind: &'static str = "CHARGED",
        /// How much.
        #[schema(value_type = i64, example = 50_000)]
        amount: Money = amount,
        /// Available and held after it.
        #[schema(value_type = i64, example = 50_000)]
        balance_after: Money = balance.available + balance.held,
        /// When.
        created_at: Timestamp = at,
    }
}

view! {
    /// A balance.
    #[schema(as = Balance)]
    struct BalanceView of(balance: Balance, user_id: Uuid, currency: String) {
        /// Whose it is.
        user_id: Uuid = user_id,
        /// What can be spent.
        #[schema(value_type = i64, example = 41_000)]
        available: Money,
        /// What is held for orders that are being paid.
        #[schema(value_type = i64, example = 9_000)]
        held: Money,
        /// The currency, as ISO 4217 names it.
        #[schema(example = "KRW")]
        currency: String = currency,
        /// When it last changed.
        updated_at: Timestamp,
    }
}

/// What happened to a balance.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = BalanceEntryKind)]
#[expect(dead_code, reason = "names the words that the table uses, for the document")]
enum EntryKind {
    Charged,
    Used,
    Refunded,
}

view! {
    /// An entry of a balance's history.
    #[schema(as = BalanceEntry)]
    struct EntryView from row: EntryRow {
        /// The entry.
        entry_id: Uuid,
        /// What happened.
        #[schema(value_type = EntryKind)]
        kind: String,
        /// How much, always above 0.
        #[schema(value_type = i64, example = 9_000)]
        amount: Money,
        /// Available and held after it.
        #[schema(value_type = i64, example = 41_000)]
        balance_after: Money,
        /// The order, where it was for one.
        order_id?: Uuid,
        /// When.
        created_at: Timestamp,
    }
}

type ChargeBalanceRequest = Keyed<Caller, Id<path::User>, NewCharge>;

/// Put money in
#[utoipa::path(
    post,
    path = "/v1/users/{user_id}/balance/charges",
    request_body = NewCharge,
    responses(
        (status = 201, description = "Charged", body = ChargeView),
        Problems<(ChargeBalanceRequest, code::InvalidAmount)>,
    ),
)]
async fn charge_balance(
    State(api): State<Api>,
    Keyed { caller, path: Id(user_id, _), context, request, body }: ChargeBalanceRequest,
) -> Result<Answer, Problem> {
    caller.acting_for(user_id)?;
    let amount = body.check()?;
    let (keys, origin) = (Keys::of(Balance::NOUN, user_id), context.origin(caller.name()));
    let decide = move |state: &mut Payments| {
        let decided = state.charge(user_id, amount).ok_or_else(path::unknown::<path::User>)?;
        let view = ChargeView::of(&state.balances[&user_id], Uuid::now_v7(), amount, state.now);
        let written = Written::new(view.entry_id, decided, origin.clone());
        Ok(Decision::of(vec![written], first_answer(201, None, &view)?))
    };
    let book = |api: Api, turn| async move {
        // Who is erased keeps the balance, but nobody puts money in.
        users::find(&api.journal.pool, user_id).await?.ok_or_else(path::unknown::<path::User>)?;
        api.decide_in_turn(turn, &keys, decide).await
    };
    api.once(request, book).await
}

/// Show a balance
#[utoipa::path(
    get,
    path = "/v1/users/{user_id}/balance",
    responses(
        (status = 200, description = "The balance", body = BalanceView),
        Problems<(Caller, Id<path::User>)>,
    ),
)]
async fn get_balance(
    State(api): State<Api>,
    caller: Caller,
    Id(user_id, _): Id<path::User>,
) -> Result<JsonAnswer<BalanceView>, Problem> {
    caller.acting_for(user_id)?;
    let balance = balances::find(&api.journal.pool, user_id).await?;
    let balance = balance.ok_or_else(path::unknown::<path::User>)?;
    Ok(JsonAnswer(BalanceView::of(balance, user_id, api.config.currency.clone())))
}

/// List what happened to a balance, newest first
///
/// 5 entries unless `limit` says otherwise.
#[utoipa::path(
    get,
    path = "/v1/users/{user_id}/balance/entries",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of entries", body = Items<EntryView>),
        Problems<(Caller, Id<path::User>, code::ValidationFailed)>,
    ),
)]
async fn list_balance_entries(
    State(api): State<Api>,
    caller: Caller,
    Id(user_id, _): Id<path::User>,
    query: PageQuery,
) -> Result<JsonAnswer<Items<EntryView>>, Problem> {
    caller.acting_for(user_id)?;
    let page = query.page::<i32>(ENTRIES_DEFAULT)?;
    let pool = &api.journal.pool;
    balances::find(pool, user_id).await?.ok_or_else(path::unknown::<path::User>)?;
    let rows = balances::entries(pool, user_id, page.after, page.rows()).await?;
    Ok(JsonAnswer(Items::of_rows(rows, page.limit, |row| row.sequence, EntryView::from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_above_0_and_at_most_a_billion() {
        for (amount, is_fine) in
            [(i64::MIN, false), (0, false), (1, true), (1_000_000_000, true), (1_000_000_001, false)]
        {
            let checked = NewCharge { amount: Whole(amount) }.check();
            assert_eq!(checked.is_ok(), is_fine, "{amount}");
            assert!(checked.is_ok() || checked.is_err_and(|problem| problem.code() == Code::InvalidAmount));
        }
    }
}
