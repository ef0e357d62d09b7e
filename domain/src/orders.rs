//! The order and its saga: what follows from what the participants answered and from what a client asks for.
//!
//! An order goes through rounds. Round 1 is its placing; every modification and a cancellation is one more. What a
//! participant is asked for and answers in a round carries its number, so that a repeated or late message is known.

mod commands;
mod saga;
mod status;

use std::collections::BTreeMap;

use jiff::Timestamp;
use ordermill_schemas::coupons::CouponTerms;
use ordermill_schemas::orders::{Discount, Failure, OrderLine, OrderPlaced, PaymentMethod, SoldLine};
use ordermill_schemas::stock::StockLine;
use ordermill_schemas::{Event, Money, Topic};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::decider::{Decided, Decider};
use crate::pricing;

pub use commands::{Refusal, Replacement};
pub use status::{OrderStatus, TRANSITIONS, diagram};

/// How far stock has got for an order. The order of the variants is the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StockStep {
    /// Asked, no answer yet.
    Asked,
    /// Everything is held.
    Reserved,
    /// Everything was sold.
    Deducted,
    /// What was held could not be sold in the end; what is left of it is still held.
    Short,
    /// Nothing is held, and nothing was.
    Refused,
    /// Nothing is held any more.
    Released,
}

/// How far payment has got for an order. The order of the variants is the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PaymentStep {
    /// Not asked yet.
    NotDue,
    /// Asked, no answer yet.
    Due,
    /// Paid.
    Completed,
    /// Not paid, and nothing is held for it.
    Failed,
    /// Paid back.
    Refunded,
}

/// How far the coupon has got for an order. The order of the variants is the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CouponStep {
    /// The order names none.
    NotUsed,
    /// Asked, no answer yet.
    Asked,
    /// It is used for the order.
    Applied,
    /// It can't be used.
    Refused,
    /// It is not used for the order any more.
    Returned,
}

/// How far stock has got for a modification. The order of the variants is the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ChangeStep {
    /// Asked, no answer yet.
    Asked,
    /// What is needed in addition is held.
    Reserved,
    /// The order has what the new lines say.
    Changed,
    /// Nothing is held, and nothing was.
    Refused,
    /// Nothing is held any more.
    Released,
}

/// A modification under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The lines that are wanted.
    pub lines: Vec<OrderLine>,
    /// Their sum.
    pub subtotal: Money,
    /// What is taken off.
    pub discounts: Vec<Discount>,
    /// What they cost.
    pub total: Money,
    /// How far stock has got.
    pub stock: ChangeStep,
    /// How far payment of the difference has got, either way.
    pub payment: PaymentStep,
    /// Why it is refused, if it is.
    pub failure: Option<Failure>,
}

/// What became of the last modification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", tag = "status")]
pub enum LastModification {
    /// The order has the lines that were wanted.
    Applied,
    /// The order is as it was before.
    Refused {
        /// Why.
        failure: Failure,
    },
}

/// An order as its saga sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The order.
    pub order_id: Uuid,
    /// Who ordered.
    pub user_id: Uuid,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// How it is paid.
    pub payment_method: PaymentMethod,
    /// The sum of the lines.
    pub subtotal: Money,
    /// What was taken off.
    pub discounts: Vec<Discount>,
    /// What is to be paid.
    pub total: Money,
    /// Where it is in its life.
    pub status: OrderStatus,
    /// How far stock has got.
    pub stock: StockStep,
    /// How far payment has got.
    pub payment: PaymentStep,
    /// How far the coupon has got.
    pub coupon_step: CouponStep,
    /// What the coupon does, once it is used.
    pub coupon: Option<CouponTerms>,
    /// What was paid in its life.
    pub paid: Money,
    /// What was paid back in its life.
    pub refunded: Money,
    /// Why it is refused, if it is.
    pub failure: Option<Failure>,
    /// The ordinal of the last change: 1 is the placing.
    pub round: i32,
    /// The modification that is under way.
    pub change: Option<Change>,
    /// What became of the last one.
    pub last_modification: Option<LastModification>,
    /// What was shipped of each product.
    pub shipped: Vec<StockLine>,
    /// How many shipments are on their way.
    pub in_transit: i32,
    /// When the sale was confirmed. Written beside the decision, which knows no time.
    pub confirmed_at: Option<Timestamp>,
    /// When it is overdue, unless it rests.
    pub deadline_at: Timestamp,
    /// Counts what a client can see change, from 1.
    pub version: i32,
    /// How many events its history has.
    pub sequence: i32,
}

/// Orders by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// The orders, by id.
    pub orders: BTreeMap<Uuid, Order>,
}

impl Decider for Orders {
    fn react(&mut self, event: &Event) -> Vec<Decided> {
        let Some(order) = event.order_id().and_then(|order_id| self.orders.get_mut(&order_id)) else {
            return Vec::new();
        };
        order.observe(event);
        let mut decided = Vec::new();
        // A decision can make the next one due at once: refused by all means nothing to wait for.
        while let Some(event) = order.next() {
            decided.push(order.record(event));
        }
        decided
    }
}

impl Orders {
    /// The state after an event of the log, whoever wrote it; what a rebuild from the log calls.
    ///
    /// Participants' answers are on other topics than the order's own events, so the log may have them in another
    /// order than the saga met them in. It comes to the same: steps only go forward, and the order's own
    /// event says which failure counted.
    pub fn evolve(&mut self, event: &Event) {
        if let Event::OrderPlaced(placed) = event {
            self.orders.insert(placed.order_id, Order::placed(placed));
            return;
        }
        let Some(order) = event.order_id().and_then(|order_id| self.orders.get_mut(&order_id)) else {
            return;
        };
        if event.topic() == Topic::Orders { order.evolve(event) } else { order.observe(event) }
    }
}

impl Order {
    /// The order as it was accepted.
    #[must_use]
    pub fn placed(placed: &OrderPlaced) -> Order {
        Order {
            order_id: placed.order_id,
            user_id: placed.user_id,
            lines: placed.lines.clone(),
            payment_method: placed.payment_method,
            subtotal: placed.subtotal,
            discounts: placed.discounts.clone(),
            total: placed.total,
            status: OrderStatus::Pending,
            stock: StockStep::Asked,
            payment: PaymentStep::NotDue,
            coupon_step: placed.user_coupon_id.map_or(CouponStep::NotUsed, |_| CouponStep::Asked),
            coupon: None,
            paid: 0,
            refunded: 0,
            failure: None,
            round: 1,
            change: None,
            last_modification: None,
            shipped: Vec::new(),
            in_transit: 0,
            confirmed_at: None,
            deadline_at: placed.deadline_at,
            version: 1,
            sequence: 1,
        }
    }

    /// Takes an event of the order's own into its state.
    fn record(&mut self, event: Event) -> Decided {
        self.evolve(&event);
        Decided { event, sequence: self.sequence }
    }

    /// What the lines brought in, each its share of what was paid.
    fn sold(lines: &[OrderLine], total: Money) -> Vec<SoldLine> {
        let sold = |(line, revenue): (&OrderLine, Money)| SoldLine {
            product_id: line.product_id,
            category: line.category.clone(),
            quantity: line.quantity,
            revenue,
        };
        lines.iter().zip(pricing::revenues(lines, total)).map(sold).collect()
    }

    /// How many of a product were shipped.
    #[must_use]
    pub fn shipped_quantity(&self, product_id: Uuid) -> i32 {
        let line = self.shipped.iter().find(|line| line.product_id == product_id);
        line.map_or(0, |line| line.quantity)
    }
}
