//! Events of coupons: who claims them, who gets one, and what becomes of it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Money;
use crate::failure::Failure;

/// How much a coupon takes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", tag = "type", content = "value")]
pub enum CouponDiscount {
    /// So many percent of the subtotal, from 1 to 100; rounded down.
    Percent(Money),
    /// So much, in the minor unit, but not more than the subtotal.
    Fixed(Money),
}

/// What a coupon does for an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CouponTerms {
    /// The user's coupon.
    pub user_coupon_id: Uuid,
    /// How much it takes off.
    pub discount: CouponDiscount,
    /// The subtotal that an order needs for it, in the minor unit; 0 where any will do.
    pub min_subtotal: Money,
}

/// Why a claim was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClaimFailureCode {
    /// Others were there before.
    CouponSoldOut,
    /// It was claimed outside of its dates.
    CouponNotClaimable,
}

/// Why a claim was rejected, for a program and for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimFailure {
    /// For programs.
    pub code: ClaimFailureCode,
    /// For people.
    pub detail: String,
}

events! {
    //! Coupons, their claims and uses, keyed by coupon id or order id.

    /// A coupon was put up to be claimed.
    "coupon.created" v 1 CouponCreated key coupon_id {
        /// The coupon.
        pub coupon_id: Uuid,
        /// Its name.
        pub name: String,
        /// How much it takes off.
        pub discount: CouponDiscount,
        /// How many there are.
        pub quantity: i32,
        /// For how many days it can be used once it is issued.
        pub valid_days: i32,
        /// From when it can be claimed; at once where it is absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub claimable_from: Option<Timestamp>,
        /// Until when it can be claimed, exclusive; for ever where it is absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub claimable_until: Option<Timestamp>,
        /// The subtotal that an order needs for it, in the minor unit; 0 where any will do.
        pub min_subtotal: Money,
    }

    /// A user wants a coupon. Who is first in the log is served first.
    "coupon.claim_requested" v 1 CouponClaimRequested key coupon_id in claim_id {
        /// The claim.
        pub claim_id: Uuid,
        /// The coupon.
        pub coupon_id: Uuid,
        /// Who wants it.
        pub user_id: Uuid,
        /// When it was asked for.
        pub requested_at: Timestamp,
    }

    /// A user has got a coupon.
    "coupon.issued" v 1 CouponIssued key coupon_id in claim_id {
        /// The claim that it was got by.
        pub claim_id: Uuid,
        /// The coupon.
        pub coupon_id: Uuid,
        /// Who has it now.
        pub user_id: Uuid,
        /// The one that the user has.
        pub user_coupon_id: Uuid,
        /// The place among those issued, from 1.
        pub position: i32,
        /// When.
        pub issued_at: Timestamp,
        /// Until when it can be used, exclusive.
        pub expires_at: Timestamp,
        /// How much it takes off.
        pub discount: CouponDiscount,
        /// The subtotal that an order needs for it, in the minor unit.
        pub min_subtotal: Money,
    }

    /// A user has not got a coupon.
    "coupon.claim_rejected" v 1 CouponClaimRejected key coupon_id in claim_id {
        /// The claim.
        pub claim_id: Uuid,
        /// The coupon.
        pub coupon_id: Uuid,
        /// Who wanted it.
        pub user_id: Uuid,
        /// Why.
        pub failure: ClaimFailure,
    }

    /// A user's coupon is used for an order.
    "coupon.applied" v 1 CouponApplied key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// When.
        pub used_at: Timestamp,
        /// What it does for the order.
        pub terms: CouponTerms,
    }

    /// A user's coupon can't be used for an order.
    "coupon.refused" v 1 CouponRefused key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// The coupon that was named.
        pub user_coupon_id: Uuid,
        /// Why.
        pub failure: Failure,
    }

    /// A user's coupon is not used for an order any more.
    "coupon.returned" v 1 CouponReturned key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// The coupon, which can be used again unless its time is over.
        pub user_coupon_id: Uuid,
    }

    /// A user's coupon was not used in time.
    "coupon.expired" v 1 CouponExpired key coupon_id in user_coupon_id {
        /// The user's coupon.
        pub user_coupon_id: Uuid,
        /// The coupon.
        pub coupon_id: Uuid,
        /// Who had it.
        pub user_id: Uuid,
    }

    /// A user's coupon was taken away.
    "coupon.revoked" v 1 CouponRevoked key coupon_id in user_coupon_id {
        /// The user's coupon.
        pub user_coupon_id: Uuid,
        /// The coupon.
        pub coupon_id: Uuid,
        /// Who had it.
        pub user_id: Uuid,
    }
}
