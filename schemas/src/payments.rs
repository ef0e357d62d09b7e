//! Events of payment: charges at the external gateway.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Money;
use crate::failure::Failure;
use crate::orders::PaymentMethod;

/// What the gateway was called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GatewayCall {
    /// To charge.
    Charge,
    /// To say what became of a charge.
    LookUp,
    /// To take a charge back, whether it was made or not.
    Void,
    /// To pay a part of a charge back.
    Refund,
}

/// A call to the gateway, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// What for.
    pub call: GatewayCall,
    /// The gateway's word, or that and why there was none.
    pub outcome: String,
    /// How long it took, in milliseconds.
    pub took_ms: u32,
}

/// A part of one charge that is paid back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefundPart {
    /// The refund's id at the gateway, derived from charge and round.
    pub refund_id: Uuid,
    /// The charge that it is taken from.
    pub charge_id: Uuid,
    /// The ordinal of that charge among the order's.
    pub charge_number: i32,
    /// How much, in the minor unit; above 0.
    pub amount: Money,
}

events! {
    //! Charges, keyed by order id.

    /// A charge was decided upon and the gateway is about to be asked.
    "payment.requested" v 1 PaymentRequested key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who pays.
        pub user_id: Uuid,
        /// The charge's id at the gateway, derived from order and charge number.
        pub charge_id: Uuid,
        /// The ordinal of this charge among the order's, from 1.
        pub charge_number: i32,
        /// How much, in the minor unit.
        pub amount: Money,
        /// How.
        pub method: PaymentMethod,
    }

    /// A charge was approved, or there was nothing to pay.
    "payment.completed" v 1 PaymentCompleted key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who paid.
        pub user_id: Uuid,
        /// The charge's id at the gateway; absent where there was nothing to pay.
        pub charge_id: Option<Uuid>,
        /// The ordinal of this charge among the order's, from 1.
        pub charge_number: i32,
        /// How much, in the minor unit.
        pub amount: Money,
        /// How.
        pub method: PaymentMethod,
        /// The calls to the gateway that led here, oldest first; of very many the middle ones are left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub attempts: Vec<Attempt>,
    }

    /// A charge was not made, and will not be.
    "payment.failed" v 1 PaymentFailed key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who should have paid.
        pub user_id: Uuid,
        /// The charge's id at the gateway; absent where the gateway was not asked.
        pub charge_id: Option<Uuid>,
        /// The ordinal of this charge among the order's, from 1.
        pub charge_number: i32,
        /// Why.
        pub failure: Failure,
        /// The calls to the gateway that led here, oldest first; of very many the middle ones are left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub attempts: Vec<Attempt>,
    }

    /// A charge whose outcome nobody waits for any more is to be taken back at the gateway.
    "payment.voiding" v 1 PaymentVoiding key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who should have paid.
        pub user_id: Uuid,
        /// The charge's id at the gateway.
        pub charge_id: Uuid,
        /// The ordinal of this charge among the order's, from 1.
        pub charge_number: i32,
    }

    /// Money is to be paid back, and the gateway is about to be asked.
    "payment.refunding" v 1 PaymentRefunding key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who paid.
        pub user_id: Uuid,
        /// The change of the order that it is for.
        pub round: i32,
        /// How much, in the minor unit.
        pub amount: Money,
        /// Which charges it is taken from, the newest first.
        pub parts: Vec<RefundPart>,
    }

    /// Money was paid back.
    "payment.refunded" v 1 PaymentRefunded key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who paid.
        pub user_id: Uuid,
        /// The change of the order that it is for.
        pub round: i32,
        /// How much, in the minor unit; 0 where nothing had been paid.
        pub amount: Money,
        /// How.
        pub method: PaymentMethod,
        /// The calls to the gateway that led here, oldest first; of very many the middle ones are left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub attempts: Vec<Attempt>,
    }
}
