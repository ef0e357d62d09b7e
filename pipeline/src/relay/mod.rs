//! The relay: brings the log to Kafka, in order, without a hole.
//!
//! One instance leads, the others stand by. The leader follows the log's numbers: what follows on what it has taken is final
//! (`core/numbers.rs`). What this process commits it is handed; what others commit it reads. It has records sent as
//! they come, and moves its cursor behind the acknowledgements. Whoever takes over begins at the cursor and sends the
//! same records under the same labels; consumers skip what they have seen.
//!
//! What is to be done is decided by `core`, which does no I/O; `lead.rs` carries it out.

mod adopt;
mod canaries;
mod core;
mod cursor;
mod departures;
mod ends;
mod lead;
mod leadership;
mod places;
mod published;
mod publisher;
mod repeat;
mod rewind;
mod sender;
mod signed;
mod status;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::authenticity::KeyError;
use crate::database::Told;
use crate::heartbeat::Signs;
use crate::kafka::KafkaConfig;
use crate::metrics::PipelineMetrics;
use crate::pulse::Pulse;
use crate::readiness::RELAY;
use crate::retry::Retry;
use crate::supervised;
use crate::topics::TopicsError;
use crate::wake::Wake;
use crate::words::Words;

pub use adopt::{AdoptError, Adoption, Reason};
pub(crate) use cursor::{Cursor, log_end};
pub use cursor::{CursorError, install, partitions};
pub(crate) use published::Published;
pub use repeat::request_repeat;
pub use rewind::{Rewind, RewindError, RewindPlan, RewindProgress};
pub use status::{OpenTransaction, Status, status};

use canaries::Refusals;
use leadership::Leadership;

/// What a relay needs.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Where Kafka is.
    pub kafka: KafkaConfig,
    /// Every topic that there is, without prefix; `topics::names` tells them.
    pub topics: Vec<String>,
    /// This instance's name, unique among relays.
    pub instance: String,
    /// How long a leader that says nothing stays leader.
    pub lease: Duration,
    /// How often the leader looks whether Kafka still holds what was published last.
    pub look_every: Duration,
    /// What runs beside the relay.
    pub beside: Beside,
    /// How long Kafka may acknowledge nothing of what is being published before the leader begins anew with another
    /// client.
    pub stalled_after: Duration,
}

/// What runs in the relay's process beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// API and workers. What they commit is told to the relay, and the workers do not wait for Kafka, so records may wait for
    /// others, to be sent with them.
    ApiAndWorkers,
    /// Nothing. Whoever commits and whoever waits for records does so elsewhere.
    Nothing,
}

/// Why a relay stopped leading.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The database failed.
    #[error("database: {}", Told(.0))]
    Database(#[from] sqlx::Error),
    /// The cursor is not ours any more, or not of this database.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// Kafka failed.
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// Kafka acknowledges nothing.
    #[error("Kafka has acknowledged nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The topics are not as they should be.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// Records can't be signed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The process ends; what Kafka had not acknowledged is published again by the next leader.
    #[error("the process ends")]
    ShutDown,
    /// What is asked to be published again makes no sense.
    #[error(transparent)]
    Rewind(#[from] RewindError),
    /// Kafka holds records that the log does not have.
    #[error(
        "Kafka's topic {topic} is ahead of the log: it holds {found}, and the log, which ends at {end}, does not \
         have that event. The database was restored from an older copy, and nothing is published from it: go back to \
         the newest database, or, where that one is lost for good, stop all relays and workers and run \
         `ordermill relay adopt`"
    )]
    KafkaAhead {
        /// The topic, without prefix.
        topic: String,
        /// The label met in Kafka.
        found: crate::label::Label,
        /// The log's last position.
        end: i64,
    },
}

impl RelayError {
    /// What keeps a relay from leading, without anything that the database or Kafka says.
    fn in_short(&self) -> &'static str {
        match self {
            RelayError::Database(_) => "the database does not answer as it should",
            RelayError::Cursor(CursorError::Adopting) => {
                "an adoption was begun and not finished: run `ordermill relay adopt` again, as before"
            }
            RelayError::Cursor(CursorError::OtherDatabase { .. }) => "the database is a copy of another one",
            RelayError::Cursor(CursorError::Lost) => "another relay has taken over",
            RelayError::Cursor(_) => "the log is not set up as it should be",
            RelayError::Kafka(_) | RelayError::Stalled(_) => "Kafka takes nothing",
            RelayError::Topics(TopicsError::Kafka(_)) => "Kafka does not answer",
            RelayError::Topics(_) => "Kafka does not have the topics as they should be",
            RelayError::Key(_) => "records can't be signed",
            RelayError::ShutDown => "the process ends",
            RelayError::Rewind(_) => "what is asked to be published again makes no sense",
            RelayError::KafkaAhead { .. } => {
                "Kafka is ahead of the log, as after a restore: run `ordermill relay adopt`"
            }
        }
    }
}

/// Runs a relay until `shutdown`: leads where nobody does, stands by otherwise. Never gives up.
pub async fn run(
    pool: PgPool,
    config: RelayConfig,
    wake: Wake,
    metrics: PipelineMetrics,
    signs: Signs,
    shutdown: CancellationToken,
) {
    let pulse = signs.pulse(RELAY);
    let words = Words::default();
    let refusals = Mutex::default();
    let relay = Arc::new(Relay { pool, config, wake, words, metrics, shutdown, pulse, refusals });
    supervised::run("relay", &relay.shutdown, || {
        let relay = relay.clone();
        tokio::spawn(async move { relay.run().await })
    })
    .await;
    signs.leave(RELAY).await;
}

struct Relay {
    pool: PgPool,
    config: RelayConfig,
    wake: Wake,
    words: Words,
    metrics: PipelineMetrics,
    shutdown: CancellationToken,
    pulse: Pulse,
    /// Of canaries, by Kafka.
    refusals: Mutex<Refusals>,
}

impl Relay {
    async fn run(&self) {
        let mut retry = Retry::forever(Duration::from_millis(50), Duration::from_secs(2));
        while !self.shutdown.is_cancelled() {
            self.pulse.beat();
            let RelayConfig { instance, lease, .. } = &self.config;
            let outcome = match Leadership::acquire(&self.pool, instance, *lease).await {
                Ok(Some((leadership, begin))) => {
                    let outcome = self.lead(&leadership, begin, &mut retry).await;
                    // Another may lead at once; where this fails, too, the lease runs out.
                    let _ = leadership.release().await;
                    outcome
                }
                Ok(None) => {
                    // It could lead, and somebody else does or is about to.
                    self.pulse.works();
                    self.pause(*lease / 6).await;
                    continue;
                }
                Err(error) => Err(error),
            };
            self.pulse.quiet_since(None);
            self.metrics.relay_leading.set(0);
            self.metrics.relay_lag_segments.set(0);
            if let Err(error) = outcome
                && !self.shutdown.is_cancelled()
            {
                let delay = retry.next_delay();
                tracing::error!(%error, delay_ms = delay.as_millis(), "the relay stopped leading; it tries again");
                self.pulse.fails(error.in_short());
                self.pause(delay).await;
            }
        }
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        // A poisoned lock means that somebody panicked; what it guards is plain data.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pause(&self, delay: Duration) {
        self.shutdown.run_until_cancelled(tokio::time::sleep(delay)).await;
    }
}
