//! The partitions that this member owns, and how far it has read each.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics};
use tokio::runtime::Handle;

use super::offsets::{self, Owned, Slot};
use super::sequence_check::start;
use crate::kafka::{self, KafkaConfig};
use crate::kafka_usage::ClientUsage;
use crate::label::Label;
use crate::relay::request_repeat;

/// How long the broker has to say what a partition holds.
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a member joins anew.
pub(super) type Anew = Box<dyn std::error::Error>;

/// What is owned, shared between the loop and the client's callbacks.
#[derive(Default)]
pub(super) struct State {
    pub(super) owned: HashMap<Slot, Owned>,
    /// Since when the group has not told this member its partitions; of those that it tells there may be none.
    pub(super) unassigned_since: Option<Instant>,
    /// Counts rebalances: what was read under another number is dropped.
    pub(super) generation: u64,
    /// A rebalance went wrong; the member must leave and join anew.
    pub(super) failure: Option<String>,
}

/// The callbacks of the Kafka client.
pub(super) struct Assignment {
    pub(super) group: &'static str,
    pub(super) kafka: KafkaConfig,
    pub(super) pool: sqlx::PgPool,
    pub(super) runtime: Handle,
    pub(super) lag_records: Gauge,
    pub(super) usage: ClientUsage,
    pub(super) state: Mutex<State>,
}

impl ClientContext for Assignment {
    fn stats(&self, statistics: Statistics) {
        self.usage.report(&statistics);
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        let lag = partitions.map(|partition| partition.consumer_lag.max(0)).sum();
        self.lag_records.set(lag);
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
        let slots = elements.iter().filter_map(|element| {
            let topic = element.topic().strip_prefix(&self.kafka.prefix)?.to_owned();
            Some((topic, i16::try_from(element.partition()).ok()?))
        });
        let (topics, numbers): (Vec<String>, Vec<i16>) = slots.unzip();
        let claims = self.runtime.block_on(offsets::claim(&self.pool, self.group, &topics, &numbers))?;
        let mut owned = HashMap::with_capacity(claims.len());
        let mut positions = TopicPartitionList::new();
        for (slot, mut partition) in claims {
            let offset = Offset::Offset(self.begin(consumer, &slot, &mut partition)?);
            positions.add_partition_offset(&self.kafka.full_name(&slot.0), i32::from(slot.1), offset)?;
            owned.insert(slot, partition);
        }
        tracing::info!(group = self.group, partitions = owned.len(), "partitions assigned");
        self.with_state(|state| {
            state.owned = owned;
            state.unassigned_since = None;
            state.generation += 1;
        });
        consumer.assign(&positions)?;
        // The client goes on pausing what was paused before, also where it comes back as a new part.
        Ok(consumer.resume(&positions)?)
    }

    fn revoke(&self, consumer: &BaseConsumer<Assignment>) -> Result<(), Anew> {
        self.with_state(|state| {
            state.owned.clear();
            state.unassigned_since = Some(Instant::now());
            state.generation += 1;
        });
        Ok(consumer.unassign()?)
    }

    /// Looks at what Kafka holds of a partition, and answers at which offset reading begins.
    fn begin(
        &self,
        consumer: &BaseConsumer<Assignment>,
        slot: &Slot,
        owned: &mut Owned,
    ) -> Result<i64, KafkaError> {
        let (topic, partition) = slot;
        let name = self.kafka.full_name(topic);
        // Where the topic is not there yet, it is read from its beginning once it is: labels tell what was applied.
        let (low, high) = kafka::bounds(consumer, &name, i32::from(*partition), WATERMARK_TIMEOUT)?;
        let (next_offset, start) = (owned.next_offset, start(owned.next_offset, low, high));
        if start.ask {
            tracing::warn!(
                group = self.group,
                topic,
                partition,
                next_offset,
                low,
                high,
                "Kafka does not hold what comes next; the relay is asked to publish it again"
            );
            self.ask_for_repeat(slot, owned.last);
        }
        owned.next_offset = next_offset.min(high).max(low);
        owned.verify_or_start_at = start.verify.then_some(low);
        Ok(start.offset)
    }

    /// Asks the relay for what follows `label` in a partition. Only hastens: the relay looks after lost records as well.
    pub(super) fn ask_for_repeat(&self, (topic, partition): &Slot, label: Label) {
        let request = request_repeat(&self.pool, topic, *partition, label.position);
        if let Err(error) = self.runtime.block_on(request) {
            tracing::warn!(group = self.group, %error, "the relay could not be asked to repeat");
        }
    }
}
