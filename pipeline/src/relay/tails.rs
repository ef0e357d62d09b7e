//! What Kafka holds at the end of each partition, and whether that is this log's.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sqlx::PgPool;
use uuid::Uuid;

use super::{RelayError, watch};
use crate::kafka::{self, KafkaConfig};
use crate::label::Label;
use crate::raw_record::RawRecord;

/// The name that the reading has at the broker.
const READER: &str = "relay-tails";
/// How long the broker has to hand out the ends.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many records before the end are looked at, in case the last ones are not ours.
const LOOK_BACK: i64 = 20;

/// The end of one partition.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    pub(super) topic: String,
    pub(super) partition: i16,
    /// How many records the partition holds.
    pub(super) records: i64,
    /// The offset after the last record.
    pub(super) high: i64,
    /// The record with the highest label near the end; none where there is none of ours.
    pub(super) last: Option<Last>,
    /// The partition is empty because its records were too old or were deleted on purpose, not because they were lost.
    pub(super) expired: bool,
}

/// The last record of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    pub(super) label: Label,
    pub(super) event_id: Option<Uuid>,
}

/// Reads the end of every partition of `topics`, which are named without prefix. A topic that does not exist is empty.
pub(super) fn read(kafka: &KafkaConfig, topics: &[String], partitions: i16) -> Result<Vec<Tail>, KafkaError> {
    let consumer = kafka.reader(READER, [])?;
    let mut found = Vec::new();
    let mut ranges = Vec::new();
    for topic in topics {
        let name = kafka.full_name(topic);
        for partition in 0..partitions {
            let (low, high) = kafka::bounds(&consumer, &name, i32::from(partition), DEADLINE)?;
            ranges.push((name.clone(), i32::from(partition), (high - LOOK_BACK).max(low), high));
            found.push(Tail {
                topic: topic.clone(),
                partition,
                records: high - low,
                high,
                last: None,
                expired: high == low && high > 0,
            });
        }
    }
    for (tail, last) in found.iter_mut().zip(last_of(&consumer, &ranges, DEADLINE)?) {
        tail.last = last;
    }
    Ok(found)
}

/// [`read`] for who must not block.
pub(super) async fn look(
    kafka: &KafkaConfig,
    topics: Vec<String>,
    partitions: i16,
) -> Result<Vec<Tail>, KafkaError> {
    let kafka = kafka.clone();
    let found = watch::on_a_thread(move || read(&kafka, &topics, partitions)).await;
    found.unwrap_or(Err(KafkaError::Canceled))
}

/// The label of the record that lies before an offset; none where it is not to be had soon.
pub(super) fn label_before(
    kafka: &KafkaConfig,
    topic: &str,
    partition: i16,
    offset: i64,
    deadline: Duration,
) -> Option<Label> {
    let consumer = kafka.reader(READER, []).ok()?;
    let name = kafka.full_name(topic);
    let (low, _) = kafka::bounds(&consumer, &name, i32::from(partition), deadline).ok()?;
    let range = (name, i32::from(partition), (offset - LOOK_BACK).max(low), offset);
    let last = last_of(&consumer, &[range], deadline).ok()?;
    Some((*last.first()?)?.label)
}

/// A topic's full name, a partition, and the offsets to look at: from the first to before the second.
type Range = (String, i32, i64, i64);

/// The record with the highest label in each range.
fn last_of(
    consumer: &BaseConsumer,
    ranges: &[Range],
    deadline: Duration,
) -> Result<Vec<Option<Last>>, KafkaError> {
    let mut lasts = vec![None; ranges.len()];
    let mut open = HashMap::new();
    let mut assignment = TopicPartitionList::new();
    for (index, (topic, partition, from, to)) in ranges.iter().enumerate().filter(|(_, r)| r.2 < r.3) {
        assignment.add_partition_offset(topic, *partition, Offset::Offset(*from))?;
        open.insert((topic.as_str(), *partition), (index, *to));
    }
    consumer.assign(&assignment)?;
    let started = Instant::now();
    while !open.is_empty() {
        if started.elapsed() > deadline {
            return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message?;
        let place = (message.topic(), message.partition());
        let Some((index, to)) = open.get(&place).copied() else { continue };
        if message.offset() < to
            && let (Some(last), Some(met)) = (lasts.get_mut(index), met(&message))
        {
            *last = (*last).filter(|last: &Last| last.label >= met.label).or(Some(met));
        }
        if message.offset() + 1 >= to {
            open.retain(|_, (other, _)| *other != index);
        }
    }
    Ok(lasts)
}

fn met(message: &BorrowedMessage<'_>) -> Option<Last> {
    let headers = RawRecord::of(message, "").headers;
    Some(Last { label: headers.label()?, event_id: headers.event_id() })
}

/// The first of the tails, if there is one, whose last record is not this log's: of a later era, or not the event that
/// the log has at its position.
pub(super) async fn foreign<'a>(
    pool: &PgPool,
    era: i32,
    found: &'a [Tail],
) -> Result<Option<(&'a Tail, Label)>, RelayError> {
    // What earlier eras have left is passed over by everybody.
    let candidates: Vec<(&Tail, Last)> = found
        .iter()
        .filter_map(|tail| Some((tail, tail.last?)))
        .filter(|(_, last)| last.label.era >= era)
        .collect();
    let positions: Vec<i64> = candidates.iter().map(|(_, last)| last.label.position).collect();
    let rows = sqlx::query!(
        r#"SELECT position AS "position!", event_id[(position % 100000)::integer] AS event_id
           FROM unnest($1::bigint[]) AS position JOIN log_segment ON number = position / 100000"#,
        &positions,
    )
    .fetch_all(pool)
    .await?;
    let log: HashMap<i64, Option<Uuid>> = rows.into_iter().map(|row| (row.position, row.event_id)).collect();
    let is_ours = |last: &Last| {
        let id = log.get(&last.label.position).copied().flatten();
        last.label.era == era && id.is_some() && id == last.event_id
    };
    Ok(candidates.into_iter().find_map(|(tail, last)| (!is_ours(&last)).then_some((tail, last.label))))
}
