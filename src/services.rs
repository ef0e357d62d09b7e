//! The parts that run in a process: API, relay, workers; all in one or each alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::tz::TimeZone;
use ordermill_api::{ApiConfig, RateLimitConfig};
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::consumer::{ConsumerConfig, FloodLimit, Runtime};
use ordermill_pipeline::heartbeat::Signs;
use ordermill_pipeline::journal::Journal;
use ordermill_pipeline::kafka::{KafkaConfig, admission};
use ordermill_pipeline::metrics::PipelineMetrics;
use ordermill_pipeline::readiness::{Expected, RELAY, worker_role};
use ordermill_pipeline::relay::{self, Beside, RelayConfig, RelayError};
use ordermill_pipeline::topics;
use ordermill_pipeline::wake::Wake;
use ordermill_schemas::CATALOGUE;
use ordermill_store::database_roles::{self, DatabaseRole, Lacking};
use ordermill_store::idempotency;
use ordermill_workers::{GatewayConfig, Worker, WorkerMetrics};
use prometheus_client::registry::Registry;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::connections::Connections;
use crate::database::explain;
use crate::metrics_endpoint;
use crate::open_files;
use crate::pools::{Parts, Pools};
use crate::shutdown::shutdown_on_signal;
use crate::verify;

/// How long a relay that says nothing stays leader.
const RELAY_LEASE: Duration = Duration::from_secs(3);
/// How often the leading relay looks whether Kafka still holds what was published last.
const RELAY_LOOKS_EVERY: Duration = Duration::from_secs(30);
/// How long Kafka may acknowledge nothing before the relay takes a new client; longer than a broker takes to restart.
const RELAY_STALLED_AFTER: Duration = Duration::from_secs(60);
/// How long Kafka waits for a silent group member; the broker takes nothing below 6 s.
const SESSION_TIMEOUT_MS: u32 = 6_000;
/// How many records a batch has at most.
const BATCH_RECORDS_MAX: usize = 500;
/// How long first answers are kept; the API promises a day.
const ANSWERS_KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(48);
/// How often older ones are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// Everything that a process runs stands on this.
pub struct Services {
    /// The database as workers have it, the clock and the rest.
    pub runtime: Runtime,
    /// When a worker stops because too much of what it reads can't be applied.
    pub flood_limit: FloodLimit,
    /// How often anybody may ask the API.
    pub rate_limits: RateLimitConfig,
    /// Kafka as the relay reaches it, and as workers do: like everybody else here, unless it is said otherwise.
    pub relay_kafka: KafkaConfig,
    /// See [`Services::relay_kafka`].
    pub worker_kafka: KafkaConfig,
    connections: Connections,
    relay_pool: PgPool,
    /// The journal over the API's connections.
    api_journal: Journal,
    /// The journal over those by which it takes orders and claims.
    rounds_journal: Journal,
    instance: String,
    registry: Arc<Registry>,
    worker_metrics: WorkerMetrics,
    api_metrics: ordermill_api::ApiMetrics,
}

impl Services {
    /// Connects to a database that has been migrated, for API, relay and workers in one process.
    ///
    /// # Errors
    /// Where the database does not answer, was not migrated, or has keys of another wire secret, or Kafka does not let us in.
    pub async fn connect(connections: &Connections, shutdown: CancellationToken) -> Result<Services> {
        Services::of(Parts::All, connections, shutdown).await
    }

    async fn of(parts: Parts, connections: &Connections, shutdown: CancellationToken) -> Result<Services> {
        let Pools { workers: pool, relay: relay_pool, reading, deciding, rounds } =
            parts.connect(&connections.database_url).await?;
        let partitions = relay::partitions(&pool).await.map_err(not_set_up)?;
        admission::admitted(&connections.kafka).await?;
        let keyring = &connections.kafka.keyring;
        keyring.open(&pool).await?;
        tokio::spawn(keyring.clone().keep_fresh(pool.clone(), shutdown.clone()));
        let mut registry = Registry::with_prefix("ordermill");
        let metrics = PipelineMetrics::register(&mut registry);
        let worker_metrics = WorkerMetrics::register(&mut registry);
        let api_metrics = ordermill_api::ApiMetrics::register(&mut registry);
        let journal = Journal::new(pool, Clock::system(), Wake::default(), partitions);
        let words = words();
        journal.learn(words.iter().map(String::as_str)).await.map_err(explain)?;
        let api_journal = journal.over(reading, &deciding);
        let rounds_journal = journal.over(rounds.clone(), &rounds);
        let instance = instance();
        let signs = Signs::start(&journal.pool, &instance, &shutdown);
        let runtime = Runtime { journal, metrics, signs, shutdown };
        Ok(Services {
            runtime,
            flood_limit: FloodLimit::default(),
            rate_limits: RateLimitConfig::default(),
            relay_kafka: connections.kafka.clone(),
            worker_kafka: connections.kafka.clone(),
            connections: connections.clone(),
            relay_pool,
            api_journal,
            rounds_journal,
            instance,
            registry: Arc::new(registry),
            worker_metrics,
            api_metrics,
        })
    }

    /// Has everything go by that clock.
    pub fn go_by(&mut self, clock: &Clock) {
        for journal in [&mut self.runtime.journal, &mut self.api_journal, &mut self.rounds_journal] {
            journal.clock = clock.clone();
        }
    }

    /// Closes the connections to the database, at once for whoever waits for one; done once all have come back.
    pub(crate) fn close(&self) -> impl Future<Output = ()> {
        let (workers, api) = (self.runtime.journal.close(), self.api_journal.close());
        let (rounds, relay) = (self.rounds_journal.close(), self.relay_pool.close());
        async move {
            workers.await;
            api.await;
            rounds.await;
            relay.await;
        }
    }

    /// Looks whether the user of the database may do what these parts must, where it has roles that say so.
    ///
    /// # Errors
    /// Where the user may not. It would show later, in the middle of the work.
    pub(crate) async fn may_run(&self, parts: impl IntoIterator<Item = DatabaseRole>) -> Result<()> {
        for role in parts {
            let lacking = database_roles::lacking(&self.runtime.journal.pool, role).await.map_err(explain)?;
            if let Some(Lacking { user, privilege }) = lacking {
                bail!(
                    "the database user {user} lacks {privilege}, which {role} has: give this process a user who is a member of \
                     {role}, or the owner of the tables (docs/OPERATIONS.md, \"Database roles\")"
                );
            }
        }
        Ok(())
    }

    /// Runs the relay until shutdown, with that beside it in this process.
    pub async fn run_relay(&self, beside: Beside) {
        let config = RelayConfig {
            kafka: self.relay_kafka.clone(),
            topics: topics::names(&ordermill_workers::groups()),
            instance: self.instance.clone(),
            lease: RELAY_LEASE,
            look_every: RELAY_LOOKS_EVERY,
            beside,
            stalled_after: RELAY_STALLED_AFTER,
        };
        let Runtime { journal, metrics, signs, shutdown } = self.runtime.clone();
        relay::run(self.relay_pool.clone(), config, journal.wake(), metrics, signs, shutdown).await;
    }

    /// Runs workers until shutdown.
    ///
    /// # Errors
    /// Where the gateway's address can't be used.
    pub async fn run_workers(&self, workers: &[Worker], gateway: &GatewayConfig) -> Result<()> {
        let runs = workers.iter().map(|worker| {
            let config = ConsumerConfig {
                kafka: self.worker_kafka.clone(),
                batch_records_max: BATCH_RECORDS_MAX,
                session_timeout_ms: SESSION_TIMEOUT_MS,
                flood_limit: self.flood_limit,
            };
            let (worker, runtime, gateway) = (*worker, self.runtime.clone(), gateway.clone());
            let metrics = self.worker_metrics.clone();
            tokio::spawn(
                async move { ordermill_workers::run(worker, runtime, config, &gateway, metrics).await },
            )
        });
        for run in runs.collect::<Vec<_>>() {
            run.await.context("a worker panicked")??;
        }
        Ok(())
    }

    /// Serves the API until shutdown. Rankings and statistics go by the days of `time_zone`.
    ///
    /// # Errors
    /// Where it can't be served.
    pub async fn run_api(
        &self,
        listener: TcpListener,
        callback_secret: Option<&str>,
        time_zone: TimeZone,
    ) -> Result<()> {
        let (journal, shutdown) = (self.api_journal.clone(), self.runtime.shutdown.clone());
        let forget = tokio::spawn(forget_answers(journal.clone(), shutdown.clone()));
        let callback_secret = callback_secret.unwrap_or_default();
        let mut config = ApiConfig::new(self.connections.kafka.clone(), callback_secret, time_zone);
        config.connections_max = open_files::make_room_for(config.connections_max);
        config.rounds = Some(self.rounds_journal.clone());
        config.pipeline = expected();
        let order_groups = [Worker::Orders, Worker::Stock, Worker::Payments];
        config.order_groups = order_groups.map(|worker| worker.name().to_owned()).to_vec();
        config.rate_limits = self.rate_limits.clone();
        config.verifier = Some(verify::verifier(self.connections.clone()));
        ordermill_api::serve(
            listener,
            journal,
            config,
            self.api_metrics.clone(),
            Arc::clone(&self.registry),
            shutdown,
        )
        .await?;
        let _ = forget.await;
        Ok(())
    }
}

/// Services of those parts that end when this process is told to; `metrics_listen` shows their figures.
///
/// # Errors
/// Where the address is in use, the database does not answer or was not migrated.
pub(crate) async fn connect(
    parts: Parts,
    connections: &Connections,
    metrics_listen: Option<SocketAddr>,
) -> Result<Services> {
    let shutdown = shutdown_on_signal()?;
    let services = Services::of(parts, connections, shutdown).await?;
    if let Some(address) = metrics_listen {
        let (registry, shutdown) = (Arc::clone(&services.registry), services.runtime.shutdown.clone());
        tokio::spawn(metrics_endpoint::serve(listen(address).await?, registry, shutdown));
    }
    Ok(services)
}

/// Listens on `address`.
///
/// # Errors
/// Where the port is in use or not allowed, in words that say what to do.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("can't listen on {address}: stop the program that does, or choose another port")
    })
}

/// Why it is not known how many partitions there are, in words that say what to do.
fn not_set_up(error: RelayError) -> anyhow::Error {
    match error {
        RelayError::Database(error) => explain(error),
        error => anyhow::Error::new(error),
    }
}

/// The name of this process among its like.
fn instance() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("{}:{}:{}", host.trim(), std::process::id(), uuid::Uuid::new_v4().simple())
}

/// The time zone of that name, like Asia/Seoul.
///
/// # Errors
/// Where there is none.
pub fn time_zone(name: &str) -> Result<TimeZone> {
    // The zone of a machine that does not know its own has a name, too, but no days that mean anything.
    let zone = TimeZone::get(name).ok().filter(|zone| !zone.is_unknown());
    zone.with_context(|| {
        format!("there is no time zone {name:?}; give one of the tz database, like Asia/Seoul")
    })
}

/// The words that the log will have: topics, types of events, actors. Administrators are not among them: each is a word once it acts.
fn words() -> Vec<String> {
    let others = ["user", "gateway", "dead_letter.recorded"].into_iter();
    let words = others.chain(CATALOGUE.iter().map(|known| known.name)).map(str::to_owned);
    words.chain(topics::names(&ordermill_workers::groups())).chain(worker_roles()).collect()
}

/// What must be at work for the pipeline to be ready.
fn expected() -> Expected {
    let groups = ordermill_workers::groups().into_iter().map(|(group, topics)| {
        let topics = topics.iter().map(|topic| topic.name().to_owned());
        (group.to_owned(), topics.collect())
    });
    let roles = std::iter::once(RELAY.to_owned()).chain(worker_roles());
    Expected { roles: roles.collect(), groups: groups.collect() }
}

/// The workers as actors, and as roles.
fn worker_roles() -> impl Iterator<Item = String> {
    Worker::ALL.iter().map(|worker| worker_role(worker.name()))
}

/// Forgets first answers that nobody may ask for any more.
async fn forget_answers(journal: Journal, shutdown: CancellationToken) {
    const AT_ONCE: i64 = 10_000;
    let mut ticks = tokio::time::interval(FORGET_EVERY);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let before = journal.now().saturating_sub(ANSWERS_KEPT).unwrap_or(jiff::Timestamp::MIN);
        while !shutdown.is_cancelled() {
            match idempotency::forget(&journal.pool, before, AT_ONCE).await {
                Ok(forgotten) if forgotten == AT_ONCE as u64 => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "old answers could not be forgotten");
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_is_one_of_the_tz_database() {
        for known in ["Asia/Seoul", "America/New_York", "Asia/Kathmandu", "UTC"] {
            assert!(time_zone(known).is_ok(), "{known}");
        }
        for unknown in ["", "Mars/Olympus", "Etc/Unknown", "KST-9", "../../etc/passwd", "Asia"] {
            let error = time_zone(unknown).unwrap_err().to_string();
            assert!(error.contains("there is no time zone"), "{unknown}: {error}");
        }
    }
}
