//! What the gateway is asked for: outside of any transaction and partition, settled in batches.
//!
//! What is to be asked stands in the table `payments` before the gateway is asked. This process asks
//! and writes the answer; if it dies, another takes over when the lease has run out. Ids are derived, so asking twice
//! charges, voids and pays back once.

mod asking;
mod circuit;
mod client;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ordermill_domain::aggregate::Aggregate as _;
use ordermill_domain::payments::{Outcome, Payment, Payments};
use ordermill_pipeline::consumer::{Runtime, derived_event_id};
use ordermill_pipeline::database::Next;
use ordermill_pipeline::journal::{Journal, JournalError, Keys};
use ordermill_pipeline::log::Origin;
use ordermill_pipeline::pacing::pause_after;
use ordermill_pipeline::retry::Retry;
use ordermill_pipeline::trace::TraceContext;
use ordermill_store::payments::{self, Intent};
use ordermill_store::{Decision, Written, decide};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::metrics::WorkerMetrics;
use asking::Asker;
use circuit::Circuit;
use client::GatewayClient;

pub use client::GatewayError;

/// How many intents may be under way at once; what does not fit is taken from the table later.
const UNDER_WAY_MAX: usize = 10_000;
/// How many outcomes one transaction settles at most.
const SETTLE_MAX: usize = 500;
/// How often the table is looked at for what its process has not brought to an end.
const TAKE_OVER_EVERY: Duration = Duration::from_secs(1);
/// How many of them are taken at once.
const TAKE_OVER_MAX: i64 = 500;
/// How long calls under way may take to finish at shutdown.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// How the gateway is reached.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The gateway's address.
    pub gateway_url: String,
    /// How long one call may take.
    pub call_timeout: Duration,
    /// How many calls run at once.
    pub calls_max: usize,
}

impl GatewayConfig {
    /// The gateway at that address, with the usual limits.
    #[must_use]
    pub fn new(gateway_url: &str) -> GatewayConfig {
        GatewayConfig {
            gateway_url: gateway_url.to_owned(),
            call_timeout: Duration::from_secs(3),
            calls_max: 256,
        }
    }
}

/// Where intents are handed in.
#[derive(Clone, Debug)]
pub(crate) struct GatewayQueue {
    sender: mpsc::UnboundedSender<Asked>,
    /// What this process asks the gateway, by order.
    under_way: Arc<Mutex<HashMap<Uuid, Asked>>>,
    under_way_max: usize,
}

/// An intent on its way to the gateway.
#[derive(Clone, Debug)]
struct Asked {
    intent: Intent,
    superseded: CancellationToken,
}

impl GatewayQueue {
    /// Hands in an intent. What is under way here already, or does not fit, is left to the table; what is under way
    /// for the same order, but for something that is not wanted any more, is given up.
    pub(crate) fn offer(&self, intent: Intent) {
        let order_id = intent.order_id;
        let mut under_way = self.under_way();
        if let Some(Asked { intent: known, superseded }) = under_way.get(&order_id) {
            // What was read from the table may come later than what was asked for since.
            if known.task == intent.task || known.sequence > intent.sequence {
                return;
            }
            superseded.cancel();
        } else if under_way.len() >= self.under_way_max {
            return;
        }
        let asked = Asked { intent, superseded: CancellationToken::new() };
        // The channel has no bound of its own; where nobody takes from it any more, the process ends.
        if self.sender.send(asked.clone()).is_ok() {
            under_way.insert(order_id, asked);
        }
    }

    fn done(&self, intent: &Intent) {
        let mut under_way = self.under_way();
        if under_way.get(&intent.order_id).is_some_and(|known| known.intent.task == intent.task) {
            under_way.remove(&intent.order_id);
        }
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Uuid, Asked>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tasks that ask and settle.
pub(crate) struct Executor(TaskTracker);

impl Executor {
    /// Waits until what is under way is settled, for a few seconds at most; the table keeps the rest.
    pub(crate) async fn finish(self) {
        self.0.close();
        if tokio::time::timeout(FINISH_WITHIN, self.0.wait()).await.is_err() {
            tracing::warn!("what the gateway was asked for is left to the next process");
        }
    }
}

/// What was asked, and what came of it.
type Answered = (Intent, Outcome);

/// Starts asking and settling.
///
/// # Errors
/// [`GatewayError`] where the gateway's address can't be used.
pub(crate) fn start(
    runtime: &Runtime,
    config: &GatewayConfig,
    metrics: WorkerMetrics,
) -> Result<(GatewayQueue, Executor), GatewayError> {
    let asker = Asker {
        client: GatewayClient::new(&config.gateway_url, config.call_timeout)?,
        circuit: Circuit::new(metrics.gateway_circuit_open.clone()),
        calls: Arc::new(Semaphore::new(config.calls_max)),
        clock: runtime.journal.clock.clone(),
        metrics,
    };
    let (sender, asked) = mpsc::unbounded_channel();
    let (answers, answered) = mpsc::channel(UNDER_WAY_MAX);
    let queue = GatewayQueue { sender, under_way: Arc::default(), under_way_max: UNDER_WAY_MAX };
    let tasks = TaskTracker::new();
    tasks.spawn(ask_all(runtime.shutdown.clone(), queue.clone(), asker, asked, answers));
    tasks.spawn(settle_all(runtime.clone(), queue.clone(), answered));
    tasks.spawn(take_over(runtime.clone(), queue.clone()));
    Ok((queue, Executor(tasks)))
}

/// Asks for everything that is handed in. A task each: one that waits for its next attempt holds up no other.
async fn ask_all(
    shutdown: CancellationToken,
    queue: GatewayQueue,
    asker: Asker,
    mut asked: mpsc::UnboundedReceiver<Asked>,
    answers: mpsc::Sender<Answered>,
) {
    let tasks = TaskTracker::new();
    while let Some(Some(Asked { intent, superseded })) = shutdown.run_until_cancelled(asked.recv()).await {
        let (asker, answers, queue, shutdown) =
            (asker.clone(), answers.clone(), queue.clone(), shutdown.clone());
        tasks.spawn(async move {
            let outcome = tokio::select! {
                outcome = asker.ask(&intent) => Some(outcome),
                () = superseded.cancelled() => None,
                () = shutdown.cancelled() => None,
            };
            match outcome {
                Some(outcome) => drop(answers.send((intent, outcome)).await),
                None => queue.done(&intent),
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// Writes outcomes as they come, many in one transaction.
async fn settle_all(runtime: Runtime, queue: GatewayQueue, mut answered: mpsc::Receiver<Answered>) {
    let mut batch = Vec::with_capacity(SETTLE_MAX);
    while answered.recv_many(&mut batch, SETTLE_MAX).await > 0 {
        let (began, settled) = (Instant::now(), batch.len());
        settle_batch(&runtime, &batch).await;
        batch.drain(..).for_each(|(intent, _)| queue.done(&intent));
        tokio::time::sleep(pause_after(settled, began.elapsed())).await;
    }
}

/// Settles a batch; if it is refused, one by one, so that one bad row doesn't hold up the others. What can't be
/// settled stays open in the table and comes back when its lease has run out.
async fn settle_batch(runtime: &Runtime, batch: &[Answered]) {
    let mut retry = Retry::forever(Duration::from_millis(20), Duration::from_secs(2));
    while let Err(error) = settle(&runtime.journal, batch).await {
        if error.next() != Next::Retry {
            return settle_one_by_one(runtime, batch).await;
        }
        tracing::warn!(%error, count = batch.len(), "outcomes could not be written; tried again");
        tokio::select! {
            () = runtime.shutdown.cancelled() => return,
            () = tokio::time::sleep(retry.next_delay()) => {}
        }
    }
}

async fn settle_one_by_one(runtime: &Runtime, batch: &[Answered]) {
    for answered in batch {
        if let Err(error) = settle(&runtime.journal, std::slice::from_ref(answered)).await {
            tracing::error!(order_id = %answered.0.order_id, %error, "an outcome could not be written");
        }
    }
}

async fn settle(journal: &Journal, batch: &[Answered]) -> Result<(), JournalError> {
    let mut keys = Keys::default();
    keys.extend(Payment::NOUN, batch.iter().map(|(intent, _)| intent.order_id));
    decide(journal, &keys, |state: &mut Payments| {
        let mut written = Vec::with_capacity(batch.len() * 2);
        for (intent, outcome) in batch {
            for (index, decided) in state.settle(intent.order_id, outcome).into_iter().enumerate() {
                let origin = Origin {
                    cause_id: Some(intent.cause_id),
                    actor: "gateway".to_owned(),
                    request: None,
                    trace: TraceContext::child_of(Some(&intent.traceparent)),
                };
                let event_id = derived_event_id("gateway", intent.cause_id, index);
                written.push(Written::new(event_id, decided, origin));
            }
        }
        Ok(Decision::of(written, ()))
    })
    .await
}

/// Hands in what its process has not brought to an end in time.
async fn take_over(runtime: Runtime, queue: GatewayQueue) {
    let mut ticks = tokio::time::interval(TAKE_OVER_EVERY);
    loop {
        tokio::select! {
            () = runtime.shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match payments::take_over(&runtime.journal.pool, runtime.journal.now(), TAKE_OVER_MAX).await {
            Ok(intents) => intents.into_iter().for_each(|intent| queue.offer(intent)),
            Err(error) => {
                tracing::warn!(%error, "what the gateway owes an answer to could not be looked for")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ordermill_domain::payments::GatewayTask;

    use super::*;

    fn intent(task: GatewayTask) -> Intent {
        Intent { order_id: Uuid::nil(), task, sequence: 1, cause_id: Uuid::nil(), traceparent: String::new() }
    }

    fn void(number: i32) -> Intent {
        intent(GatewayTask::Void { number, charge_id: Uuid::nil() })
    }

    fn queue(under_way_max: usize) -> (GatewayQueue, mpsc::UnboundedReceiver<Asked>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (GatewayQueue { sender, under_way: Arc::default(), under_way_max }, receiver)
    }

    #[tokio::test]
    async fn what_is_under_way_is_not_asked_for_twice() {
        let (queue, mut asked) = queue(5);
        queue.offer(void(1));
        queue.offer(void(1));
        assert!(asked.try_recv().is_ok());
        assert!(asked.try_recv().is_err());
        queue.done(&void(1));
        queue.offer(void(1));
        assert!(asked.try_recv().is_ok());
    }

    #[tokio::test]
    async fn what_is_wanted_now_supersedes_what_was_wanted_before() {
        let (queue, mut asked) = queue(5);
        queue.offer(void(1));
        queue.offer(void(2));
        let (first, second) = (asked.try_recv().unwrap(), asked.try_recv().unwrap());
        assert!(first.superseded.is_cancelled());
        assert!(!second.superseded.is_cancelled());
        // The end of the former is not the end of the latter.
        queue.done(&first.intent);
        queue.offer(void(2));
        assert!(asked.try_recv().is_err());
    }

    #[tokio::test]
    async fn what_was_wanted_before_does_not_supersede_what_is_wanted_now() {
        let (queue, mut asked) = queue(5);
        queue.offer(Intent { sequence: 2, ..void(2) });
        queue.offer(Intent { sequence: 1, ..void(1) });
        let newer = asked.try_recv().unwrap();
        assert!(asked.try_recv().is_err());
        assert!(!newer.superseded.is_cancelled());
        queue.offer(Intent { sequence: 3, ..void(3) });
        assert!(newer.superseded.is_cancelled());
    }

    #[tokio::test]
    async fn what_does_not_fit_can_be_offered_again() {
        let (queue, mut asked) = queue(1);
        queue.offer(void(1));
        queue.offer(Intent { order_id: Uuid::from_u128(1), ..void(1) });
        let first = asked.try_recv().unwrap();
        assert!(asked.try_recv().is_err());
        queue.done(&first.intent);
        queue.offer(Intent { order_id: Uuid::from_u128(1), ..void(1) });
        assert_eq!(asked.try_recv().unwrap().intent.order_id, Uuid::from_u128(1));
    }
}
