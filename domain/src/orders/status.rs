//! The life of an order: its statuses, and the one table of what may follow what.

use std::fmt::Write as _;

use ordermill_schemas::EventKind;
use serde::{Deserialize, Serialize};

/// Where an order is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    /// Accepted; stock and payment are being arranged.
    Pending,
    /// Refused, but what is held for it is still being given back. Shown as pending.
    Rejecting,
    /// Refused, and nothing is held for it.
    Rejected,
    /// Paid and deducted from stock.
    Confirmed,
    /// Other lines are wanted; stock and payment are being arranged for the difference.
    Modifying,
    /// Everything for the other lines is held and paid; they are being put in place. Shown as modifying.
    ModificationApplying,
    /// The other lines are refused, but what is held for them is still being given back. Shown as modifying.
    ModificationRefusing,
    /// Cancelled, but stock and money are still being given back.
    Cancelling,
    /// Cancelled; stock and money are back.
    Cancelled,
    /// A part of it was shipped.
    PartiallyShipped,
    /// All of it was shipped.
    Shipped,
    /// All of it has arrived.
    Delivered,
}

use OrderStatus::{
    Cancelled, Cancelling, Confirmed, Delivered, ModificationApplying, ModificationRefusing, Modifying,
    PartiallyShipped, Pending, Rejected, Rejecting, Shipped,
};

/// Every change of an order's status that may ever happen, with the event that makes it. The document's diagram is
/// drawn from it, and a row that would leave it is not written.
pub const TRANSITIONS: &[(OrderStatus, EventKind, OrderStatus)] = &[
    (Pending, EventKind::OrderConfirmed, Confirmed),
    (Pending, EventKind::OrderRejecting, Rejecting),
    (Rejecting, EventKind::OrderRejected, Rejected),
    (Confirmed, EventKind::OrderModifying, Modifying),
    (Modifying, EventKind::OrderModificationApplying, ModificationApplying),
    (Modifying, EventKind::OrderModificationRefusing, ModificationRefusing),
    (ModificationApplying, EventKind::OrderModified, Confirmed),
    (ModificationRefusing, EventKind::OrderModificationRefused, Confirmed),
    (Confirmed, EventKind::OrderCancelling, Cancelling),
    (Cancelling, EventKind::OrderCancelled, Cancelled),
    (Confirmed, EventKind::OrderPartiallyShipped, PartiallyShipped),
    (Confirmed, EventKind::OrderShipped, Shipped),
    (PartiallyShipped, EventKind::OrderPartiallyShipped, PartiallyShipped),
    (PartiallyShipped, EventKind::OrderShipmentDelivered, PartiallyShipped),
    (PartiallyShipped, EventKind::OrderShipped, Shipped),
    (Shipped, EventKind::OrderShipmentDelivered, Shipped),
    (Shipped, EventKind::OrderDelivered, Delivered),
];

impl OrderStatus {
    /// Every status, in the order of a life.
    pub const ALL: [OrderStatus; 12] = [
        Pending,
        Rejecting,
        Rejected,
        Confirmed,
        Modifying,
        ModificationApplying,
        ModificationRefusing,
        Cancelling,
        Cancelled,
        PartiallyShipped,
        Shipped,
        Delivered,
    ];

    /// Whether nothing happens to the order until somebody asks for it.
    #[must_use]
    pub const fn is_resting(self) -> bool {
        match self {
            Pending | Rejecting | Modifying | ModificationApplying | ModificationRefusing | Cancelling => {
                false
            }
            Rejected | Confirmed | Cancelled | PartiallyShipped | Shipped | Delivered => true,
        }
    }

    /// Whether nothing can happen to the order any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        TRANSITIONS.iter().all(|(from, _, _)| *from != self)
    }

    /// The status that clients see: what is being undone or carried out shows as what it came from.
    #[must_use]
    pub const fn shown(self) -> OrderStatus {
        match self {
            Rejecting => Pending,
            ModificationApplying | ModificationRefusing => Modifying,
            shown => shown,
        }
    }

    /// Where an event leads from here; `None` where it changes no status or may not happen here.
    #[must_use]
    pub fn after(self, event: EventKind) -> Option<OrderStatus> {
        let transition = TRANSITIONS.iter().find(|(from, kind, _)| *from == self && *kind == event);
        transition.map(|(_, _, to)| *to)
    }

    /// Whether there is a way from here to `other`, in any number of steps, none included.
    #[must_use]
    pub fn reaches(self, other: OrderStatus) -> bool {
        let mut reached = vec![self];
        let mut index = 0;
        while let Some(from) = reached.get(index).copied() {
            for (_, _, to) in TRANSITIONS.iter().filter(|(start, _, _)| *start == from) {
                if !reached.contains(to) {
                    reached.push(*to);
                }
            }
            index += 1;
        }
        reached.contains(&other)
    }
}

/// The transitions as a Mermaid state diagram; statuses that rest have a thick border.
#[must_use]
pub fn diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> Pending: order.placed\n");
    for (from, event, to) in TRANSITIONS {
        let _ = writeln!(text, "    {from:?} --> {to:?}: {}", event.name());
    }
    for status in OrderStatus::ALL.into_iter().filter(|status| status.is_final()) {
        let _ = writeln!(text, "    {status:?} --> [*]");
    }
    text.push_str("    classDef resting stroke-width:3px\n");
    for status in OrderStatus::ALL.into_iter().filter(|status| status.is_resting()) {
        let _ = writeln!(text, "    class {status:?} resting");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_can_be_reached_and_comes_to_an_end() {
        for status in OrderStatus::ALL {
            assert!(Pending.reaches(status), "{status:?} can't be reached");
            assert!(
                OrderStatus::ALL.into_iter().any(|end| end.is_final() && status.reaches(end)),
                "{status:?}"
            );
        }
    }

    #[test]
    fn an_event_leads_to_one_status_from_each() {
        for (from, event, to) in TRANSITIONS {
            assert_eq!(from.after(*event), Some(*to), "{from:?} {event:?}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_changes_no_status() {
        assert_eq!(Confirmed.after(EventKind::OrderRejecting), None);
        assert_eq!(Rejected.after(EventKind::OrderConfirmed), None);
        assert_eq!(Pending.after(EventKind::OrderPaymentDue), None);
        assert!(!Shipped.reaches(Cancelled));
        assert!(!Rejected.reaches(Confirmed));
        assert!(!Cancelling.reaches(Confirmed));
    }

    #[test]
    fn only_what_rests_can_be_final() {
        let finals: Vec<_> = OrderStatus::ALL.into_iter().filter(|status| status.is_final()).collect();
        assert_eq!(finals, [Rejected, Cancelled, Delivered]);
        assert!(finals.into_iter().all(OrderStatus::is_resting));
    }

    #[test]
    fn the_diagram_shows_every_transition() {
        let diagram = diagram();
        assert!(diagram.contains("Confirmed --> Cancelling: order.cancelling\n"));
        assert_eq!(diagram.matches(": order.").count(), TRANSITIONS.len() + 1);
    }
}
