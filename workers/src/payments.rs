//! The payments worker: decides what is to be charged, voided and paid back, and holds the money meanwhile. The
//! gateway is asked by [`crate::gateway`], after the commit.

use jiff::Timestamp;
use ordermill_domain::payments::{GatewayTask, Payments};
use ordermill_pipeline::consumer::{Appended, HandlerError, Received};
use ordermill_pipeline::log::Entry;
use ordermill_schemas::orders::PaymentMethod;
use ordermill_schemas::{Event, Topic};
use ordermill_store::payments::Intent;
use ordermill_store::{Written, payments};
use sqlx::PgConnection;

use crate::gateway::GatewayQueue;
use crate::participant::Participant;

/// The payments worker.
pub struct PaymentsWorker {
    queue: GatewayQueue,
}

impl PaymentsWorker {
    /// A worker that hands what the gateway is to be asked for to `queue`.
    #[must_use]
    pub(crate) fn new(queue: GatewayQueue) -> PaymentsWorker {
        PaymentsWorker { queue }
    }
}

/// The events after which the gateway has something to do.
const ASKING: [&str; 3] = ["payment.requested", "payment.voiding", "payment.refunding"];

impl Participant for PaymentsWorker {
    const GROUP: &'static str = "payments";
    const TOPICS: &'static [Topic] = &[Topic::Orders];
    type State = Payments;

    async fn load(
        connection: &mut PgConnection,
        events: &[Received],
        _now: Timestamp,
    ) -> Result<Payments, HandlerError> {
        let (mut order_ids, mut user_ids) = (Vec::new(), Vec::new());
        for received in events {
            match &received.event {
                Event::OrderPaymentDue(due) => {
                    order_ids.push(due.order_id);
                    if due.payment_method == PaymentMethod::Balance {
                        user_ids.push(due.user_id);
                    }
                }
                Event::OrderRejecting(_)
                | Event::OrderCancelling(_)
                | Event::OrderModificationApplying(_)
                | Event::OrderModificationRefusing(_) => order_ids.push(received.event.key()),
                _ => {}
            }
        }
        if order_ids.is_empty() {
            return Ok(Payments::default());
        }
        payments::load(connection, &order_ids, user_ids).await
    }

    async fn apply(
        connection: &mut PgConnection,
        before: &Payments,
        after: &Payments,
        written: &[Written],
        now: Timestamp,
    ) -> Result<(), HandlerError> {
        payments::apply(connection, before, after, written, now).await
    }

    fn follows_up(entry: &Entry) -> bool {
        ASKING.contains(&entry.event_type.as_str())
    }

    fn committed(&self, appended: Vec<Appended>) {
        for Appended { event_id, entry } in appended {
            let Ok(event) = Event::decode(&entry.event_type, entry.version, &entry.data) else { continue };
            let order_id = event.key();
            let task = match event {
                Event::PaymentRequested(e) => GatewayTask::Charge {
                    number: e.charge_number,
                    charge_id: e.charge_id,
                    amount: e.amount,
                    method: e.method,
                },
                Event::PaymentVoiding(e) => {
                    GatewayTask::Void { number: e.charge_number, charge_id: e.charge_id }
                }
                Event::PaymentRefunding(e) => GatewayTask::Refund { round: e.round, parts: e.parts },
                _ => continue,
            };
            let traceparent = entry.trace.to_string();
            let sequence = entry.sequence;
            self.queue.offer(Intent { order_id, task, sequence, cause_id: event_id, traceparent });
        }
    }
}
