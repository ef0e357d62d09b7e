//! The records of all partitions, each partition read at its own pace.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::partition::{Digest, Met, Published};
use crate::authenticity::Keys;
use crate::kafka::{self, KafkaConfig};
use crate::raw_record::{RawRecord, Stamp};

/// How long the broker has to say what a partition holds.
const BOUNDS_DEADLINE: Duration = Duration::from_secs(10);
/// How long it has for the next record.
const RECORD_DEADLINE: Duration = Duration::from_secs(30);
/// How long one look for a record lasts.
const POLL: Duration = Duration::from_millis(100);

/// A consumer that belongs to no group and remembers nothing.
fn consumer(kafka: &KafkaConfig) -> Result<Arc<BaseConsumer>, KafkaError> {
    let settings = [
        ("enable.partition.eof", "true"),
        // A partition is fetched ahead of its reader by about this much, which bounds the memory. The size
        // does not count headers, which are the larger part of most records, hence the number as well.
        ("queued.min.messages", "500"),
        ("queued.max.messages.kbytes", "256"),
        ("max.partition.fetch.bytes", "65536"),
        // The partition that is waited for must not wait for those that are ahead far enough or at their end.
        ("fetch.queue.backoff.ms", "5"),
        ("fetch.wait.max.ms", "1"),
    ];
    Ok(Arc::new(kafka.reader(kafka::AUDIT, settings)?))
}

/// The records of one partition as it lay there when the reading began.
pub(super) struct Records {
    /// Kafka has thrown away the partition's beginning.
    pub(super) begins_late: bool,
    consumer: Arc<BaseConsumer>,
    keys: Arc<Keys>,
    /// None where the partition holds nothing.
    queue: Option<PartitionQueue<DefaultConsumerContext>>,
    /// The offset after the last record that there was when the reading began.
    high: i64,
    at_end: bool,
}

/// Begins to read the partitions of all topics, each at its first record, unless it is broken off. A partition that does not
/// exist holds nothing.
pub(super) fn open(
    kafka: &KafkaConfig,
    topics: &BTreeSet<String>,
    partitions: i16,
    broken_off: &CancellationToken,
) -> Result<Vec<(String, i32, Records)>, KafkaError> {
    let consumer = consumer(kafka)?;
    let (mut assignment, mut all) = (TopicPartitionList::new(), Vec::new());
    for (topic, partition) in
        topics.iter().flat_map(|topic| (0..i32::from(partitions)).map(move |p| (topic, p)))
    {
        if broken_off.is_cancelled() {
            return Err(KafkaError::Canceled);
        }
        let name = kafka.full_name(topic);
        let (low, high) = kafka::bounds(&consumer, &name, partition, BOUNDS_DEADLINE)?;
        let mut queue = None;
        if high > low {
            assignment.add_partition_offset(&name, partition, Offset::Offset(low))?;
            // Before the assignment: nothing that is fetched may go into the common queue.
            queue = consumer.split_partition_queue(&name, partition);
        }
        let (consumer, keys) = (Arc::clone(&consumer), kafka.keyring.keys());
        let records = Records { begins_late: low > 0, consumer, keys, queue, high, at_end: false };
        all.push((topic.clone(), partition, records));
    }
    consumer.assign(&assignment)?;
    Ok(all)
}

impl Records {
    /// The next record; `None` at the end as it was when the reading began.
    pub(super) fn next(&mut self) -> Result<Option<Met>, KafkaError> {
        let Some(queue) = self.queue.as_ref().filter(|_| !self.at_end) else { return Ok(None) };
        let started = Instant::now();
        let mut trouble = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
        while started.elapsed() < RECORD_DEADLINE {
            match queue.poll(POLL) {
                Some(Ok(message)) => {
                    self.at_end = message.offset() + 1 >= self.high;
                    return Ok((message.offset() < self.high).then(|| met(&message, &self.keys)));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.at_end = true;
                    return Ok(None);
                }
                Some(Err(error)) => return Err(error),
                // What concerns no partition, such as a broker that is gone, shows in the common queue.
                None => match self.consumer.poll(Duration::ZERO) {
                    Some(Err(error)) => trouble = error,
                    Some(Ok(message)) => tracing::error!(offset = message.offset(), "a record went astray"),
                    None => {}
                },
            }
        }
        Err(trouble)
    }
}

fn met(message: &BorrowedMessage<'_>, keys: &Keys) -> Met {
    let raw = RawRecord::of(message, "", keys);
    let Ok(Stamp { label, previous, event_id, event_type, .. }) = raw.stamp() else { return Met::Foreign };
    let (key, payload) = (raw.key.unwrap_or_default(), raw.payload.unwrap_or_default());
    let digest = digest(event_type, raw.headers.version_text(), key, payload);
    Met::Ours(Published { label, previous, event_id, digest })
}

/// What a record says, in short. The length of the key stands before it, so that no byte of it can be taken for one
/// of the payload.
fn digest(event_type: &str, version: &str, key: &[u8], payload: &[u8]) -> Digest {
    let head = format!("{event_type}\n{version}\n{}\n", key.len());
    Sha256::new().chain_update(head).chain_update(key).chain_update(payload).finalize().into()
}
