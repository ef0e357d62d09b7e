//! The partitions that this member owns, and how far it has read each.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::batch::BatchError;
use super::offsets;
use super::reader::Reader;
use super::reading::Reading;
use crate::canary;
use crate::clock::Clock;
use crate::journal::JournalError;
use crate::kafka::{self, KafkaConfig};
use crate::kafka_usage::ClientUsage;
use crate::label::Label;
use crate::loopback::Inbox;
use crate::partition::Slot;
use crate::pulse::Pulse;
use crate::relay::request_repeat;

/// How long the broker has to say what a partition holds.
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the database has to store what was passed over, before a partition is given up.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a member joins anew.
pub(super) type Anew = Box<dyn std::error::Error>;

/// What is owned, shared between the loop and the client's callbacks.
pub(super) struct State {
    pub(super) reader: Reader,
    /// A rebalance went wrong; the member must leave and join anew.
    pub(super) failure: Option<String>,
}

/// The callbacks of the Kafka client.
pub(super) struct Assignment {
    pub(super) group: &'static str,
    /// What the group reads.
    pub(super) topics: Vec<&'static str>,
    /// The full name of the canaries' topic.
    pub(super) canary: String,
    pub(super) pulse: Pulse,
    pub(super) kafka: KafkaConfig,
    pub(super) pool: sqlx::PgPool,
    pub(super) clock: Clock,
    pub(super) runtime: Handle,
    pub(super) shutdown: CancellationToken,
    pub(super) lag_records: Gauge,
    pub(super) usage: ClientUsage,
    /// What waits by the loopback.
    pub(super) inbox: Arc<Inbox>,
    pub(super) state: Mutex<State>,
}

impl ClientContext for Assignment {
    fn stats(&self, statistics: Statistics) {
        self.usage.report(&statistics);
        let partitions = statistics.topics.iter().flat_map(|(name, topic)| {
            topic.partitions.iter().map(move |(id, partition)| (name, *id, partition.consumer_lag))
        });
        // The client knows no end of a partition that it does not fetch; what waits of that is in the inbox.
        let lag = partitions.filter_map(|(name, id, lag)| {
            let waiting = self.inbox.len_of(self.slot(name, id)?);
            Some(lag.max(0).max(i64::try_from(waiting).unwrap_or(i64::MAX)))
        });
        self.lag_records.set(lag.sum());
    }
}

impl ConsumerContext for Assignment {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Assignment>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let outcome = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, partitions),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.revoke(consumer),
            other => {
                let _ = self.revoke(consumer);
                Err(format!("rebalance: {}", RDKafkaErrorCode::from(other)).into())
            }
        };
        if let Err(error) = outcome {
            tracing::warn!(group = self.group, %error, "the assignment failed; the member joins anew");
            self.with_state(|state| state.failure = Some(error.to_string()));
        }
    }
}

impl Assignment {
    pub(super) fn with_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // A poisoned lock means that a callback panicked; the state is plain data and still whole.
        change(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Takes the partitions over in the database, then begins to read each at the right place.
    fn assign(
        &self,
        consumer: &BaseConsumer<Assignment>,
        partitions: &mut TopicPartitionList,
    ) -> Result<(), Anew> {
        let elements = partitions.elements();
        let slots: Vec<Slot> =
            elements.iter().filter_map(|element| self.slot(element.topic(), element.partition())).collect();
        let mut owned = self.runtime.block_on(offsets::claim(&self.pool, self.group, &slots))?;
        let mut positions = TopicPartitionList::new();
        for (slot, reading) in &mut owned {
            let offset = Offset::Offset(self.begin(consumer, *slot, reading)?);
            positions.add_partition_offset(
                &self.kafka.full_name(slot.topic),
                i32::from(slot.partition),
                offset,
            )?;
        }
        tracing::info!(group = self.group, partitions = owned.len(), "partitions assigned");
        self.with_state(|state| state.reader.assigned(owned));
        let of_canaries = (self.canary.as_str(), canary::PARTITION);
        let meets_canaries =
            elements.iter().any(|element| (element.topic(), element.partition()) == of_canaries);
        if meets_canaries {
            // What was sent before says nothing.
            positions.add_partition_offset(&self.canary, canary::PARTITION, Offset::End)?;
        }
        consumer.assign(&positions)?;
        self.pulse.canary_at(meets_canaries.then(Instant::now));
        // The client goes on pausing what was paused before, also where it comes back as a new part.
        Ok(consumer.resume(&positions)?)
    }

    /// Stores what may be stored, then gives the partitions up. What can't be stored the next owner reads again.
    fn revoke(&self, consumer: &BaseConsumer<Assignment>) -> Result<(), Anew> {
        if let Err(error) = self.store_at_last() {
            tracing::warn!(group = self.group, %error, "offsets are not stored before partitions are given up");
        }
        self.pulse.canary_at(None);
        self.with_state(|state| state.reader.revoked(Instant::now()));
        Ok(consumer.unassign()?)
    }

    /// Partitions as the client names them.
    pub(super) fn list(&self, slots: impl IntoIterator<Item = Slot>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for Slot { topic, partition } in slots {
            list.add_partition(&self.kafka.full_name(topic), i32::from(partition));
        }
        list
    }

    /// The partition of that topic, which has its full name; none where the group does not read it.
    pub(super) fn slot(&self, name: &str, partition: i32) -> Option<Slot> {
        let name = name.strip_prefix(&self.kafka.prefix)?;
        let topic = self.topics.iter().find(|topic| **topic == name)?;
        Some(Slot { topic, partition: i16::try_from(partition).ok()? })
    }

    /// Looks at what Kafka holds of a partition, and answers at which offset reading begins.
    fn begin(
        &self,
        consumer: &BaseConsumer<Assignment>,
        slot: Slot,
        reading: &mut Reading,
    ) -> Result<i64, KafkaError> {
        let Slot { topic, partition } = slot;
        let name = self.kafka.full_name(topic);
        // Where the topic is not there yet, it is read from its beginning once it is: labels tell what was applied.
        let (low, high) = kafka::bounds(consumer, &name, i32::from(partition), WATERMARK_TIMEOUT)?;
        let start = reading.start(low, high);
        if let Some(label) = start.ask_for {
            tracing::warn!(
                group = self.group,
                topic,
                partition,
                next_offset = reading.stored_offset(),
                low,
                high,
                "Kafka does not hold what comes next; the relay is asked to publish it again"
            );
            self.ask_for_repeat(slot, label);
        }
        Ok(start.offset)
    }

    /// Stores how far the partitions are, as far as nothing before is still to be applied. Only by this do offsets move
    /// over what is of no interest, where no batch moves them. Waits for the database as a batch does, until shutdown.
    ///
    /// # Errors
    /// Where another member owns a partition, the log is another one, or the database fails.
    pub(super) fn store(&self) -> Result<(), BatchError> {
        self.runtime.block_on(self.store_until(self.shutdown.cancelled()))
    }

    /// The same, in a short time: what can't be stored the next owner reads again.
    ///
    /// # Errors
    /// As above, and where it takes too long.
    pub(super) fn store_at_last(&self) -> Result<(), BatchError> {
        self.runtime.block_on(async { self.store_until(tokio::time::sleep(STORE_TIMEOUT)).await })
    }

    async fn store_until(&self, given_up: impl Future<Output = ()>) -> Result<(), BatchError> {
        let progress = self.with_state(|state| state.reader.storable());
        if progress.is_empty() {
            return Ok(());
        }
        // Given up, it may be stored all the same. Then the next batch finds the partition elsewhere than it compares, and the member joins
        // anew.
        let stored = tokio::select! {
            stored = offsets::store(&self.pool, self.group, &progress, self.clock.now()) => stored,
            () = given_up => Err(JournalError::Database(sqlx::Error::PoolTimedOut)),
        };
        self.with_state(|state| match &stored {
            Ok(true) => state.reader.stored(progress.iter().map(|p| (p.slot, p.upto))),
            // A group that has stopped stores nothing until it goes on.
            Ok(false) | Err(_) => state.reader.put_off(Instant::now()),
        });
        stored.map(|_| ()).map_err(BatchError::from)
    }

    /// Asks the relay for what follows `label` in a partition. Only hastens: the relay looks after lost records as well.
    pub(super) fn ask_for_repeat(&self, slot: Slot, label: Label) {
        let request = request_repeat(&self.pool, slot.topic, slot.partition, label.position);
        if let Err(error) = self.runtime.block_on(request) {
            tracing::warn!(group = self.group, %error, "the relay could not be asked to repeat");
        }
    }
}
