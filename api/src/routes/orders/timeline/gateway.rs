//! What the payment gateway was asked for, and what it answered, as the events of payments tell it.

use std::collections::HashMap;

use jiff::Timestamp;
use ordermill_schemas::Event;
use ordermill_schemas::payments::{Attempt, GatewayCall, RefundPart};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

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

/// A call to the gateway.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = TimelineGatewayAttempt)]
pub struct GatewayAttempt {
    /// When it began.
    pub at: Timestamp,
    /// `CHARGE`, `LOOK_UP`, `VOID` or `REFUND`.
    #[schema(example = "CHARGE")]
    pub call: &'static str,
    /// The gateway's word, or `UNKNOWN` where it gave none; to administrators with the error.
    #[schema(example = "APPROVED")]
    pub outcome: String,
    /// How long it took, in milliseconds.
    #[schema(example = 12)]
    pub took_ms: u32,
}

impl From<Attempt> for GatewayAttempt {
    fn from(attempt: Attempt) -> GatewayAttempt {
        let call = match attempt.call {
            GatewayCall::Charge => "CHARGE",
            GatewayCall::LookUp => "LOOK_UP",
            GatewayCall::Void => "VOID",
            GatewayCall::Refund => "REFUND",
        };
        GatewayAttempt { at: attempt.at, call, outcome: attempt.outcome, took_ms: attempt.took_ms }
    }
}

impl Gateway {
    fn of_charge(charge_id: Uuid, attempts: Vec<Attempt>) -> Gateway {
        Gateway { charge_ids: vec![charge_id], refund_ids: Vec::new(), attempts: told(attempts) }
    }

    fn of_refund(parts: &[RefundPart], attempts: Vec<Attempt>) -> Gateway {
        Gateway {
            charge_ids: parts.iter().map(|part| part.charge_id).collect(),
            refund_ids: parts.iter().map(|part| part.refund_id).collect(),
            attempts: told(attempts),
        }
    }

    /// Leaves out the errors of calls without an answer: a customer sees that there was none, not why.
    pub(super) fn keep_words_only(&mut self) {
        for attempt in &mut self.attempts {
            word_only(&mut attempt.outcome);
        }
    }
}

fn told(attempts: Vec<Attempt>) -> Vec<GatewayAttempt> {
    attempts.into_iter().map(GatewayAttempt::from).collect()
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

/// Does to a payload what [`Gateway::keep_words_only`] does to what is made of it.
pub(super) fn keep_words_only(data: &mut Value) {
    let attempts = data.get_mut("attempts").and_then(Value::as_array_mut);
    for attempt in attempts.into_iter().flatten() {
        if let Some(Value::String(outcome)) = attempt.get_mut("outcome") {
            word_only(outcome);
        }
    }
}

/// `UNKNOWN: timed out` is `UNKNOWN`.
fn word_only(outcome: &mut String) {
    if let Some((word, _)) = outcome.split_once(':') {
        *outcome = word.to_owned();
    }
}
