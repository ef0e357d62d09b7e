//! The tables of state, in the one order in which their rows are locked.
//!
//! Architecture Invariant: nobody locks rows of state but by a load of [`TABLES`], or, where work is chosen by a query, with SKIP
//! LOCKED. `sales` is locked alone, by its keys in the order of `domain`.

use ordermill_domain::aggregate::Aggregate;
use ordermill_domain::coupons::{Claim, Coupon, CouponUse, UserCoupon};
use ordermill_domain::orders::Order;
use ordermill_domain::payments::{Balance, Payment};
use ordermill_domain::products::Product;
use ordermill_domain::shipments::Shipment;
use ordermill_domain::stock::{Reservation, Shelf};
use ordermill_pipeline::journal::Table;

/// Every table of state, in the order of locks.
pub const TABLES: &[Table] = &[
    of::<Order>(),
    of::<Shipment>(),
    of::<Coupon>(),
    of::<Claim>(),
    of::<CouponUse>(),
    following::<UserCoupon, CouponUse>("SELECT (state ->> 'user_coupon_id')::uuid FROM {rows}"),
    of::<Reservation>(),
    of::<Product>(),
    following::<Shelf, Reservation>(
        "SELECT (line ->> 'product_id')::uuid
         FROM {rows}, jsonb_array_elements(bulk || coalesce(state #> '{change,taken}', '[]')) AS line",
    ),
    of::<Payment>(),
    following::<Balance, Payment>(
        "SELECT (state ->> 'user_id')::uuid FROM {rows} WHERE state ->> 'method' = 'BALANCE'",
    ),
];

const fn of<A: Aggregate>() -> Table {
    Table { name: A::NOUN, follows: None }
}

/// A table of which keys follow from the rows of another one: `keys` selects them from `{rows}`.
const fn following<A: Aggregate, From: Aggregate>(keys: &'static str) -> Table {
    Table { name: A::NOUN, follows: Some((From::NOUN, keys)) }
}
