//! Coupons: putting them up, claiming them, and what users have.

mod claims;
mod user_coupons;

#[cfg(any(test, feature = "fuzzing"))]
pub(super) use user_coupons::Place;

use ordermill_domain::coupons::{Coupon, Coupons};
use ordermill_schemas::coupons::{CouponCreated, CouponDiscount};
use ordermill_store::find;

use crate::routes::prelude::*;

/// For how many days a coupon can be used unless it says otherwise.
const VALID_DAYS: Whole = Whole(30);

/// The routes of coupons.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    group(
        "Coupons",
        OpenApiRouter::new()
            .routes(routes!(create_coupon))
            .routes(routes!(get_coupon))
            .routes(routes!(claims::claim_coupon))
            .routes(routes!(claims::get_claim))
            .routes(routes!(user_coupons::list_user_coupons))
            .routes(routes!(user_coupons::revoke_user_coupon)),
    )
}

/// How a coupon's value is meant.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum DiscountType {
    /// Percent of the subtotal, rounded down.
    Percent,
    /// An amount, at most the subtotal.
    Fixed,
}

/// How much a coupon takes off.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CouponDiscount)]
pub(super) struct DiscountView {
    /// How the value is meant.
    r#type: DiscountType,
    /// Percent from 1 to 100, or an amount in the minor unit.
    #[schema(value_type = i64, example = 10)]
    value: Whole,
}

/// A coupon to be put up.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCoupon {
    /// The name.
    #[schema(example = "Spring", min_length = 1, max_length = 200)]
    name: String,
    /// How much it takes off.
    #[schema(value_type = DiscountView)]
    discount: Object<DiscountView>,
    /// How many there are.
    #[schema(value_type = i64, example = 100, minimum = 1, maximum = 1_000_000_000)]
    quantity: Whole,
    /// For how many days it can be used once it is issued; 30 unless it says otherwise.
    #[schema(value_type = Option<i64>, example = 30, minimum = 1, maximum = 3_650)]
    valid_days: Option<Whole>,
    /// From when it can be claimed; at once unless it says otherwise.
    #[schema(value_type = Option<Timestamp>)]
    claimable_from: Option<String>,
    /// Until when, exclusive; for ever unless it says otherwise.
    #[schema(value_type = Option<Timestamp>)]
    claimable_until: Option<String>,
    /// The subtotal that an order needs for it, in the minor unit; any unless it says otherwise.
    #[schema(value_type = Option<i64>, example = 10_000, minimum = 0, maximum = 1_000_000_000)]
    min_subtotal: Option<Whole>,
}

impl NewCoupon {
    fn check(self) -> Result<CouponCreated, Problem> {
        let Whole(valid_days) = self.valid_days.unwrap_or(VALID_DAYS);
        let Whole(min_subtotal) = self.min_subtotal.unwrap_or(Whole(0));
        let Object(DiscountView { r#type, value: Whole(value) }) = self.discount;
        let (discount, values) = match r#type {
            DiscountType::Percent => (CouponDiscount::Percent(value), &limits::PERCENT),
            DiscountType::Fixed => (CouponDiscount::Fixed(value), &limits::COUPON_AMOUNT),
        };
        let (claimable_from, claimable_until) = Checks::all(|checks| {
            checks.text("name", &self.name, &limits::NAME_LENGTH);
            checks.number("discount.value", value, values);
            checks.number("quantity", self.quantity.0, &limits::COUPON_QUANTITY);
            checks.number("valid_days", valid_days, &limits::COUPON_DAYS);
            checks.number("min_subtotal", min_subtotal, &limits::PRICE);
            let claimable_from = checks.time("claimable_from", self.claimable_from.as_deref());
            let claimable_until = checks.time("claimable_until", self.claimable_until.as_deref());
            if claimable_from.zip(claimable_until).is_some_and(|(from, until)| from >= until) {
                checks.refuse("claimable_until", "OUT_OF_RANGE", "must be after claimable_from");
            }
            (claimable_from, claimable_until)
        })?;
        Ok(CouponCreated {
            coupon_id: Uuid::now_v7(),
            name: self.name,
            discount,
            quantity: i32::try_from(self.quantity.0).unwrap_or(i32::MAX),
            valid_days: i32::try_from(valid_days).unwrap_or(i32::MAX),
            claimable_from: claimable_from.map(in_microseconds),
            claimable_until: claimable_until.map(in_microseconds),
            min_subtotal,
        })
    }
}

/// The time as the database keeps it, so that event and row say the same.
fn in_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// Whether a coupon can be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum CouponStatus {
    /// It can.
    Open,
    /// All are issued.
    SoldOut,
    /// It is outside of its dates.
    Closed,
}

impl CouponStatus {
    fn of(coupon: &Coupon, now: Timestamp) -> CouponStatus {
        match (coupon.is_sold_out(), coupon.is_claimable_at(now)) {
            (true, _) => CouponStatus::SoldOut,
            (false, true) => CouponStatus::Open,
            (false, false) => CouponStatus::Closed,
        }
    }
}

view! {
    /// A coupon.
    #[schema(as = Coupon)]
    struct CouponView of(coupon: Coupon, coupon_id: Uuid, now: Timestamp)
    where
        status = CouponStatus::of(&coupon, now);
    {
        /// The coupon.
        coupon_id: Uuid = coupon_id,
        /// The name.
        #[schema(example = "Spring")]
        name: String,
        /// How much it takes off.
        #[schema(value_type = DiscountView)]
        discount: CouponDiscount,
        /// How many there are.
        #[schema(example = 100)]
        quantity: i32,
        /// How many of them are not issued yet.
        #[schema(example = 42)]
        remaining: i32 = coupon.quantity - coupon.issued,
        /// For how many days it can be used once it is issued.
        #[schema(example = 30)]
        valid_days: i32,
        /// From when it can be claimed.
        claimable_from?: Timestamp,
        /// Until when.
        claimable_until?: Timestamp,
        /// The subtotal that an order needs for it.
        #[schema(value_type = i64, example = 10_000)]
        min_subtotal: Money,
        /// Whether it can be claimed.
        status: CouponStatus = status,
    }
}

type CreateCouponRequest = Keyed<Admin, (), NewCoupon>;

/// Put a coupon up to be claimed (administrators)
#[utoipa::path(
    post,
    path = "/v1/coupons",
    request_body = NewCoupon,
    responses(
        (status = 201, description = "Put up", body = CouponView,
            headers(("Location" = String, description = "The coupon"))),
        Problems<(CreateCouponRequest, code::ValidationFailed)>,
    ),
)]
async fn create_coupon(
    State(api): State<Api>,
    Keyed { context, request, body, .. }: CreateCouponRequest,
) -> Result<Answer, Problem> {
    let created = body.check()?;
    api.decide_once(request, context, Keys::default(), move |state: &mut Coupons| {
        let decided = state.create(created.clone());
        let (coupon_id, now) = (created.coupon_id, state.now);
        let view = CouponView::of(Coupon::created(&created, now), coupon_id, now);
        Ok((decided, first_answer(201, Some(format!("/v1/coupons/{coupon_id}")), &view)?))
    })
    .await
}

/// Show a coupon
#[utoipa::path(
    get,
    path = "/v1/coupons/{coupon_id}",
    responses((status = 200, description = "The coupon", body = CouponView), Problems<Id<path::Coupon>>),
)]
async fn get_coupon(
    State(api): State<Api>,
    Id(coupon_id, _): Id<path::Coupon>,
) -> Result<JsonAnswer<CouponView>, Problem> {
    let coupon = find(&api.journal.pool, coupon_id).await?;
    let coupon = coupon.ok_or_else(path::unknown::<path::Coupon>)?;
    Ok(JsonAnswer(CouponView::of(coupon, coupon_id, api.journal.now())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coupon(r#type: DiscountType, value: Money) -> NewCoupon {
        NewCoupon {
            name: "Spring".to_owned(),
            discount: Object(DiscountView { r#type, value: Whole(value) }),
            quantity: Whole(1),
            valid_days: None,
            claimable_from: None,
            claimable_until: None,
            min_subtotal: None,
        }
    }

    #[test]
    fn a_coupon_is_valid_for_30_days_unless_it_says_otherwise() {
        let created = coupon(DiscountType::Percent, 100).check().unwrap();
        assert_eq!((created.valid_days, created.min_subtotal), (30, 0));
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let time = |text: &str| Some(text.to_owned());
        for wrong in [
            coupon(DiscountType::Percent, 0),
            coupon(DiscountType::Percent, 101),
            coupon(DiscountType::Fixed, 0),
            NewCoupon { quantity: Whole(0), ..coupon(DiscountType::Fixed, 1) },
            NewCoupon { valid_days: Some(Whole(0)), ..coupon(DiscountType::Fixed, 1) },
            NewCoupon { min_subtotal: Some(Whole(-1)), ..coupon(DiscountType::Fixed, 1) },
            NewCoupon { claimable_from: time("tomorrow"), ..coupon(DiscountType::Fixed, 1) },
            NewCoupon {
                claimable_from: time("2026-01-01T00:00:00Z"),
                claimable_until: time("2026-01-01T00:00:00Z"),
                ..coupon(DiscountType::Fixed, 1)
            },
        ] {
            assert!(wrong.clone().check().is_err(), "{wrong:?}");
        }
    }
}
