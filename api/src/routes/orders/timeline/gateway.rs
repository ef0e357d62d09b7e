//! What the payment gateway was asked for, and what it answered, as the events of payments tell it.

use std::collections::HashMap;

use jiff::Timestamp;
use ordermill_schemas::Event;
use ordermill_schemas::payments::{Attempt, RefundPart};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::view::view;

/// What the gateway was asked for and answered.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = TimelineGateway)]
pub struct Gateway {
    /// The charges that it is about, by their ids at the gateway.
    pub charge_ids: Vec<Uuid>,
    /// The refunds, by their ids at the gateway.
    pub refund_ids: Vec<Uuid>,
    /// The calls that led to the event, oldest first; of very many the middle ones are left out.
    pub attempts: Vec<GatewayAttempt>,
}

view! {
    /// A call to the gateway.
    #[derive(PartialEq, Eq)]
    #[schema(as = TimelineGatewayAttempt)]
    pub struct GatewayAttempt from attempt: Attempt {
        /// When it began.
        pub at: Timestamp,
        /// `CHARGE`, `LOOK_UP`, `VOID` or `REFUND`.
        #[schema(example = "CHARGE")]
        pub call: String = ordermill_store::word(attempt.call),
        /// The gateway's word, or `UNKNOWN` where it gave none; to administrators with the error.
        #[schema(example = "APPROVED")]
        pub outcome: String,
        /// How long it took, in milliseconds.
        #[schema(example = 12)]
        pub took_ms: u32,
    }
}

impl Gateway {
    fn of_charge(charge_id: Uuid, attempts: Vec<Attempt>) -> Gateway {
        let attempts = attempts.into_iter().map(Into::into).collect();
        Gateway { charge_ids: vec![charge_id], refund_ids: Vec::new(), attempts }
    }

    fn of_refund(parts: &[RefundPart], attempts: Vec<Attempt>) -> Gateway {
        let (charge_ids, refund_ids) = parts.iter().map(|part| (part.charge_id, part.refund_id)).unzip();
        Gateway { charge_ids, refund_ids, attempts: attempts.into_iter().map(Into::into).collect() }
    }
}

/// The refunds that were decided upon so far: the event that ends one names its round, not its parts.
#[derive(Debug, Default)]
pub(super) struct Refunds(HashMap<i32, Vec<RefundPart>>);

impl Refunds {
    /// What an event tells of the gateway. Events come in their order.
    pub(super) fn gateway(&mut self, event: Event) -> Option<Gateway> {
        match event {
            Event::PaymentRequested(e) => Some(Gateway::of_charge(e.charge_id, Vec::new())),
            Event::PaymentVoiding(e) => Some(Gateway::of_charge(e.charge_id, Vec::new())),
            Event::PaymentCompleted(e) => Some(Gateway::of_charge(e.charge_id?, e.attempts)),
            Event::PaymentFailed(e) => Some(Gateway::of_charge(e.charge_id?, e.attempts)),
            Event::PaymentRefunding(e) => {
                let gateway = Gateway::of_refund(&e.parts, Vec::new());
                self.0.insert(e.round, e.parts);
                Some(gateway)
            }
            Event::PaymentRefunded(e) => Some(Gateway::of_refund(self.0.get(&e.round)?, e.attempts)),
            _ => None,
        }
    }
}

/// Leaves the errors of calls without an answer out of a payload, `UNKNOWN: timed out` becomes `UNKNOWN`: a customer sees that
/// there was none, not why.
pub(super) fn keep_words_only(data: &mut Value) {
    let attempts = data.get_mut("attempts").and_then(Value::as_array_mut);
    for attempt in attempts.into_iter().flatten() {
        if let Some(Value::String(outcome)) = attempt.get_mut("outcome") {
            outcome.truncate(outcome.find(':').unwrap_or(outcome.len()));
        }
    }
}
