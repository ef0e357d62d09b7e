//! Why an order is refused. Whoever takes part in it says so in the same words: stock, coupons, payments, the order itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why an order was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = OrderFailureCode, description = "Why an order was refused, for programs.")]
pub enum FailureCode {
    /// A product has fewer left than were ordered.
    OutOfStock,
    /// The balance does not cover the total.
    InsufficientBalance,
    /// The coupon is not the user's, is used, expired or revoked, or the subtotal is below its minimum.
    CouponNotUsable,
    /// The payment gateway declined the charge.
    PaymentDeclined,
    /// The charge could not be made, and was voided at the payment gateway.
    PaymentUnavailable,
    /// The order did not get through its steps in time.
    DeadlineExceeded,
}

/// Why an order was refused, for a program and for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[schema(as = OrderFailure, description = "Why an order was refused.")]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people.
    pub detail: String,
}
