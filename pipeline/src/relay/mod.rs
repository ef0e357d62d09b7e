//! The relay: brings the log to Kafka, in order, without a hole.
//!
//! One instance leads, the others stand by. The leader takes the log in cuts: a position up to which no
//! row can appear any more (`fence`). It publishes what lies between two cuts in order of position, waits
//! until Kafka has acknowledged all of it, and moves its cursor. Whoever takes over begins at the cursor
//! and sends the same records under the same labels; consumers skip what they have seen.

mod cursor;
mod fence;
mod publisher;
mod tails;

use std::time::{Duration, Instant};

use ordermill_schemas::Topic;
use sqlx::PgPool;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::heartbeat::{self, Pulse};
use crate::kafka::KafkaConfig;
use crate::metrics::PipelineMetrics;
use crate::retry::Retry;
use crate::topics::{self, TopicsError};
use crate::wake::Wake;

pub use cursor::{CursorError, install, partitions, request_repeat};
pub(crate) use cursor::{Progress, progress};
pub(crate) use fence::log_end;

use cursor::{Leadership, Tails};
use fence::Fences;
use publisher::Publisher;

/// How many rows are read and published at once.
const BATCH_ROWS_MAX: i64 = 4_000;
/// A turn takes at least this long: each costs a few statements, however little it publishes.
const TURN_MIN: Duration = Duration::from_millis(5);
/// How long the relay waits for something new while there was something lately.
const WAIT_BUSY: Duration = Duration::from_millis(2);
/// How long it waits while there is nothing.
const WAIT_IDLE: Duration = Duration::from_millis(50);
/// What "lately" means.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// What a relay needs.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Where Kafka is.
    pub kafka: KafkaConfig,
    /// The groups with their topics, whose dead-letter topics are made as well.
    pub groups: Vec<(&'static str, &'static [Topic])>,
    /// This instance's name, unique among relays.
    pub instance: String,
    /// How long a leader that says nothing stays leader.
    pub lease: Duration,
}

/// Why a relay stopped leading.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The cursor is not ours any more, or not of this database.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// Kafka failed.
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The topics are not as they should be.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// The process ends; what Kafka had not acknowledged is published again by the next leader.
    #[error("the process ends")]
    ShutDown,
    /// Kafka holds records that the log does not have.
    #[error(
        "Kafka's topic {topic} is ahead of the log (record {found}, log ends at {end}): the database was \
         restored from an older copy, and nothing is published from it; go back to the newest database"
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

/// Runs a relay until `shutdown`: leads where nobody does, stands by otherwise. Never gives up.
pub async fn run(
    pool: PgPool,
    config: RelayConfig,
    wake: Wake,
    metrics: PipelineMetrics,
    shutdown: CancellationToken,
) {
    let pulse = Pulse::default();
    let beat = tokio::spawn(heartbeat::run(
        pool.clone(),
        "relay".to_owned(),
        config.instance.clone(),
        pulse.clone(),
        shutdown.clone(),
    ));
    let relay = Relay { pool, config, wake, metrics, shutdown, pulse, runtime: Handle::current() };
    // The producer's calls block, so the relay has a thread of its own.
    let thread = tokio::task::spawn_blocking(move || relay.run());
    if thread.await.is_err() {
        tracing::error!("the relay's thread panicked; this process publishes nothing any more");
    }
    let _ = beat.await;
}

struct Relay {
    pool: PgPool,
    config: RelayConfig,
    wake: Wake,
    metrics: PipelineMetrics,
    shutdown: CancellationToken,
    pulse: Pulse,
    runtime: Handle,
}

impl Relay {
    fn run(self) {
        let mut retry = Retry::forever(Duration::from_millis(50), Duration::from_secs(2));
        while !self.shutdown.is_cancelled() {
            self.pulse.beat();
            let held = self.runtime.block_on(Leadership::acquire(
                &self.pool,
                &self.config.instance,
                self.config.lease,
            ));
            let outcome = match held {
                Ok(Some(mut leadership)) => {
                    let outcome = self.lead(&mut leadership, &mut retry);
                    // Another may lead at once; where this fails, too, the lease runs out.
                    let _ = self.runtime.block_on(leadership.release(&self.pool));
                    outcome
                }
                Ok(None) => {
                    self.pause(self.config.lease / 6);
                    continue;
                }
                Err(error) => Err(error),
            };
            self.metrics.relay_leading.set(0);
            self.metrics.relay_lag_positions.set(0);
            if let Err(error) = outcome
                && !self.shutdown.is_cancelled()
            {
                let delay = retry.next_delay();
                tracing::error!(%error, delay_ms = delay.as_millis(), "the relay stopped leading; it tries again");
                self.pause(delay);
            }
        }
    }

    fn pause(&self, delay: Duration) {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(delay) => {}
            }
        });
    }

    /// Publishes until shutdown, or until something fails.
    fn lead(&self, leadership: &mut Leadership, retry: &mut Retry) -> Result<(), RelayError> {
        let partitions = leadership.partitions;
        self.runtime.block_on(topics::ensure(&self.config.kafka, partitions, &self.config.groups))?;
        self.repeat_what_kafka_lost(leadership)?;
        tracing::info!(
            instance = self.config.instance,
            epoch = leadership.epoch,
            position = leadership.position,
            "the relay leads"
        );
        self.metrics.relay_leading.set(1);
        let publisher = Publisher::new(&self.config.kafka, leadership.era)?;
        let mut fences = Fences::default();
        let mut last_seen = Instant::now();
        while !self.shutdown.is_cancelled() {
            self.pulse.beat();
            let began = Instant::now();
            let final_position = self.runtime.block_on(fences.advance(&self.pool, &self.metrics))?;
            self.metrics.relay_lag_positions.set(final_position - leadership.position);
            if self.publish_up_to(&publisher, leadership, final_position)? {
                last_seen = Instant::now();
                retry.succeeded();
                self.pause(TURN_MIN.saturating_sub(began.elapsed()));
                continue;
            }
            if let Some(after) = self.runtime.block_on(leadership.keep(&self.pool))? {
                self.repeat_after(leadership, after)?;
                continue;
            }
            let wait = if last_seen.elapsed() < BUSY_FOR { WAIT_BUSY } else { WAIT_IDLE };
            self.runtime.block_on(self.wake.wait(wait));
        }
        Ok(())
    }

    /// Publishes one batch; whether there was anything.
    fn publish_up_to(
        &self,
        publisher: &Publisher,
        leadership: &mut Leadership,
        final_position: i64,
    ) -> Result<bool, RelayError> {
        if final_position <= leadership.position {
            return Ok(false);
        }
        let rows = self.runtime.block_on(publisher::read(
            &self.pool,
            leadership.position,
            final_position,
            BATCH_ROWS_MAX,
        ))?;
        let count = rows.len();
        // Fewer rows than asked for: all up to the cut were read, and the rest of the positions are holes
        // left by transactions that were rolled back.
        let reached = if i64::try_from(count).is_ok_and(|count| count < BATCH_ROWS_MAX) {
            final_position
        } else {
            rows.last().map_or(final_position, |row| row.position)
        };
        let mut tails = leadership.tails.clone();
        publisher.publish(rows, &mut tails, leadership.partitions, || {
            self.pulse.beat();
            if self.shutdown.is_cancelled() {
                return Err(RelayError::ShutDown);
            }
            self.runtime.block_on(leadership.keep(&self.pool)).map(|_| ())
        })?;
        self.metrics.relay_records.inc_by(count as u64);
        let repeat = self.runtime.block_on(leadership.advance(&self.pool, reached, tails))?;
        if let Some(after) = repeat {
            self.repeat_after(leadership, after)?;
        }
        Ok(count > 0)
    }

    /// Compares what Kafka holds with the cursor: sends again what is missing, refuses where Kafka knows more
    /// than the log.
    fn repeat_what_kafka_lost(&self, leadership: &mut Leadership) -> Result<(), RelayError> {
        let found = tails::read(&self.config.kafka, &leadership.tails, leadership.partitions)?;
        let end = self.runtime.block_on(fence::log_end(&self.pool))?;
        let mut after = leadership.position;
        for tail in found {
            if tail.label.is_some_and(|label| (label.era, label.position) > (leadership.era, end)) {
                let found = tail.label.unwrap_or_default();
                return Err(RelayError::KafkaAhead { topic: tail.topic, found, end });
            }
            let kept = tail.label.map_or(0, |label| label.position);
            if kept < tail.expected && !tail.expired {
                tracing::warn!(
                    topic = tail.topic,
                    partition = tail.partition,
                    kept,
                    expected = tail.expected,
                    "Kafka lost acknowledged records; they are published again"
                );
                after = after.min(kept);
            }
        }
        if after < leadership.position {
            self.repeat_after(leadership, after)?;
        }
        Ok(())
    }

    fn repeat_after(&self, leadership: &mut Leadership, after: i64) -> Result<(), RelayError> {
        if after < leadership.position {
            tracing::warn!(after, position = leadership.position, "the relay publishes again");
            self.metrics.relay_repeats.inc();
            let tails: Tails =
                self.runtime.block_on(cursor::tails_at(&self.pool, after, leadership.partitions))?;
            self.runtime.block_on(leadership.rewind(&self.pool, after, tails))?;
        } else {
            self.runtime.block_on(leadership.clear_request(&self.pool))?;
        }
        Ok(())
    }
}
