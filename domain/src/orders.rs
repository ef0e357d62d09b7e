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

use crate::aggregate::{Aggregate, Kind, documents, is_default};
use crate::capability::{Capability, Decided, Reacts};
use crate::shipments::Shipment;
use crate::{pricing, times};

use saga::is_paid_by_deduction;

pub use commands::{Refusal, Replacement};
pub use status::{OrderStatus, TRANSITIONS, diagram};

/// How far stock has got for an order. The order of the variants is the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CouponStep {
    /// The order names none.
    #[default]
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

/// What was ordered, by whom and at which price: fixed when the order is accepted, but for its coupon and modifications.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discounts: Vec<Discount>,
    /// What is to be paid.
    pub total: Money,
    /// What the coupon does, once it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coupon: Option<CouponTerms>,
    /// When it was accepted.
    #[serde(with = "times::required")]
    pub created_at: Timestamp,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What was ordered.
    #[serde(skip_serializing)]
    pub purchase: Purchase,
    /// Where it is in its life.
    pub status: OrderStatus,
    /// How far stock has got.
    pub stock: StockStep,
    /// How far payment has got.
    pub payment: PaymentStep,
    /// How far the coupon has got.
    #[serde(default, skip_serializing_if = "is_default")]
    pub coupon_step: CouponStep,
    /// What was paid in its life.
    pub paid: Money,
    /// What was paid back in its life.
    pub refunded: Money,
    /// Why it is refused, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The ordinal of the last change: 1 is the placing.
    pub round: i32,
    /// The modification that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// What became of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modification: Option<LastModification>,
    /// What was shipped of each product.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shipped: Vec<StockLine>,
    /// How many shipments are on their way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub in_transit: i32,
    /// When it last changed visibly: the time of the event that it changed by.
    #[serde(with = "times::required")]
    pub updated_at: Timestamp,
    /// When the sale was confirmed.
    #[serde(default, with = "times::optional", skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<Timestamp>,
    /// When it is overdue, unless it rests.
    #[serde(with = "times::required")]
    pub deadline_at: Timestamp,
    /// Counts what a client can see change, from 1.
    pub visible_version: i32,
    /// How many events its history has.
    pub sequence: i32,
}

impl Aggregate for Order {
    const KIND: Kind = Kind {
        bulk: Some("purchase"),
        counted_by: Some("status"),
        sums: &["purchase.total", "paid", "refunded"],
        ..Kind::new("orders", "order")
    };
    type Bulk = Purchase;

    fn bulk(&self) -> Option<&Purchase> {
        Some(&self.purchase)
    }

    fn check(&self, before: Option<&Order>) -> Result<(), &'static str> {
        if before.is_some_and(|before| !before.status.reaches(self.status)) {
            return Err("its status can't follow the one before");
        }
        if !(0..=self.paid).contains(&self.refunded) {
            return Err("more is paid back than was paid");
        }
        Ok(())
    }
}

/// Orders and their shipments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// The time at which is decided.
    pub now: Timestamp,
    /// The orders, by id.
    pub orders: BTreeMap<Uuid, Order>,
    /// The shipments, by id.
    pub shipments: BTreeMap<Uuid, Shipment>,
}

documents! { Orders { orders: Order, shipments: Shipment } }

impl Reacts for Orders {
    const READS: &'static [Topic] = &[Topic::Stock, Topic::Payments, Topic::Coupons];

    /// All that participants say of an order, but that the gateway is about to be asked, and what their next answer says too.
    fn keys(event: &Event) -> Vec<(&'static str, Uuid)> {
        let is_answer = !matches!(
            event,
            Event::PaymentRequested(_) | Event::PaymentVoiding(_) | Event::PaymentRefunding(_)
        ) && !is_paid_by_deduction(event);
        let order_id = event.order_id().filter(|_| is_answer);
        order_id.map(|order_id| (Order::NOUN, order_id)).into_iter().collect()
    }

    fn react(&mut self, event: &Event, at: Timestamp) -> Vec<Decided> {
        let Some(order) = event.order_id().and_then(|order_id| self.orders.get_mut(&order_id)) else {
            return Vec::new();
        };
        let order_id = order.purchase.order_id;
        order.observe(event, at);
        let mut decided = Vec::new();
        // A decision can make the next one due at once: refused by all means nothing to wait for.
        while let Some(event) = self.orders.get(&order_id).and_then(Order::next) {
            decided.extend(self.record([event]));
        }
        decided
    }
}

impl Capability for Orders {
    const TOPIC: Topic = Topic::Orders;

    fn now(&mut self) -> &mut Timestamp {
        &mut self.now
    }

    fn sequence(&self, event: &Event) -> i32 {
        self.orders.get(&event.key()).map_or(0, |order| order.sequence)
    }

    /// Participants' answers are on other topics than the order's own events, so the log may have them in another
    /// order than the saga met them in. It comes to the same: steps only go forward, and the order's own
    /// event says which failure counted.
    fn evolve(&mut self, event: &Event, at: Timestamp) {
        if let Event::OrderPlaced(placed) = event {
            self.orders.insert(placed.order_id, Order::placed(placed, at));
            return;
        }
        self.evolve_shipments(event, at);
        let Some(order) = event.order_id().and_then(|order_id| self.orders.get_mut(&order_id)) else {
            return;
        };
        if event.topic() == Topic::Orders { order.evolve(event, at) } else { order.observe(event, at) }
    }
}

impl Orders {
    fn evolve_shipments(&mut self, event: &Event, at: Timestamp) {
        let (shipment_id, order_id, lines) = match event {
            Event::OrderPartiallyShipped(e) => (e.shipment_id, e.order_id, &e.lines),
            Event::OrderShipped(e) => (e.shipment_id, e.order_id, &e.lines),
            Event::OrderShipmentDelivered(e) => return self.deliver(e.shipment_id, at),
            Event::OrderDelivered(e) => return self.deliver(e.shipment_id, at),
            _ => return,
        };
        let shipment = Shipment { order_id, lines: lines.clone(), created_at: at, delivered_at: None };
        self.shipments.insert(shipment_id, shipment);
    }

    fn deliver(&mut self, shipment_id: Uuid, at: Timestamp) {
        if let Some(shipment) = self.shipments.get_mut(&shipment_id) {
            shipment.delivered_at = Some(at);
        }
    }

    /// Has an order do something, where it is known; what it decides is recorded.
    ///
    /// # Errors
    /// Those of the command.
    pub fn command<E>(
        &mut self,
        order_id: Uuid,
        command: impl FnOnce(&Order) -> Result<Option<Event>, E>,
    ) -> Result<Vec<Decided>, E> {
        let Some(order) = self.orders.get(&order_id) else { return Ok(Vec::new()) };
        let event = command(order)?;
        Ok(self.record(event))
    }
}

impl Order {
    /// The order as it was accepted.
    #[must_use]
    pub fn placed(placed: &OrderPlaced, at: Timestamp) -> Order {
        Order {
            purchase: Purchase {
                order_id: placed.order_id,
                user_id: placed.user_id,
                lines: placed.lines.clone(),
                payment_method: placed.payment_method,
                subtotal: placed.subtotal,
                discounts: placed.discounts.clone(),
                total: placed.total,
                coupon: None,
                created_at: at,
            },
            status: OrderStatus::Pending,
            stock: StockStep::Asked,
            payment: PaymentStep::NotDue,
            coupon_step: placed.user_coupon_id.map_or(CouponStep::NotUsed, |_| CouponStep::Asked),
            paid: 0,
            refunded: 0,
            failure: None,
            round: 1,
            change: None,
            last_modification: None,
            shipped: Vec::new(),
            in_transit: 0,
            updated_at: at,
            confirmed_at: None,
            deadline_at: placed.deadline_at,
            visible_version: 1,
            sequence: 1,
        }
    }

    /// Whether its deadline has passed while it does not rest.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        !self.status.is_resting() && self.deadline_at < now
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
