//! Events of an order: what its saga decided.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Money;
use crate::stock::StockLine;

pub use crate::failure::{Failure, FailureCode};

/// How an order is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(description = "How an order can be paid.")]
pub enum PaymentMethod {
    /// From the user's balance: held first, captured when the gateway approves.
    Balance,
    /// By card.
    Card,
    /// By bank transfer, which earns 5 % off.
    BankTransfer,
}

/// What a part of the discount was given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = OrderDiscountKind, description = "What a discount is given for.")]
pub enum DiscountKind {
    /// A coupon was used.
    Coupon,
    /// The method of payment earns it.
    PaymentMethod,
}

/// A part of the discount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Discount {
    /// What it was given for.
    pub kind: DiscountKind,
    /// How much, in the minor unit; at least 0.
    pub amount: Money,
    /// The coupon, where it was given for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_coupon_id: Option<Uuid>,
}

/// A line of an order, with the price fixed when the order was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderLine {
    /// The product.
    pub product_id: Uuid,
    /// Its name then.
    pub name: String,
    /// Its category then.
    pub category: String,
    /// Its price then, in the minor unit.
    pub unit_price: Money,
    /// How many, from 1 to 10,000.
    pub quantity: i32,
}

/// A sold line with the revenue it brought: what was paid for it after all discounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SoldLine {
    /// The product.
    pub product_id: Uuid,
    /// Its category at the sale.
    pub category: String,
    /// How many.
    pub quantity: i32,
    /// What was paid for the line, in the minor unit.
    pub revenue: Money,
}

events! {
    //! What the saga of an order decided, keyed by order id.

    /// An order was accepted and waits for stock, coupon and payment.
    "order.placed" v 1 OrderPlaced key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// What was ordered, each product once.
        pub lines: Vec<OrderLine>,
        /// How it is to be paid.
        pub payment_method: PaymentMethod,
        /// The coupon to be used, if any.
        pub user_coupon_id: Option<Uuid>,
        /// The sum of the lines, before discounts.
        pub subtotal: Money,
        /// The discounts that are known at acceptance.
        pub discounts: Vec<Discount>,
        /// What is to be paid.
        pub total: Money,
        /// When the order is refused if it has not come to rest by then.
        pub deadline_at: Timestamp,
    }

    /// Everything is reserved; the order is to be paid now.
    "order.payment_due" v 1 OrderPaymentDue key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who pays.
        pub user_id: Uuid,
        /// The ordinal of this charge among the order's, from 1.
        pub charge_number: i32,
        /// How much, in the minor unit; 0 needs no gateway.
        pub amount: Money,
        /// How.
        pub payment_method: PaymentMethod,
    }

    /// The order is paid and its stock is deducted.
    "order.confirmed" v 1 OrderConfirmed key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who bought.
        pub user_id: Uuid,
        /// What was paid.
        pub total: Money,
        /// What was sold.
        pub lines: Vec<SoldLine>,
    }

    /// The order is refused; whoever holds something for it gives it back now.
    "order.rejecting" v 1 OrderRejecting key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// Why.
        pub failure: Failure,
        /// The charge is asked for, and the order has not heard what became of it; left out where it is not so.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub charge_due: bool,
    }

    /// The order is refused and nothing is held for it any more.
    "order.rejected" v 1 OrderRejected key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// Why.
        pub failure: Failure,
    }

    /// The order is being cancelled; whoever holds something for it gives it back now.
    "order.cancelling" v 1 OrderCancelling key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// The ordinal of this change of the order: 1 is its placing, every modification and a cancellation count on.
        pub round: i32,
        /// When the cancellation is overdue.
        pub deadline_at: Timestamp,
    }

    /// The order is cancelled: paid back, and its stock can be ordered again.
    "order.cancelled" v 1 OrderCancelled key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// What was paid back, in the minor unit.
        pub refunded: Money,
        /// When the sale was confirmed that is taken back.
        pub confirmed_at: Timestamp,
        /// What was sold and now is not.
        pub lines: Vec<SoldLine>,
    }

    /// The lines of an order are to be replaced; stock and payment are asked for the difference.
    "order.modifying" v 1 OrderModifying key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// The ordinal of this change of the order: 1 is its placing, every modification and a cancellation count on.
        pub round: i32,
        /// The lines that are wanted, each product once.
        pub lines: Vec<OrderLine>,
        /// The sum of these lines, before discounts.
        pub subtotal: Money,
        /// The discounts on them.
        pub discounts: Vec<Discount>,
        /// What they cost.
        pub total: Money,
        /// When the modification is refused if not everything for it is held by then.
        pub deadline_at: Timestamp,
    }

    /// Everything for a modification is held and paid for; it is carried out now and can't be refused any more.
    "order.modification_applying" v 1 OrderModificationApplying key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// The modification.
        pub round: i32,
        /// What is to be paid back, in the minor unit; 0 where the order has not become cheaper.
        pub refund: Money,
    }

    /// A modification is refused; what is held for it is given back now.
    "order.modification_refusing" v 1 OrderModificationRefusing key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// The modification.
        pub round: i32,
        /// Why.
        pub failure: Failure,
        /// Its charge is asked for, and the order has not heard what became of it; left out where it is not so.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub charge_due: bool,
    }

    /// The order has its new lines; stock and payment are as they say.
    "order.modified" v 1 OrderModified key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// The modification.
        pub round: i32,
        /// What the order costs now.
        pub total: Money,
        /// When the sale was confirmed that is changed.
        pub confirmed_at: Timestamp,
        /// What was sold before.
        pub before: Vec<SoldLine>,
        /// What is sold now.
        pub lines: Vec<SoldLine>,
    }

    /// A modification is refused and the order is exactly as it was before.
    "order.modification_refused" v 1 OrderModificationRefused key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// The modification.
        pub round: i32,
        /// Why.
        pub failure: Failure,
    }

    /// A part of the order was shipped, and more is to come.
    "order.partially_shipped" v 1 OrderPartiallyShipped key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// The shipment.
        pub shipment_id: Uuid,
        /// What is in it.
        pub lines: Vec<StockLine>,
    }

    /// The last of the order was shipped.
    "order.shipped" v 1 OrderShipped key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// The shipment.
        pub shipment_id: Uuid,
        /// What is in it.
        pub lines: Vec<StockLine>,
    }

    /// A shipment has arrived, and the order is not complete with it.
    "order.shipment_delivered" v 1 OrderShipmentDelivered key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// The shipment.
        pub shipment_id: Uuid,
    }

    /// The last shipment has arrived; the order is complete.
    "order.delivered" v 1 OrderDelivered key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Who ordered.
        pub user_id: Uuid,
        /// The shipment.
        pub shipment_id: Uuid,
    }
}
