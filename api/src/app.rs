//! What the routes share.

use std::ops::Deref;
use std::sync::Arc;

use ordermill_domain::capability::Capability;
use ordermill_pipeline::follower;
use ordermill_pipeline::journal::{Journal, Keys};
use ordermill_pipeline::log::Origin;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::acceptance::Acceptance;
use crate::claiming::Claiming;
use crate::config::ApiConfig;
use crate::idempotency::RunningKeys;
use crate::identities::Identities;
use crate::metrics::ApiMetrics;
use crate::outcome::Outcome;
use crate::problem::Problem;
use crate::product_cache::ProductCache;
use crate::rate_limits::RateLimits;
use crate::readiness::Readiness;
use crate::refusals::Refusals;
use crate::verification::Verifications;
use crate::waiting::{DecidedClaim, DoneReplay, RestingOrder, Waiting};
use crate::watching::Watching;

/// Why the front can't start. The texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Anybody could sign a callback.
    #[error("the secret for the gateway's callbacks is empty; give the one that the gateway signs with")]
    NoCallbackSecret,
}

/// The front's state and its tasks in the background. Cloning shares them.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

/// What the routes share.
pub struct Shared {
    pub(crate) journal: Journal,
    pub(crate) config: ApiConfig,
    pub(crate) metrics: ApiMetrics,
    pub(crate) registry: Arc<Registry>,
    pub(crate) identities: Identities,
    pub(crate) refusals: Refusals,
    pub(crate) rate_limits: RateLimits,
    pub(crate) running_keys: RunningKeys,
    pub(crate) acceptance: Acceptance,
    pub(crate) claiming: Claiming,
    pub(crate) waiting: Arc<Waiting<RestingOrder>>,
    pub(crate) waiting_claims: Arc<Waiting<DecidedClaim>>,
    pub(crate) waiting_replays: Arc<Waiting<DoneReplay>>,
    pub(crate) watching: Watching,
    pub(crate) product_cache: ProductCache,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) verifications: Verifications,
    tasks: TaskTracker,
    /// No request will come any more.
    drained: CancellationToken,
}

impl Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Api {
    /// Starts the tasks in the background; must be called in a runtime. `registry` is what `/metrics` shows, with
    /// `metrics` among it. Waits and streams of clients end with `shutdown`.
    ///
    /// # Errors
    /// [`ApiError`] where the configuration can't be served.
    pub fn start(
        journal: Journal,
        config: ApiConfig,
        metrics: ApiMetrics,
        registry: Arc<Registry>,
        shutdown: &CancellationToken,
    ) -> Result<Api, ApiError> {
        if config.callback_secret.is_empty() {
            return Err(ApiError::NoCallbackSecret);
        }
        let (tasks, drained) = (TaskTracker::new(), CancellationToken::new());
        let watching = Watching::new(&config, metrics.open_streams.clone(), shutdown.clone());
        tasks.spawn(watching.clone().run(journal.pool.clone()));
        let product_cache = ProductCache::new(metrics.product_cache_reads.clone());
        tasks.spawn(follower::run(
            journal.pool.clone(),
            config.kafka.clone(),
            journal.partitions,
            Arc::new(product_cache.clone()),
            shutdown.clone(),
        ));
        let readiness = Arc::new(Readiness::new(&journal, &config, &metrics));
        tasks.spawn(readiness.clone().watch(shutdown.clone()));
        tasks.spawn(readiness.clone().follow_the_oldest(shutdown.clone()));
        let identities = Identities::start(&journal, &tasks, &drained);
        tasks.spawn(identities.clone().keep(shutdown.clone()));
        let rounds = config.rounds.clone().unwrap_or_else(|| journal.clone());
        let shared = Shared {
            identities,
            refusals: Refusals::new(metrics.authentication_failures.clone()),
            rate_limits: RateLimits::new(&config.rate_limits, metrics.requests_limited.clone()),
            running_keys: RunningKeys::default(),
            acceptance: Acceptance::start(&rounds, &config, &metrics, &tasks, &drained),
            claiming: Claiming::start(&rounds, &config, &tasks, &drained),
            waiting: Waiting::start(&journal, &metrics, &tasks, shutdown),
            waiting_claims: Waiting::start(&journal, &metrics, &tasks, shutdown),
            waiting_replays: Waiting::start(&journal, &metrics, &tasks, shutdown),
            watching,
            product_cache,
            readiness,
            verifications: Verifications::new(config.verifier.clone(), tasks.clone(), shutdown.clone()),
            journal,
            config,
            metrics,
            registry,
            tasks,
            drained,
        };
        Ok(Api(Arc::new(shared)))
    }

    /// Runs work that goes on when the client goes away, to its end or its roll-back.
    ///
    /// # Errors
    /// Those of `work`, and `INTERNAL` where it panics.
    pub(crate) async fn uninterrupted<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let task = self.tasks.spawn(work.in_current_span());
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the work of a request ended without a result");
            Err(Problem::internal())
        })
    }

    /// Has a capability decide about what `keys` say, for a request from `origin`; writes what it decides, or nothing, also
    /// where the client goes away. `decide` may be called more than once.
    ///
    /// # Errors
    /// Those of `decide`, or where the database fails.
    pub(crate) async fn decide<C: Capability, D: Into<Outcome> + Send + 'static, T: Send + 'static>(
        &self,
        keys: Keys,
        origin: Origin,
        mut decide: impl FnMut(&mut C) -> Result<(D, T), Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let journal = self.journal.clone();
        self.uninterrupted(async move {
            ordermill_store::decide(&journal, &keys, |state| {
                let (decided, answer) = decide(state)?;
                let outcome: Outcome = decided.into();
                Ok(outcome.decision(&origin, answer))
            })
            .await
        })
        .await
    }

    /// Lets the work in the background come to its end. No request may come any more.
    pub(crate) async fn close(&self) {
        self.drained.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.config.shutdown_grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "cutting off work that has not finished");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::problem::Code;
    use crate::testing::api_without_database;

    #[tokio::test]
    async fn work_goes_on_when_its_client_goes_away() {
        let api = api_without_database();
        let (go_on, gate) = oneshot::channel::<()>();
        let (done, ended) = oneshot::channel();
        let mut client = Box::pin(api.uninterrupted(async move {
            gate.await.unwrap();
            done.send(()).unwrap();
            Ok(())
        }));
        // Begun, and waiting at the gate.
        assert!(poll_once(client.as_mut()).await.is_none());
        drop(client);
        go_on.send(()).unwrap();
        ended.await.unwrap();
    }

    async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            let polled = std::pin::Pin::new(&mut future).poll(context);
            std::task::Poll::Ready(match polled {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn work_that_panics_is_a_bug_and_no_more() {
        let api = api_without_database();
        let result: Result<(), Problem> = api.uninterrupted(async { panic!("on purpose") }).await;
        assert_eq!(result.unwrap_err().code(), Code::Internal);
    }
}
