//! What the gateway is asked for: outside of any transaction and partition, settled in batches.
//!
//! What is to be asked stands in the table `payments` before the gateway is asked. This process asks, alone for as long as it renews its
//! lease, and writes the answer; if it dies, another takes over when the lease has run out. Ids are derived, so asking twice
//! charges, voids and pays back once.

mod asking;
mod circuit;
mod client;
mod http;
mod under_way;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ordermill_domain::aggregate::Aggregate as _;
use ordermill_domain::payments::{Outcome, Payment, Payments};
use ordermill_pipeline::consumer::{Runtime, derived_event_id};
use ordermill_pipeline::database::Next;
use ordermill_pipeline::journal::{Journal, JournalError, Keys};
use ordermill_pipeline::log::Origin;
use ordermill_pipeline::pacing::pause_after;
use ordermill_pipeline::pulse::Pulse;
use ordermill_pipeline::readiness::worker_role;
use ordermill_pipeline::retry::Retry;
use ordermill_pipeline::supervised::{self, without_panic};
use ordermill_pipeline::trace::TraceContext;
use ordermill_store::payments::{self, Intent, LEASE};
use ordermill_store::{Decision, Written, decide};
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::Worker;
use crate::metrics::WorkerMetrics;
use asking::Asker;
use circuit::Circuit;
use client::GatewayClient;
use under_way::{Place, UnderWay};

pub use http::{CallError, GatewayError, GatewayHttp};

/// How many intents may be under way at once; what does not fit is taken from the table later.
const UNDER_WAY_MAX: usize = 10_000;
/// How many outcomes one transaction settles at most.
const SETTLE_MAX: usize = 500;
/// How often leases are renewed.
const RENEW_EVERY: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// How often the table is looked at for what its process has not brought to an end.
const TAKE_OVER_EVERY: Duration = Duration::from_secs(1);
/// How many of them are taken at once.
const TAKE_OVER_MAX: i64 = 500;
/// What does not work where answers are not written.
const UNWRITTEN: &str = "what the gateway has answered can't be written";
/// How long calls under way may take to finish at shutdown.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// How the gateway is reached.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The gateway's address.
    pub gateway_url: String,
    /// The CAs by which it is believed, as PEM; where there is one the address begins with https.
    pub ca_file: Option<PathBuf>,
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
            ca_file: None,
            call_timeout: Duration::from_secs(3),
            calls_max: 256,
        }
    }

    /// The same, believed by the CAs in that file.
    #[must_use]
    pub fn believed_by(self, ca_file: Option<PathBuf>) -> GatewayConfig {
        GatewayConfig { ca_file, ..self }
    }
}

/// Where intents are handed in.
#[derive(Clone, Debug)]
pub(crate) struct GatewayQueue {
    sender: mpsc::UnboundedSender<Place>,
    under_way: UnderWay,
}

impl GatewayQueue {
    /// Hands in an intent. What is under way here already, or does not fit, is left to the table.
    pub(crate) fn offer(&self, intent: Intent) {
        if let Some(place) = self.under_way.take(intent) {
            // The channel has no bound of its own; where nobody takes from it any more, the process ends.
            let _ = self.sender.send(place);
        }
    }
}

/// The tasks that ask and settle.
pub(crate) struct Executor {
    tasks: TaskTracker,
    pool: PgPool,
    holder: Uuid,
}

impl Executor {
    /// Waits until what is under way is settled, for a few seconds at most; the table keeps the rest.
    pub(crate) async fn finish(self) {
        self.tasks.close();
        if tokio::time::timeout(FINISH_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("what the gateway was asked for is left to the next process");
        } else if let Err(error) = payments::release(&self.pool, self.holder).await {
            tracing::warn!(%error, "the next process has to wait until the leases have run out");
        }
    }
}

/// What was asked, still at its place, and what came of it.
type Answered = (Place, Outcome);

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
        client: GatewayClient::new(&config.gateway_url, config.ca_file.as_deref(), config.call_timeout)?,
        circuit: Circuit::new(metrics.gateway_circuit_open.clone()),
        calls: Arc::new(Semaphore::new(config.calls_max)),
        clock: runtime.journal.clock.clone(),
        metrics,
    };
    let ask = move |intent: Intent| {
        let asker = asker.clone();
        async move { asker.ask(&intent).await }
    };
    let (sender, asked) = mpsc::unbounded_channel();
    let (answers, answered) = mpsc::channel(UNDER_WAY_MAX);
    let queue = GatewayQueue { sender, under_way: UnderWay::new(UNDER_WAY_MAX) };
    let tasks = TaskTracker::new();
    tasks.spawn(ask_all(runtime.shutdown.clone(), asked, answers, ask));
    // They work for the worker, and are told of as it is.
    let role = worker_role(Worker::Payments.name());
    let pulse = || runtime.signs.pulse(&role);
    let settling = pulse();
    let settle = {
        let (runtime, pulse) = (runtime.clone(), settling.clone());
        move |batch| settle_batch(runtime.clone(), batch, pulse.clone())
    };
    tasks.spawn(settle_all(answered, settling, settle));
    let holder = Uuid::new_v4();
    let renew = {
        let (runtime, under_way, pulse) = (runtime.clone(), queue.under_way.clone(), pulse());
        move || tokio::spawn(renew_leases(runtime.clone(), under_way.clone(), holder, pulse.clone()))
    };
    let take_over = {
        let (runtime, queue, pulse) = (runtime.clone(), queue.clone(), pulse());
        move || tokio::spawn(take_over(runtime.clone(), queue.clone(), holder, pulse.clone()))
    };
    let shutdown = runtime.shutdown.clone();
    tasks.spawn(async move { supervised::run("the renewal of leases", &shutdown, renew).await });
    let shutdown = runtime.shutdown.clone();
    tasks.spawn(async move { supervised::run("taking over of leases", &shutdown, take_over).await });
    Ok((queue, Executor { tasks, pool: runtime.journal.pool.clone(), holder }))
}

/// Asks for everything that is handed in. A task each: one that waits for its next attempt holds up no other, and one that panics gives
/// its place back.
async fn ask_all<A: Future<Output = Outcome> + Send + 'static>(
    shutdown: CancellationToken,
    mut asked: mpsc::UnboundedReceiver<Place>,
    answers: mpsc::Sender<Answered>,
    ask: impl Fn(Intent) -> A,
) {
    let tasks = TaskTracker::new();
    while let Some(Some(place)) = shutdown.run_until_cancelled(asked.recv()).await {
        let (asking, answers, shutdown) = (ask(place.intent.clone()), answers.clone(), shutdown.clone());
        tasks.spawn(async move {
            let outcome = tokio::select! {
                outcome = asking => outcome,
                () = place.given_up.cancelled() => return,
                () = shutdown.cancelled() => return,
            };
            let _ = answers.send((place, outcome)).await;
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// Writes outcomes as they come, many in one transaction.
async fn settle_all<S: Future<Output = ()> + Send + 'static>(
    mut answered: mpsc::Receiver<Answered>,
    pulse: Pulse,
    settle: impl Fn(Vec<Answered>) -> S,
) {
    let mut batch = Vec::with_capacity(SETTLE_MAX);
    while answered.recv_many(&mut batch, SETTLE_MAX).await > 0 {
        let (began, settled) = (Instant::now(), batch.len());
        let batch = std::mem::take(&mut batch);
        // In a task of its own: where it panics, the places are given back, and what comes later is settled all the same.
        if tokio::spawn(settle(batch)).await.is_err() {
            pulse.fails(UNWRITTEN);
        }
        tokio::time::sleep(pause_after(settled, began.elapsed())).await;
    }
}

/// Settles a batch; if it is refused, one by one, so that one bad row doesn't hold up the others. What can't be
/// settled stays open in the table and comes back when its lease has run out.
async fn settle_batch(runtime: Runtime, batch: Vec<Answered>, pulse: Pulse) {
    let mut retry = Retry::forever(Duration::from_millis(20), Duration::from_secs(2));
    while let Err(error) = settle(&runtime.journal, &batch).await {
        if error.next() != Next::Retry {
            if settle_one_by_one(&runtime, &batch).await {
                break;
            }
            pulse.fails(UNWRITTEN);
            return;
        }
        tracing::warn!(%error, count = batch.len(), "outcomes could not be written; tried again");
        pulse.fails(UNWRITTEN);
        tokio::select! {
            () = runtime.shutdown.cancelled() => return,
            () = tokio::time::sleep(retry.next_delay()) => {}
        }
    }
    pulse.works();
}

/// Answers whether any could be written.
async fn settle_one_by_one(runtime: &Runtime, batch: &[Answered]) -> bool {
    let mut is_any_written = false;
    for answered in batch {
        match settle(&runtime.journal, std::slice::from_ref(answered)).await {
            Ok(()) => is_any_written = true,
            Err(error) => {
                let order_id = answered.0.intent.order_id;
                tracing::error!(%order_id, %error, "an outcome could not be written");
            }
        }
    }
    is_any_written
}

async fn settle(journal: &Journal, batch: &[Answered]) -> Result<(), JournalError> {
    let mut keys = Keys::default();
    keys.extend(Payment::NOUN, batch.iter().map(|(place, _)| place.intent.order_id));
    decide(journal, &keys, |state: &mut Payments| {
        without_panic(|| {
            let mut written = Vec::with_capacity(batch.len() * 2);
            for (Place { intent, .. }, outcome) in batch {
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
    })
    .await
}

/// Leases anew what is under way here, so that nobody else asks for it, however long it takes. What is somebody else's by now, or wanted by
/// nobody, is given up, and so is what could not be leased anew in time; an outcome that is being written is written all the same, since it
/// changes nothing a second time.
async fn renew_leases(runtime: Runtime, under_way: UnderWay, holder: Uuid, pulse: Pulse) {
    let mut ticks = tokio::time::interval(RENEW_EVERY);
    while runtime.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let began = Instant::now();
        // What is younger can wait for the next time, and is mostly answered by then.
        let due = under_way.leased_for(RENEW_EVERY / 2, began);
        if due.is_empty() {
            pulse.works();
            continue;
        }
        let renewed = payments::renew(&runtime.journal.pool, holder, runtime.journal.now(), &due);
        match tokio::time::timeout(RENEW_EVERY, renewed).await {
            Ok(Ok(kept)) => {
                under_way.renewed(&due, &kept, began);
                pulse.works();
            }
            failed => {
                pulse.fails("what the gateway is asked for can't be leased anew");
                tracing::warn!(
                    ?failed,
                    "what the gateway is asked for could not be leased anew; tried again"
                );
                under_way.give_up(LEASE, Instant::now());
            }
        }
    }
}

/// Hands in what nobody alone asks for any more.
async fn take_over(runtime: Runtime, queue: GatewayQueue, holder: Uuid, pulse: Pulse) {
    let (mut ticks, pool) = (tokio::time::interval(TAKE_OVER_EVERY), &runtime.journal.pool);
    while runtime.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        // What there is no place for is left to others.
        let at_most = queue.under_way.free().min(TAKE_OVER_MAX);
        if at_most == 0 {
            pulse.works();
            continue;
        }
        match payments::take_over(pool, holder, runtime.journal.now(), at_most).await {
            Ok(intents) => {
                intents.into_iter().for_each(|intent| queue.offer(intent));
                pulse.works();
            }
            Err(error) => {
                pulse.fails("what the gateway owes an answer to can't be looked for");
                tracing::warn!(%error, "what the gateway owes an answer to could not be looked for");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use ordermill_domain::payments::GatewayResult;

    use super::under_way::tests::void;
    use super::*;

    /// Longer than a busy machine takes.
    const IN_TIME: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn answers_whose_writing_panics_are_said_not_to_be_written_and_later_ones_are_written() {
        let (answers, answered) = mpsc::channel(1);
        let (sender, mut asked) = mpsc::unbounded_channel();
        let queue = GatewayQueue { sender, under_way: UnderWay::new(1) };
        let pulse = Pulse::default();
        let settle = {
            let (pulse, has_panicked) = (pulse.clone(), Arc::new(AtomicBool::new(false)));
            move |_batch: Vec<Answered>| {
                let (pulse, has_panicked) = (pulse.clone(), has_panicked.clone());
                async move {
                    assert!(has_panicked.swap(true, Ordering::SeqCst), "a bug");
                    pulse.works();
                }
            }
        };
        let settling = tokio::spawn(settle_all(answered, pulse.clone(), settle));
        for failure in [Some(UNWRITTEN), None] {
            let answer = async {
                queue.offer(void(1));
                let outcome = Outcome { result: GatewayResult::Voided(1), attempts: Vec::new() };
                answers.send((asked.recv().await.unwrap(), outcome)).await.unwrap();
                // There is a place again once it is settled, and shortly after it is told how.
                while queue.under_way.free() == 0 || pulse.failure() != failure {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(IN_TIME, answer).await.unwrap();
        }
        drop(answers);
        settling.await.unwrap();
    }

    #[tokio::test]
    async fn what_panics_gives_its_place_back_and_is_asked_again() {
        let (sender, asked) = mpsc::unbounded_channel();
        let (answers, mut answered) = mpsc::channel(1);
        let queue = GatewayQueue { sender, under_way: UnderWay::new(1) };
        let has_panicked = Arc::new(AtomicBool::new(false));
        let ask = move |_intent: Intent| {
            let has_panicked = has_panicked.clone();
            async move {
                assert!(has_panicked.swap(true, Ordering::SeqCst), "a bug");
                Outcome { result: GatewayResult::Voided(1), attempts: Vec::new() }
            }
        };
        let shutdown = CancellationToken::new();
        let asking = tokio::spawn(ask_all(shutdown.clone(), asked, answers, ask));
        queue.offer(void(1));
        // As who takes over does: there is a place only once the first one is given back.
        let again = async {
            loop {
                queue.offer(void(1));
                match answered.try_recv() {
                    Ok(answer) => return answer,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let (place, outcome) = tokio::time::timeout(IN_TIME, again).await.unwrap();
        assert_eq!((&place.intent, &outcome.result), (&void(1), &GatewayResult::Voided(1)));
        shutdown.cancel();
        asking.await.unwrap();
    }
}
