//! What the orders worker does after a commit: it measures how long orders take.

use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::log::Entry;
use ordermill_schemas::EventKind;

use crate::metrics::WorkerMetrics;
use crate::participant::FollowUp;

/// How long orders take, stage by stage.
pub(crate) struct Stages {
    pub(crate) metrics: WorkerMetrics,
    pub(crate) clock: Clock,
}

/// How many events a placing has at most; what has a higher number came later.
const PLACING_EVENTS_MAX: i32 = 4;

/// Whether an event ends a later change of an order.
fn ends_a_change(kind: EventKind) -> bool {
    matches!(kind, EventKind::OrderCancelled | EventKind::OrderModified | EventKind::OrderModificationRefused)
}

impl FollowUp for Stages {
    fn wants(_entry: &Entry) -> bool {
        true
    }

    fn committed(&self, appended: Vec<Entry>) {
        let now = self.clock.now();
        for entry in appended {
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
