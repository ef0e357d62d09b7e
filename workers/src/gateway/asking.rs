//! Asking the gateway until its answer is certain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ordermill_domain::payments::{GatewayResult, GatewayTask, Outcome};
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::retry::Retry;
use ordermill_schemas::orders::{Failure, FailureCode};
use ordermill_schemas::payments::{Attempt, GatewayCall, RefundPart};
use ordermill_store::payments::Intent;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::circuit::Circuit;
use super::client::{Answer, Charge, GatewayClient};
use crate::metrics::WorkerMetrics;

/// The first wait after a call without an answer, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// The first wait for an open circuit, and the longest.
const CIRCUIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How many attempts an event tells of: the first and the last ones of very many.
const ATTEMPTS_TOLD: (usize, usize) = (4, 12);

/// Who asks. Cloning shares connections, circuit and limit.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) client: GatewayClient,
    pub(crate) circuit: Circuit,
    pub(crate) calls: Arc<Semaphore>,
    pub(crate) clock: Clock,
    pub(crate) metrics: WorkerMetrics,
}

impl Asker {
    /// Asks for what the intent says, again and again, until the gateway's result is known. Whoever has no use for the
    /// result any more drops this.
    pub(crate) async fn ask(&self, intent: &Intent) -> Outcome {
        let mut asking =
            Asking { asker: self, intent, retry: Retry::forever(RETRY.0, RETRY.1), attempts: Vec::new() };
        let result = match &intent.task {
            GatewayTask::Charge { number, charge_id, amount, method } => {
                let (charge_id, amount, method, order_id) = (*charge_id, *amount, *method, intent.order_id);
                asking.charge(*number, Charge { charge_id, amount, method, order_id }).await
            }
            GatewayTask::Void { number, charge_id } => {
                asking.void(*charge_id).await;
                GatewayResult::Voided(*number)
            }
            GatewayTask::Refund { round, parts } => {
                for part in parts {
                    asking.refund(part).await;
                }
                GatewayResult::Refunded(*round)
            }
        };
        Outcome { result, attempts: asking.attempts }
    }
}

struct Asking<'a> {
    asker: &'a Asker,
    intent: &'a Intent,
    retry: Retry,
    attempts: Vec<Attempt>,
}

impl Asking<'_> {
    async fn charge(&mut self, number: i32, charge: Charge) -> GatewayResult {
        let asker = self.asker;
        let trace = self.intent.traceparent.as_str();
        let refused =
            |code, detail: &str| GatewayResult::Refused(number, Failure { code, detail: detail.to_owned() });
        let mut sent_before = false;
        loop {
            // After a call without an answer the gateway is asked what it knows before it is asked to charge.
            let mut answer = Answer::Absent;
            if sent_before {
                answer = self.call(GatewayCall::LookUp, || asker.client.look_up(charge, trace)).await;
            }
            if answer == Answer::Absent {
                answer = self.call(GatewayCall::Charge, || asker.client.charge(charge, trace)).await;
                sent_before = true;
            }
            match answer {
                Answer::Approved => return GatewayResult::Approved(number),
                Answer::Declined => {
                    return refused(FailureCode::PaymentDeclined, "the payment gateway declined the charge");
                }
                Answer::Voided => return refused(FailureCode::PaymentUnavailable, "the charge was voided"),
                Answer::Partial(approved) => {
                    self.void(charge.charge_id).await;
                    let asked = charge.amount;
                    let detail =
                        format!("the payment gateway approved only {approved} of {asked}, which was voided");
                    return refused(FailureCode::PaymentDeclined, &detail);
                }
                Answer::Absent | Answer::Refunded | Answer::Refused(_) | Answer::Unknown(_) => {
                    self.pause().await;
                }
            }
        }
    }

    async fn void(&mut self, charge_id: Uuid) {
        let (asker, trace) = (self.asker, self.intent.traceparent.as_str());
        while self.call(GatewayCall::Void, || asker.client.void(charge_id, trace)).await != Answer::Voided {
            self.pause().await;
        }
    }

    async fn refund(&mut self, part: &RefundPart) {
        let (asker, trace) = (self.asker, self.intent.traceparent.as_str());
        while self.call(GatewayCall::Refund, || asker.client.refund(part, trace)).await != Answer::Refunded {
            self.pause().await;
        }
    }

    /// Calls the gateway once there is room and the circuit permits it, and notes what came of it.
    async fn call<F: Future<Output = Answer>>(
        &mut self,
        call: GatewayCall,
        send: impl FnOnce() -> F,
    ) -> Answer {
        let asker = self.asker;
        let mut waits = Retry::forever(CIRCUIT.0, CIRCUIT.1);
        let (room, permit) = loop {
            // The semaphore is never closed; if it were, a call without its permit would be a call too many, no more.
            let room = asker.calls.acquire().await;
            if let Some(permit) = asker.circuit.permit() {
                break (room, permit);
            }
            drop(room);
            tokio::time::sleep(waits.next_delay()).await;
        };
        let (at, started) = (asker.clock.now(), Instant::now());
        let in_flight = InFlight::begin(&asker.metrics.gateway_calls_in_flight);
        let answer = send().await;
        drop((in_flight, room));
        let took = started.elapsed();
        permit.record(!matches!(answer, Answer::Unknown(_)));
        asker.metrics.gateway_answered(answer.word(), took.as_secs_f64());
        let (order_id, task, attempt) = (self.intent.order_id, &self.intent.task, self.attempts.len() + 1);
        let outcome = match &answer {
            Answer::Unknown(error) => {
                tracing::warn!(%order_id, ?task, attempt, error, "the gateway gave no answer; it is asked again");
                format!("UNKNOWN: {error}")
            }
            // It goes on being asked: money is at stake, and whoever mends the cause need not mend the order, too.
            Answer::Refused(error) => {
                tracing::error!(
                    %order_id, ?task, attempt, error,
                    "the gateway refuses what it should do; it is asked again"
                );
                format!("REFUSED: {error}")
            }
            Answer::Partial(amount) => format!("PARTIAL: {amount}"),
            known => known.word().to_owned(),
        };
        let took_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        self.note(Attempt { at, call, outcome, took_ms });
        answer
    }

    fn note(&mut self, attempt: Attempt) {
        let (first, last) = ATTEMPTS_TOLD;
        if self.attempts.len() == first + last {
            self.attempts.remove(first);
        }
        self.attempts.push(attempt);
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.retry.next_delay()).await;
    }
}

/// Counts a call as in flight until it ends, be it because nobody waits for it any more.
struct InFlight<'a>(&'a Gauge);

impl InFlight<'_> {
    fn begin(gauge: &Gauge) -> InFlight<'_> {
        gauge.inc();
        InFlight(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
