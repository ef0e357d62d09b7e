//! The relay: brings the log to Kafka, in order, without a hole.
//!
//! One instance leads, the others stand by. The leader takes the log in cuts: a position up to which no
//! row can appear any more (`fence`). It publishes what lies between two cuts in order of position, waits
//! until Kafka has acknowledged all of it, and moves its cursor. Whoever takes over begins at the cursor
//! and sends the same records under the same labels; consumers skip what they have seen.

mod adopt;
mod cursor;
mod fence;
mod published;
mod publisher;
mod repeat;
mod rewind;
mod status;
mod tails;
mod watch;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::heartbeat::{self, Pulse};
use crate::kafka::KafkaConfig;
use crate::log::{self, SEGMENT_POSITIONS};
use crate::metrics::PipelineMetrics;
use crate::retry::Retry;
use crate::supervised;
use crate::topics::{self, TopicsError};
use crate::wake::Wake;
use crate::words::Words;

pub use adopt::{AdoptError, Adoption, Reason};
pub(crate) use cursor::Cursor;
pub use cursor::{CursorError, install, partitions};
pub(crate) use fence::log_end;
pub(crate) use published::Published;
pub use repeat::request_repeat;
pub use rewind::{Rewind, RewindError, RewindPlan, RewindProgress};
pub use status::{OpenTransaction, Status, status};

use cursor::Leadership;
use fence::Fences;
use published::Loss;
use publisher::{Publisher, SetBack};
use repeat::Repeat;
use tails::Tail;
use watch::Watch;

/// How many rows are read and published at once.
const BATCH_EVENTS_MAX: usize = 4_000;
/// A turn takes at least this long: each costs a few statements, however little it publishes.
const TURN_MIN: Duration = Duration::from_millis(5);
/// How long the relay waits for something new while there was something lately.
const WAIT_BUSY: Duration = Duration::from_millis(2);
/// How long it waits while there is nothing.
const WAIT_IDLE: Duration = Duration::from_millis(50);
/// What "lately" means.
const BUSY_FOR: Duration = Duration::from_secs(1);
/// How often the relay looks after its lease while it waits for others.
const LOOK_UP_AFTER: Duration = Duration::from_millis(50);
/// How long Kafka has to say what lies before a record; shorter than the lease.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

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
    /// How long Kafka may acknowledge nothing of what is being published before the leader begins anew with another
    /// client.
    pub stalled_after: Duration,
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
    /// Kafka acknowledges nothing.
    #[error("Kafka has acknowledged nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The topics are not as they should be.
    #[error(transparent)]
    Topics(#[from] TopicsError),
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

/// Runs a relay until `shutdown`: leads where nobody does, stands by otherwise. Never gives up.
pub async fn run(
    pool: PgPool,
    config: RelayConfig,
    wake: Wake,
    metrics: PipelineMetrics,
    shutdown: CancellationToken,
) {
    let (pulse, beat) = heartbeat::start(&pool, "relay", &config.instance, &shutdown);
    let words = Words::default();
    let relay = Arc::new(Relay { pool, config, wake, words, metrics, shutdown, pulse });
    // Some of the client's calls block, so the relay has a thread of its own.
    supervised::run("relay", &relay.shutdown, || {
        let relay = relay.clone();
        tokio::task::spawn_blocking(move || Handle::current().block_on(relay.run()))
    })
    .await;
    let _ = beat.await;
}

struct Relay {
    pool: PgPool,
    config: RelayConfig,
    wake: Wake,
    words: Words,
    metrics: PipelineMetrics,
    shutdown: CancellationToken,
    pulse: Pulse,
}

impl Relay {
    async fn run(&self) {
        let mut retry = Retry::forever(Duration::from_millis(50), Duration::from_secs(2));
        while !self.shutdown.is_cancelled() {
            self.pulse.beat();
            let RelayConfig { instance, lease, .. } = &self.config;
            let outcome = match Leadership::acquire(&self.pool, instance, *lease).await {
                Ok(Some(mut leadership)) => {
                    let outcome = self.lead(&mut leadership, &mut retry).await;
                    // Another may lead at once; where this fails, too, the lease runs out.
                    let _ = leadership.release().await;
                    outcome
                }
                Ok(None) => {
                    self.pause(*lease / 6).await;
                    continue;
                }
                Err(error) => Err(error),
            };
            self.metrics.relay_leading.set(0);
            self.metrics.relay_lag_segments.set(0);
            if let Err(error) = outcome
                && !self.shutdown.is_cancelled()
            {
                let delay = retry.next_delay();
                tracing::error!(%error, delay_ms = delay.as_millis(), "the relay stopped leading; it tries again");
                self.pause(delay).await;
            }
        }
    }

    async fn pause(&self, delay: Duration) {
        self.shutdown.run_until_cancelled(tokio::time::sleep(delay)).await;
    }

    /// Waits for work that may take longer than the lease, which is kept meanwhile.
    async fn keeping<T>(
        &self,
        leadership: &mut Leadership,
        work: impl Future<Output = T>,
    ) -> Result<T, RelayError> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return Ok(outcome),
                () = tokio::time::sleep(LOOK_UP_AFTER) => {
                    self.pulse.beat();
                    if self.shutdown.is_cancelled() {
                        return Err(RelayError::ShutDown);
                    }
                    // What is asked for meanwhile is asked for again at the next turn.
                    leadership.keep().await?;
                }
            }
        }
    }

    /// Publishes until shutdown, or until something fails.
    async fn lead(&self, leadership: &mut Leadership, retry: &mut Retry) -> Result<(), RelayError> {
        // Every topic that something is or was published to, without prefix.
        let known = self.config.topics.iter();
        let topics: BTreeSet<String> = known.chain(leadership.tails.0.keys()).cloned().collect();
        let topics = Vec::from_iter(topics);
        let partitions = leadership.partitions;
        self.keeping(leadership, topics::ensure_named(&self.config.kafka, partitions, &topics)).await??;
        let found = self.look_at_kafka(leadership, &topics).await?;
        tracing::info!(
            instance = self.config.instance,
            epoch = leadership.epoch,
            era = leadership.era,
            position = leadership.position,
            "the relay leads"
        );
        self.metrics.relay_leading.set(1);
        let usage = &self.metrics.kafka_usage;
        let mut publisher = Publisher::new(&self.config, leadership.era, &found, &self.words, usage)?;
        let mut watch = Watch::new(&self.config.kafka, topics, self.config.look_every);
        let mut fences = Fences::default();
        let mut last_seen = Instant::now();
        while !self.shutdown.is_cancelled() {
            self.pulse.beat();
            let began = Instant::now();
            self.repeat_losses(leadership, watch.turn(leadership)).await?;
            let final_position = fences.advance(&self.pool, &self.metrics).await?;
            self.metrics
                .relay_lag_segments
                .set(final_position / SEGMENT_POSITIONS - leadership.position / SEGMENT_POSITIONS);
            if self.publish_up_to(&mut publisher, leadership, final_position).await? {
                last_seen = Instant::now();
                retry.succeeded();
                self.pause(TURN_MIN.saturating_sub(began.elapsed())).await;
                continue;
            }
            if let Some(repeat) = leadership.keep().await? {
                self.repeat(leadership, repeat).await?;
                continue;
            }
            let wait = if last_seen.elapsed() < BUSY_FOR { WAIT_BUSY } else { WAIT_IDLE };
            self.wake.wait(wait).await;
        }
        Ok(())
    }

    /// Publishes one batch; whether there was anything.
    async fn publish_up_to(
        &self,
        publisher: &mut Publisher,
        leadership: &mut Leadership,
        final_position: i64,
    ) -> Result<bool, RelayError> {
        if final_position <= leadership.position {
            return Ok(false);
        }
        let rows = log::read(&self.pool, leadership.position, final_position, BATCH_EVENTS_MAX).await?;
        let mut codes = rows.iter().flat_map(|row| [row.topic, row.event_type, row.actor]);
        if codes.any(|code| self.words.word(code).is_none()) {
            self.words.read_all(&self.pool).await?;
        }
        let count = rows.len();
        // Fewer than asked for: all up to the cut were read, and the rest of the positions are holes
        // left by transactions that were rolled back.
        let reached = if count < BATCH_EVENTS_MAX {
            final_position
        } else {
            rows.last().map_or(final_position, |row| row.position)
        };
        let mut tails = leadership.tails.clone();
        let (partitions, only) = (leadership.partitions, leadership.only.clone());
        let publish = publisher.publish(rows, only.as_ref(), &mut tails, partitions);
        let published = self.keeping(leadership, publish).await??;
        self.metrics.relay_records.inc_by(published as u64);
        let repeat = leadership.advance(reached, tails).await?;
        let mut losses = Vec::new();
        for set_back in publisher.set_back() {
            losses.push(self.loss(leadership, set_back));
            // What is asked for meanwhile is asked for again at the next turn.
            leadership.keep().await?;
        }
        self.repeat_losses(leadership, losses).await?;
        if let Some(repeat) = repeat {
            self.repeat(leadership, repeat).await?;
        }
        Ok(count > 0)
    }

    /// Compares what Kafka holds with the cursor: sends again what is missing, refuses where Kafka knows more
    /// than the log.
    async fn look_at_kafka(
        &self,
        leadership: &mut Leadership,
        topics: &[String],
    ) -> Result<Vec<Tail>, RelayError> {
        let look = tails::look(&self.config.kafka, topics.to_vec(), leadership.partitions);
        let found = self.keeping(leadership, look).await??;
        if let Some((tail, label)) = tails::foreign(&self.pool, leadership.era, &found).await? {
            let end = fence::log_end(&self.pool).await?;
            return Err(RelayError::KafkaAhead { topic: tail.topic.clone(), found: label, end });
        }
        let losses = leadership.published().losses(&found);
        self.repeat_losses(leadership, losses).await?;
        Ok(found)
    }

    /// What Kafka has lost where a record came to lie before others.
    fn loss(&self, leadership: &Leadership, set_back: SetBack) -> Loss {
        let SetBack { topic, partition, offset } = set_back;
        let kept = tails::label_before(&self.config.kafka, &topic, partition, offset, LOOK_WITHIN);
        let kept = kept.filter(|label| label.era == leadership.era).map_or(0, |label| label.position);
        Loss { topic, partition, kept: kept.max(leadership.published_after) }
    }

    /// Publishes the topics again in which something is missing.
    async fn repeat_losses(&self, leadership: &mut Leadership, losses: Vec<Loss>) -> Result<(), RelayError> {
        let Some(after) = losses.iter().map(|loss| loss.kept).min() else { return Ok(()) };
        for Loss { topic, partition, kept } in &losses {
            tracing::warn!(
                topic,
                partition,
                kept,
                "Kafka lost acknowledged records; they are published again"
            );
        }
        let topics: BTreeSet<String> = losses.into_iter().map(|loss| loss.topic).collect();
        self.repeat(leadership, Repeat { after, topics: Some(topics.into_iter().collect()) }).await
    }

    async fn repeat(&self, leadership: &mut Leadership, repeat: Repeat) -> Result<(), RelayError> {
        if repeat.after < leadership.position {
            let Repeat { after, topics } = &repeat;
            tracing::warn!(after, position = leadership.position, ?topics, "the relay publishes again");
            self.metrics.relay_repeats.inc();
            let tails = cursor::tails_at(&self.pool, *after, leadership.partitions);
            let tails = self.keeping(leadership, tails).await??;
            leadership.rewind(repeat, tails).await
        } else {
            leadership.take_in(&repeat).await
        }
    }
}
