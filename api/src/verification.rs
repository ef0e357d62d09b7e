//! Verification on request: one run at a time, shared by all who ask meanwhile.
//!
//! A run reads the whole database, the gateway's ledger and Kafka, so it may take longer than a request. It belongs to no
//! request: it goes on when its client goes away, and what nobody has been told yet is told to whoever asks next.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ordermill_pipeline::audit::Report;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::problem::{Code, FieldError, Problem};

/// Begins to look at everything. It comes from whoever starts the front, since the front itself asks neither Kafka nor the
/// gateway.
pub type Verifier = Arc<dyn Fn() -> Run + Send + Sync>;

/// A look at everything, under way. Dropping it ends it.
pub type Run = Pin<Box<dyn Future<Output = Result<Report, NotVerified>> + Send>>;

/// Why nothing was verified. Whoever answers this has logged the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotVerified {
    /// `database`, `kafka` or `gateway` does not answer.
    Unavailable(&'static str),
    /// A bug or a broken set-up.
    Broken,
    /// It took too long.
    TimedOut,
}

/// For how long everything is waited for.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// How long a client waits before it is told to come again.
    wait: Duration,
    /// How long a run may take.
    run: Duration,
    /// How long a report is kept that nobody has been told.
    keep: Duration,
}

const LIMITS: Limits = Limits {
    wait: Duration::from_secs(crate::prefer::WAIT_MAX_S),
    run: Duration::from_secs(600),
    keep: Duration::from_secs(300),
};

type Ended = (Instant, Result<Arc<Report>, NotVerified>);
/// Nothing until the run has ended.
type End = watch::Receiver<Option<Ended>>;

/// The run of this process, if there is one, or what it found, if nobody has been told.
pub(crate) struct Verifications {
    verifier: Option<Verifier>,
    limits: Limits,
    latest: Mutex<Option<End>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Verifications {
    /// Runs end with `shutdown`.
    pub(crate) fn new(
        verifier: Option<Verifier>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Verifications {
        Verifications { verifier, limits: LIMITS, latest: Mutex::new(None), tasks, shutdown }
    }

    /// What the run that is under way finds, or one that begins now.
    ///
    /// # Errors
    /// `VERIFICATION_RUNNING` where it takes longer than a request should, `NOT_READY` where something does not answer.
    pub(crate) async fn report(&self) -> Result<Arc<Report>, Problem> {
        let mut end = self.join_or_begin()?;
        let Ok(ended) = tokio::time::timeout(self.limits.wait, end.wait_for(Option::is_some)).await else {
            let detail = "the verification takes longer than a request; ask again for what it finds";
            return Err(Problem::new(Code::VerificationRunning, detail));
        };
        // No end at all: the run was cut off by the stop, or panicked.
        let found = ended.ok().and_then(|ended| ended.clone()).map(|(_, found)| found);
        self.forget(&end);
        found.ok_or_else(Problem::overloaded)?.map_err(problem)
    }

    fn join_or_begin(&self) -> Result<End, Problem> {
        let verifier = self.verifier.as_ref().ok_or_else(|| {
            Problem::new(Code::NotReady, "this process can't verify; run `ordermill verify` instead")
        })?;
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = latest.as_ref().filter(|end| self.is_of_use(end)) {
            return Ok(end.clone());
        }
        let (sender, end) = watch::channel(None);
        let run = tokio::time::timeout(self.limits.run, verifier());
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            if let Some(found) = shutdown.run_until_cancelled(run).await {
                let found = found.unwrap_or(Err(NotVerified::TimedOut)).map(Arc::new);
                sender.send_replace(Some((Instant::now(), found)));
            }
        });
        *latest = Some(end.clone());
        Ok(end)
    }

    /// Whether it is under way, or has ended a short time ago.
    fn is_of_use(&self, end: &End) -> bool {
        match &*end.borrow() {
            Some((ended_at, _)) => ended_at.elapsed() < self.limits.keep,
            None => end.has_changed().is_ok(),
        }
    }

    /// It has been told: who asks from now on gets another.
    fn forget(&self, told: &End) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.as_ref().is_some_and(|end| end.same_channel(told)) {
            *latest = None;
        }
    }
}

fn problem(why: NotVerified) -> Problem {
    match why {
        NotVerified::Unavailable(part) => {
            let error =
                FieldError { field: part.into(), code: "NOT_ANSWERING", detail: "does not answer".into() };
            Problem::new(Code::NotReady, format!("nothing verified: no answer from {part}"))
                .with_errors(vec![error])
        }
        NotVerified::Broken => Problem::internal(),
        NotVerified::TimedOut => {
            Problem::new(Code::Overloaded, "the verification took too long; run `ordermill verify` instead")
        }
    }
}

#[cfg(test)]
#[path = "verification_tests.rs"]
mod tests;
