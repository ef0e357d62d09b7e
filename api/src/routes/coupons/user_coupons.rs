//! The coupons that users have.

use ordermill_domain::coupons::{Coupons, UserCoupon, UserCouponState};
use ordermill_schemas::coupons::CouponDiscount;
use ordermill_store::coupons::{self, UserCouponRow};
use ordermill_store::users;
use serde::de::{Deserializer, Error as _};

use super::DiscountView;
use crate::routes::prelude::*;
use crate::validation;

/// How many a page has unless the client says otherwise.
const COUPONS_DEFAULT: i64 = 20;

view! {
    /// A coupon that a user has.
    #[schema(as = UserCoupon)]
    pub(super) struct UserCouponView from row: UserCouponRow {
        /// The user's coupon, as an order names it.
        user_coupon_id: Uuid,
        /// The coupon.
        coupon_id: Uuid = row.coupon.coupon_id,
        /// The coupon's name.
        #[schema(example = "Spring")]
        name: String,
        /// How much it takes off.
        #[schema(value_type = DiscountView)]
        discount: CouponDiscount = row.coupon.discount,
        /// The subtotal that an order needs for it.
        #[schema(value_type = i64, example = 10_000)]
        min_subtotal: Money = row.coupon.min_subtotal,
        /// `ISSUED`, `USED`, `EXPIRED` or `REVOKED`.
        #[schema(value_type = String, example = "ISSUED")]
        status: String = ordermill_store::word(row.coupon.state),
        /// When it was issued.
        issued_at: Timestamp = row.coupon.issued_at,
        /// Until when it can be used.
        expires_at: Timestamp = row.coupon.expires_at,
        /// When it was used, if it is.
        used_at?: Timestamp = row.coupon.used_at,
        /// The order that it is used for.
        order_id?: Uuid = row.coupon.order_id,
    }
}

/// Which coupons a list is to have.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StatusQuery {
    /// Only coupons in this state: `ISSUED`, `USED`, `EXPIRED`, `REVOKED`.
    status: Option<String>,
}

query!(StatusQuery, |parts| paging::parameters(parts, "status", "may stand in the query once"));

impl StatusQuery {
    fn check(&self, checks: &mut Checks) -> Option<UserCouponState> {
        use UserCouponState::{Expired, Issued, Revoked, Used};

        let known = [Issued, Used, Expired, Revoked].map(|state| (ordermill_store::word(state), state));
        checks.one_of("status", self.status.as_deref(), known.into_iter())
    }
}

/// Where a page ended: when the last coupon was issued, and which it was.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::routes) struct Place(#[serde(deserialize_with = "issued_at")] Timestamp, Uuid);

fn issued_at<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let time = validation::time(&String::deserialize(deserializer)?);
    time.ok_or_else(|| D::Error::custom("no time that the database can know"))
}

/// List the coupons that a user has, the newest first
#[utoipa::path(
    get,
    path = "/v1/users/{user_id}/coupons",
    params(StatusQuery, PageQuery),
    responses(
        (status = 200, description = "A page of coupons", body = Items<UserCouponView>),
        Problems<(Caller, Id<path::User>, code::ValidationFailed)>,
    ),
)]
pub(super) async fn list_user_coupons(
    State(api): State<Api>,
    caller: Caller,
    Id(user_id, _): Id<path::User>,
    status: StatusQuery,
    query: PageQuery,
) -> Result<JsonAnswer<Items<UserCouponView>>, Problem> {
    caller.acting_for(user_id)?;
    let (state, page) = Checks::all(|checks| (status.check(checks), query.check(COUPONS_DEFAULT, checks)))?;
    let pool = &api.journal.pool;
    users::find(pool, user_id).await?.ok_or_else(path::unknown::<path::User>)?;
    let before = page.after.as_ref().map(|Place(issued_at, id)| (*issued_at, *id));
    let rows = coupons::of_user(pool, user_id, state, before, page.rows()).await?;
    let place = |row: &UserCouponRow| Place(row.coupon.issued_at, row.user_coupon_id);
    Ok(JsonAnswer(Items::of_rows(rows, page.limit, place, UserCouponView::from)))
}

/// A revocation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Revocation {
    /// Why. It is erased with the user.
    #[schema(example = "Abuse", min_length = 1, max_length = 500)]
    reason: String,
}

/// Take a user's coupon away (administrators)
///
/// One that has expired or was taken away already stays as it is.
#[utoipa::path(
    post,
    path = "/v1/user-coupons/{user_coupon_id}/revocation",
    responses(
        (status = 200, description = "The user's coupon", body = UserCouponView),
        Problems<(
            Admin, Id<path::UserCoupon>, Json<Revocation>, code::CouponNotUsable, code::ValidationFailed,
        )>,
    ),
)]
pub(super) async fn revoke_user_coupon(
    State(api): State<Api>,
    Admin(caller): Admin,
    Id(user_coupon_id, _): Id<path::UserCoupon>,
    context: RequestContext,
    Json { value, .. }: Json<Revocation>,
) -> Result<JsonAnswer<UserCouponView>, Problem> {
    Checks::all(|checks| checks.text("reason", &value.reason, &limits::REASON_LENGTH))?;
    let (keys, origin) = (Keys::of(UserCoupon::NOUN, user_coupon_id), context.origin(caller.name()));
    let revoke = move |state: &mut Coupons| {
        let decided = state.revoke(user_coupon_id).map_err(|_| {
            Problem::new(Code::CouponNotUsable, "the coupon is used for an order, so it can't be taken away")
        })?;
        let owner = state.user_coupons.get(&user_coupon_id).map(|coupon| coupon.user_id);
        let words = value.reason.clone();
        let note =
            owner.map(|user_id| Note { about: user_coupon_id, kind: NoteKind::Reason, user_id, words });
        Ok((Outcome::noted(decided.into_iter().collect(), note), ()))
    };
    api.decide(keys, origin, revoke).await?;
    let row = coupons::find_user_coupon(&api.journal.pool, user_coupon_id).await?;
    Ok(JsonAnswer(row.ok_or_else(path::unknown::<path::UserCoupon>)?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_at_a_time_that_the_database_can_know() {
        let place = |time: &str| serde_json::from_value::<Place>(serde_json::json!([time, Uuid::nil()]));
        assert!(place("2026-01-31T09:00:00Z").is_ok());
        assert!(place("-005000-01-01T00:00:00Z").is_err());
    }
}
