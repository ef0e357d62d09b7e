//! What a client or the clock asks of an order: cancel, modify, ship, deliver, give up.

use jiff::Timestamp;
use ordermill_schemas::Event;
use ordermill_schemas::orders::{
    Failure, FailureCode, OrderCancelling, OrderDelivered, OrderLine, OrderModifying, OrderPartiallyShipped,
    OrderShipmentDelivered, OrderShipped,
};
use ordermill_schemas::stock::StockLine;
use uuid::Uuid;

use super::{Order, OrderStatus, Purchase};
use crate::pricing::Quote;

/// Why an order can't do what it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not in a status to do it from; it may be later.
    Busy,
    /// A part of it was shipped.
    Shipped,
    /// It was never confirmed, so there is nothing to cancel.
    NotCancellable,
    /// It has less left to ship than is asked for.
    NothingToShip,
}

/// The lines that an order is to have instead of its own, and what they cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The lines, each product once.
    pub lines: Vec<OrderLine>,
    /// What they cost.
    pub quote: Quote,
}

impl Order {
    /// Cancels the order; nothing where it is cancelled already.
    ///
    /// # Errors
    /// [`Refusal`] where it was shipped, was refused, or is busy.
    pub fn cancel(&self, deadline_at: Timestamp) -> Result<Option<Event>, Refusal> {
        match self.status {
            OrderStatus::Confirmed => {
                let Purchase { order_id, user_id, .. } = self.purchase;
                let round = self.round + 1;
                Ok(Some(OrderCancelling { order_id, user_id, round, deadline_at }.into()))
            }
            OrderStatus::Cancelling | OrderStatus::Cancelled => Ok(None),
            OrderStatus::PartiallyShipped | OrderStatus::Shipped | OrderStatus::Delivered => {
                Err(Refusal::Shipped)
            }
            OrderStatus::Rejected => Err(Refusal::NotCancellable),
            OrderStatus::Pending
            | OrderStatus::Rejecting
            | OrderStatus::Modifying
            | OrderStatus::ModificationApplying
            | OrderStatus::ModificationRefusing => Err(Refusal::Busy),
        }
    }

    /// Begins to replace the order's lines.
    ///
    /// # Errors
    /// [`Refusal`] where it was shipped, or is not confirmed.
    pub fn modify(&self, wanted: Replacement, deadline_at: Timestamp) -> Result<Event, Refusal> {
        self.may_modify()?;
        let modifying = OrderModifying {
            order_id: self.purchase.order_id,
            user_id: self.purchase.user_id,
            round: self.round + 1,
            lines: wanted.lines,
            subtotal: wanted.quote.subtotal,
            discounts: wanted.quote.discounts,
            total: wanted.quote.total,
            deadline_at,
        };
        Ok(modifying.into())
    }

    /// Whether the order's lines can be replaced at all now, whatever by.
    ///
    /// # Errors
    /// [`Refusal`] where it was shipped, or is not confirmed.
    pub fn may_modify(&self) -> Result<(), Refusal> {
        match self.status {
            OrderStatus::Confirmed => Ok(()),
            OrderStatus::PartiallyShipped | OrderStatus::Shipped | OrderStatus::Delivered => {
                Err(Refusal::Shipped)
            }
            _ => Err(Refusal::Busy),
        }
    }

    /// Ships lines of the order, each product once.
    ///
    /// # Errors
    /// [`Refusal`] where less is left of a line, or the order is not confirmed or partially shipped.
    pub fn ship(&self, shipment_id: Uuid, lines: Vec<StockLine>) -> Result<Event, Refusal> {
        if !matches!(self.status, OrderStatus::Confirmed | OrderStatus::PartiallyShipped) {
            return Err(Refusal::Busy);
        }
        let asked =
            |product_id| lines.iter().filter(|l| l.product_id == product_id).map(|l| l.quantity).sum();
        let left = |line: &OrderLine| line.quantity - self.shipped_quantity(line.product_id);
        let is_ours =
            |asked: &StockLine| self.purchase.lines.iter().any(|line| line.product_id == asked.product_id);
        let is_covered = self.purchase.lines.iter().all(|line| left(line) >= asked(line.product_id));
        if lines.is_empty() || !lines.iter().all(|line| line.quantity > 0 && is_ours(line)) || !is_covered {
            return Err(Refusal::NothingToShip);
        }
        let is_complete = self.purchase.lines.iter().all(|line| left(line) == asked(line.product_id));
        let Purchase { order_id, user_id, .. } = self.purchase;
        Ok(if is_complete {
            OrderShipped { order_id, user_id, shipment_id, lines }.into()
        } else {
            OrderPartiallyShipped { order_id, user_id, shipment_id, lines }.into()
        })
    }

    /// A shipment that is on its way has arrived.
    ///
    /// # Errors
    /// [`Refusal`] where none is on its way.
    pub fn deliver(&self, shipment_id: Uuid) -> Result<Event, Refusal> {
        if self.in_transit < 1 {
            return Err(Refusal::NothingToShip);
        }
        let Purchase { order_id, user_id, .. } = self.purchase;
        match self.status {
            OrderStatus::Shipped if self.in_transit == 1 => {
                Ok(OrderDelivered { order_id, user_id, shipment_id }.into())
            }
            OrderStatus::Shipped | OrderStatus::PartiallyShipped => {
                Ok(OrderShipmentDelivered { order_id, user_id, shipment_id }.into())
            }
            _ => Err(Refusal::Busy),
        }
    }

    /// Gives up on what has not been arranged in time; nothing where there is still time, or nothing to give up: what is being
    /// undone or carried out goes on until it is done.
    #[must_use]
    pub fn expire(&self, now: Timestamp) -> Option<Event> {
        if self.deadline_at >= now {
            return None;
        }
        let failure = |what: &str| Failure {
            code: FailureCode::DeadlineExceeded,
            detail: format!("{what} did not get through its steps in time"),
        };
        match self.status {
            OrderStatus::Pending => Some(self.rejecting(failure("the order"))),
            OrderStatus::Modifying => Some(self.modification_refusing(failure("the modification"))),
            _ => None,
        }
    }
}
