//! What the payments worker does after a commit: it hands what the gateway is to be asked for to [`crate::gateway`].

use ordermill_domain::payments::GatewayTask;
use ordermill_pipeline::log::Entry;
use ordermill_schemas::{Event, EventKind};
use ordermill_store::payments::Intent;

use crate::gateway::GatewayQueue;
use crate::participant::FollowUp;

impl FollowUp for GatewayQueue {
    /// The events after which the gateway has something to do.
    fn wants(entry: &Entry) -> bool {
        matches!(
            EventKind::from_name(&entry.event_type),
            Some(EventKind::PaymentRequested | EventKind::PaymentVoiding | EventKind::PaymentRefunding)
        )
    }

    fn committed(&self, appended: Vec<Entry>) {
        for entry in appended {
            let Ok(event) = entry.event::<Event>() else { continue };
            let order_id = event.key();
            let task = match &*event {
                Event::PaymentRequested(e) => GatewayTask::Charge {
                    number: e.charge_number,
                    charge_id: e.charge_id,
                    amount: e.amount,
                    method: e.method,
                },
                Event::PaymentVoiding(e) => {
                    GatewayTask::Void { number: e.charge_number, charge_id: e.charge_id }
                }
                Event::PaymentRefunding(e) => GatewayTask::Refund { round: e.round, parts: e.parts.clone() },
                _ => continue,
            };
            let traceparent = entry.trace.to_string();
            let sequence = entry.sequence;
            self.offer(Intent { order_id, task, sequence, cause_id: entry.event_id, traceparent });
        }
    }
}
