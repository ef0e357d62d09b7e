//! The orders worker: the saga. It decides what follows from what the others answered.

use ordermill_domain::aggregate::Aggregate as _;
use ordermill_domain::orders::{Order, Orders};
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::consumer::Appended;
use ordermill_pipeline::journal::Keys;
use ordermill_pipeline::log::Entry;
use ordermill_schemas::{Event, EventKind, Topic};

use crate::metrics::WorkerMetrics;
use crate::participant::Participant;

/// The orders worker.
pub struct OrdersWorker {
    metrics: WorkerMetrics,
    clock: Clock,
}

impl OrdersWorker {
    /// A worker that measures how long orders take.
    #[must_use]
    pub fn new(metrics: WorkerMetrics, clock: Clock) -> OrdersWorker {
        OrdersWorker { metrics, clock }
    }
}

/// How many events a placing has at most; what has a higher number came later.
const PLACING_EVENTS_MAX: i32 = 4;

/// Whether an event ends a later change of an order.
fn ends_a_change(kind: EventKind) -> bool {
    matches!(kind, EventKind::OrderCancelled | EventKind::OrderModified | EventKind::OrderModificationRefused)
}

impl Participant for OrdersWorker {
    const GROUP: &'static str = "orders";
    const TOPICS: &'static [Topic] = &[Topic::Stock, Topic::Payments, Topic::Coupons];
    type State = Orders;

    /// All that participants say of an order, but that the gateway is about to be asked.
    fn keys(event: &Event, keys: &mut Keys) {
        let is_answer = !matches!(
            event,
            Event::PaymentRequested(_) | Event::PaymentVoiding(_) | Event::PaymentRefunding(_)
        );
        keys.extend(Order::NOUN, event.order_id().filter(|_| is_answer));
    }

    fn follows_up(_entry: &Entry) -> bool {
        true
    }

    fn committed(&self, appended: Vec<Appended>) {
        let now = self.clock.now();
        for Appended { entry, .. } in appended {
            let Some(kind) = EventKind::from_name(&entry.event_type) else { continue };
            let event = kind.name();
            // How long after acceptance says something of a placing only; what follows comes when somebody wants it.
            if entry.sequence <= PLACING_EVENTS_MAX && !ends_a_change(kind) {
                self.metrics.stage(event, entry.key, now);
            }
            if matches!(kind, EventKind::OrderConfirmed | EventKind::OrderRejected) || ends_a_change(kind) {
                self.metrics.settled(event);
                tracing::info!(order_id = %entry.key, event, trace_id = entry.trace.trace_id(), "order settled");
            }
        }
    }
}
