//! The orders worker: the saga. It decides what follows from what the others answered.

use jiff::Timestamp;
use ordermill_domain::orders::Orders;
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::consumer::{Appended, HandlerError, Received};
use ordermill_pipeline::log::Entry;
use ordermill_schemas::Topic;
use ordermill_store::{Written, orders};
use sqlx::PgConnection;

use crate::metrics::WorkerMetrics;
use crate::participant::{Participant, order_ids};

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

/// The events that end a placing.
const ENDS_A_PLACING: [&str; 2] = ["order.confirmed", "order.rejected"];
/// The events that end a later change of an order.
const ENDS_A_CHANGE: [&str; 3] = ["order.cancelled", "order.modified", "order.modification_refused"];
/// How many events a placing has at most; what has a higher number came later.
const PLACING_EVENTS_MAX: i32 = 4;

impl Participant for OrdersWorker {
    const GROUP: &'static str = "orders";
    const TOPICS: &'static [Topic] = &[Topic::Stock, Topic::Payments, Topic::Coupons];
    type State = Orders;

    async fn load(
        connection: &mut PgConnection,
        events: &[Received],
        _now: Timestamp,
    ) -> Result<Orders, HandlerError> {
        orders::load(connection, &order_ids(events)).await
    }

    async fn apply(
        connection: &mut PgConnection,
        before: &Orders,
        after: &Orders,
        _written: &[Written],
        now: Timestamp,
    ) -> Result<(), HandlerError> {
        orders::apply(connection, before, after, now).await
    }

    fn follows_up(_entry: &Entry) -> bool {
        true
    }

    fn committed(&self, appended: Vec<Appended>) {
        let now = self.clock.now();
        for Appended { entry, .. } in appended {
            let event = entry.event_type.as_str();
            // How long after acceptance says something of a placing only; what follows comes when somebody wants it.
            if entry.sequence <= PLACING_EVENTS_MAX && !ENDS_A_CHANGE.contains(&event) {
                self.metrics.stage(event, entry.key, now);
            }
            if ENDS_A_PLACING.contains(&event) || ENDS_A_CHANGE.contains(&event) {
                self.metrics.settled(event);
                tracing::info!(order_id = %entry.key, event, trace_id = entry.trace.trace_id(), "order settled");
            }
        }
    }
}
