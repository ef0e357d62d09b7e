//! What Kafka holds at the end of each partition.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers as _, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::cursor::Tails;
use crate::kafka::KafkaConfig;
use crate::label::Label;
use ordermill_schemas::headers;

/// How long the broker has to hand out the ends.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many records before the end are looked at, in case the last ones are not ours.
const LOOK_BACK: i64 = 20;

/// The end of one partition.
pub(super) struct Tail {
    pub(super) topic: String,
    pub(super) partition: i16,
    /// The highest label met near the end; none where the partition is empty.
    pub(super) label: Option<Label>,
    /// The position that was published last, as the cursor knows it.
    pub(super) expected: i64,
    /// The partition is empty because its records were too old, not because they were lost.
    pub(super) expired: bool,
}

/// Reads the end of every partition that something was published to.
pub(super) fn read(kafka: &KafkaConfig, tails: &Tails, partitions: i16) -> Result<Vec<Tail>, KafkaError> {
    let mut config = kafka.client();
    config.set("group.id", kafka.full_name("relay-tails")).set("enable.auto.commit", "false");
    kafka.override_with_settings(&mut config);
    let consumer: BaseConsumer = config.create()?;
    let mut found = Vec::new();
    let mut ends = HashMap::new();
    let mut assignment = TopicPartitionList::new();
    for (topic, expected) in &tails.0 {
        let name = kafka.full_name(topic);
        for partition in 0..partitions {
            let expected = expected.get(usize::from(partition.unsigned_abs())).copied().unwrap_or(0);
            let (low, high) = consumer.fetch_watermarks(&name, i32::from(partition), DEADLINE)?;
            if high > low {
                let from = (high - LOOK_BACK).max(low);
                assignment.add_partition_offset(&name, i32::from(partition), Offset::Offset(from))?;
                ends.insert((name.clone(), i32::from(partition)), (found.len(), high));
            }
            found.push(Tail {
                topic: topic.clone(),
                partition,
                label: None,
                expected,
                expired: high == low && high > 0,
            });
        }
    }
    consumer.assign(&assignment)?;
    let started = Instant::now();
    while !ends.is_empty() {
        if started.elapsed() > DEADLINE {
            return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message?;
        let place = (message.topic().to_owned(), message.partition());
        let Some((index, high)) = ends.get(&place).copied() else { continue };
        if let Some(tail) = found.get_mut(index) {
            tail.label = tail.label.max(label_of(&message));
        }
        if message.offset() + 1 >= high {
            ends.remove(&place);
        }
    }
    Ok(found)
}

fn label_of(message: &impl Message) -> Option<Label> {
    let headers = message.headers()?;
    let header = headers.iter().find(|header| header.key == headers::LABEL)?;
    std::str::from_utf8(header.value?).ok()?.parse().ok()
}
