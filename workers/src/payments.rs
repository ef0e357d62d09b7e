//! The payments worker: decides what is to be charged, voided and paid back, and holds the money meanwhile. The
//! gateway is asked by [`crate::gateway`], after the commit.

use ordermill_domain::aggregate::Aggregate as _;
use ordermill_domain::payments::{Balance, GatewayTask, Payment, Payments};
use ordermill_pipeline::consumer::Appended;
use ordermill_pipeline::journal::Keys;
use ordermill_pipeline::log::Entry;
use ordermill_schemas::orders::PaymentMethod;
use ordermill_schemas::{Event, EventKind, Topic};
use ordermill_store::payments::Intent;

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

impl Participant for PaymentsWorker {
    const GROUP: &'static str = "payments";
    const TOPICS: &'static [Topic] = &[Topic::Orders];
    type State = Payments;

    /// The balance of who has paid from it follows from the payment.
    fn keys(event: &Event, keys: &mut Keys) {
        match event {
            Event::OrderPaymentDue(due) => {
                keys.add(Payment::NOUN, due.order_id);
                if due.payment_method == PaymentMethod::Balance {
                    keys.add(Balance::NOUN, due.user_id);
                }
            }
            Event::OrderRejecting(_)
            | Event::OrderCancelling(_)
            | Event::OrderModificationApplying(_)
            | Event::OrderModificationRefusing(_) => keys.add(Payment::NOUN, event.key()),
            _ => {}
        }
    }

    /// The events after which the gateway has something to do.
    fn follows_up(entry: &Entry) -> bool {
        matches!(
            EventKind::from_name(&entry.event_type),
            Some(EventKind::PaymentRequested | EventKind::PaymentVoiding | EventKind::PaymentRefunding)
        )
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
