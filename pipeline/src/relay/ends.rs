//! What Kafka holds at the end of each partition: whether the record that was published last is where it was put, and what of ours
//! lies behind it.
//!
//! What is not ours does no harm, wherever it lies: junk is passed over, a control record of a transaction is an offset without a record,
//! and an open transaction is read like anything else.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{Consumer as _, DefaultConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sqlx::PgPool;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::RelayError;
use super::published::Tails;
use crate::authenticity::Keys;
use crate::kafka::{self, KafkaConfig};
use crate::label::Label;
use crate::raw_record::RawRecord;

/// How long the broker has to hand out the ends.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long each partition is waited for in turn.
const POLL: Duration = Duration::from_millis(20);
/// How many offsets are looked at behind the record that was published last, and before the end where that is not found.
const LOOK_AT_MAX: i64 = 1_000;

/// A record of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) offset: i64,
    pub(super) label: Label,
    pub(super) event_id: Uuid,
}

/// The end of one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct End {
    pub(super) topic: String,
    pub(super) partition: i16,
    /// The first offset that it holds, and the one after its last.
    pub(super) low: i64,
    pub(super) high: i64,
    /// What of ours was met: at the offset that is known and behind it, or, where another record lies there, before the end.
    pub(super) met: Vec<Met>,
}

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Whether what was published last is there.
    Last,
    /// That, and what lies behind it.
    Behind,
}

/// What is to be looked at.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) kafka: KafkaConfig,
    /// Named without prefix. One that does not exist is empty.
    pub(super) topics: Vec<String>,
    pub(super) partitions: i16,
}

impl Subject {
    /// [`Subject::read`] for who must not block.
    pub(super) async fn look(&self, era: i32, tails: Tails, depth: Depth) -> Result<Vec<End>, KafkaError> {
        let subject = self.clone();
        let ends = on_a_thread(move || subject.read(era, &tails, depth)).await;
        ends.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Reads the end of every partition, of which the last records are known.
    fn read(&self, era: i32, tails: &Tails, depth: Depth) -> Result<Vec<End>, KafkaError> {
        let mut ends = self.bounds()?;
        let known: Vec<Option<(Label, i64)>> = ends
            .iter()
            .map(|end| {
                let last = tails.of(&end.topic, end.partition);
                let is_held = |offset: &i64| (end.low..end.high).contains(offset);
                Some((Label { era, position: last.position }, last.offset.filter(is_held)?))
            })
            .collect();
        let behind = if depth == Depth::Behind { LOOK_AT_MAX } else { 0 };
        let at = |(end, known): (&End, &Option<(Label, i64)>)| match known {
            Some((_, offset)) => (*offset, end.high.min(offset + 1 + behind)),
            None => (0, 0),
        };
        let ranges: Vec<_> = ends.iter().zip(&known).map(at).collect();
        self.meet(&mut ends, &ranges)?;
        // Where it does not lie there, the last that does is looked for, and at a start the end in any case: a restored database knows
        // a record that lies far before.
        let before = |(end, known): (&End, &Option<(Label, i64)>)| {
            let is_there = known.is_some_and(|(label, offset)| end.has(label, offset));
            let is_wanted = depth == Depth::Behind || tails.of(&end.topic, end.partition).position > 0;
            if is_there && depth == Depth::Last || !is_wanted {
                (0, 0)
            } else {
                ((end.high - LOOK_AT_MAX).max(end.low), end.high)
            }
        };
        let ranges: Vec<_> = ends.iter().zip(&known).map(before).collect();
        self.meet(&mut ends, &ranges)?;
        Ok(ends)
    }

    fn bounds(&self) -> Result<Vec<End>, KafkaError> {
        let consumer = self.kafka.reader(kafka::RELAY_ENDS, [])?;
        let mut ends = Vec::new();
        for topic in &self.topics {
            let name = self.kafka.full_name(topic);
            for partition in 0..self.partitions {
                let (low, high) = kafka::bounds(&consumer, &name, i32::from(partition), DEADLINE)?;
                ends.push(End { topic: topic.clone(), partition, low, high, met: Vec::new() });
            }
        }
        Ok(ends)
    }

    /// Adds what of ours lies in each range: from the first offset to before the second.
    fn meet(&self, ends: &mut [End], ranges: &[(i64, i64)]) -> Result<(), KafkaError> {
        let wanted: Vec<_> = ends.iter_mut().zip(ranges).filter(|(_, (from, to))| from < to).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let settings = [("enable.partition.eof", "true"), ("fetch.wait.max.ms", "20")];
        let consumer = Arc::new(self.kafka.reader(kafka::RELAY_ENDS, settings)?);
        let mut assignment = TopicPartitionList::new();
        let mut open = Vec::new();
        for (end, (from, to)) in wanted {
            let (name, partition) = (self.kafka.full_name(&end.topic), i32::from(end.partition));
            assignment.add_partition_offset(&name, partition, Offset::Offset(*from))?;
            // Before the assignment: nothing that is fetched may go into the common queue, where nobody says which partition is at its end.
            let queue = consumer.split_partition_queue(&name, partition);
            open.push((end, *to, queue.ok_or(KafkaError::Canceled)?));
        }
        consumer.assign(&assignment)?;
        let keys = self.kafka.keyring.keys();
        let started = Instant::now();
        let mut trouble = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
        while !open.is_empty() {
            if started.elapsed() > DEADLINE {
                return Err(trouble);
            }
            let mut still_open = Vec::new();
            for (end, to, queue) in open {
                if !end.take_in(&queue, to, &keys)? {
                    still_open.push((end, to, queue));
                }
            }
            open = still_open;
            // What concerns no partition, such as a broker that is gone, shows in the common queue.
            if let Some(Err(error)) = consumer.poll(Duration::ZERO) {
                trouble = error;
            }
        }
        Ok(())
    }
}

impl End {
    /// Takes in what is at hand; answers whether that was all up to an offset.
    fn take_in(
        &mut self,
        queue: &PartitionQueue<DefaultConsumerContext>,
        to: i64,
        keys: &Keys,
    ) -> Result<bool, KafkaError> {
        let mut wait = POLL;
        loop {
            match queue.poll(wait) {
                None => return Ok(false),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(true),
                Some(Err(error)) => return Err(error),
                Some(Ok(message)) => {
                    let offset = message.offset();
                    let record = RawRecord::of(&message, &self.topic, keys);
                    if let Some(stamp) = record.stamp().ok().filter(|_| offset < to) {
                        self.met.push(Met { offset, label: stamp.label, event_id: stamp.event_id });
                    }
                    if offset + 1 >= to {
                        return Ok(true);
                    }
                }
            }
            wait = Duration::ZERO;
        }
    }

    /// Whether that record of ours was met there.
    pub(super) fn has(&self, label: Label, offset: i64) -> bool {
        self.met.iter().any(|met| (met.offset, met.label) == (offset, label))
    }

    /// The highest position of that era that was met.
    pub(super) fn highest(&self, era: i32) -> Option<i64> {
        let of_era = self.met.iter().filter(|met| met.label.era == era);
        of_era.map(|met| met.label.position).max()
    }

    /// How many records it holds at most.
    pub(super) fn records(&self) -> i64 {
        self.high - self.low
    }
}

/// Does what blocks on a thread of its own: whoever leads no more does not wait for the client. Nothing is answered where it panics.
pub(super) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, outcome) = oneshot::channel();
    thread::spawn(move || {
        // Nobody may be waiting any more.
        let _ = done.send(work());
    });
    outcome.await.ok()
}

/// The highest position of an era that lies before an offset; none where there is none.
pub(super) fn highest_before(
    kafka: &KafkaConfig,
    (topic, partition, offset): (&str, i16, i64),
    era: i32,
) -> Result<Option<i64>, KafkaError> {
    let subject = Subject { kafka: kafka.clone(), topics: vec![topic.to_owned()], partitions: partition + 1 };
    let mut ends = subject.bounds()?;
    let is_it = |end: &End| end.partition == partition;
    let range = |end: &End| if is_it(end) { ((offset - LOOK_AT_MAX).max(end.low), offset) } else { (0, 0) };
    let ranges: Vec<_> = ends.iter().map(range).collect();
    subject.meet(&mut ends, &ranges)?;
    Ok(ends.iter().find(|end| is_it(end)).and_then(|end| end.highest(era)))
}

/// The first record, if there is one, that is not this log's: of a later era, or not the event that the log has at its
/// position.
pub(super) async fn foreign(
    pool: &PgPool,
    era: i32,
    ends: &[End],
) -> Result<Option<(String, Label)>, RelayError> {
    // What earlier eras have left is passed over by everybody.
    let all = ends.iter().flat_map(|end| end.met.iter().map(move |met| (end, *met)));
    let candidates: Vec<(&End, Met)> = all.filter(|(_, met)| met.label.era >= era).collect();
    let positions: Vec<i64> = candidates.iter().map(|(_, met)| met.label.position).collect();
    let rows = sqlx::query!(
        r#"SELECT position AS "position!", event_id[(position % 100000)::integer] AS event_id
           FROM unnest($1::bigint[]) AS position JOIN log_segment ON number = position / 100000"#,
        &positions,
    )
    .fetch_all(pool)
    .await?;
    let log: HashMap<i64, Option<Uuid>> = rows.into_iter().map(|row| (row.position, row.event_id)).collect();
    let is_ours = |met: &Met| {
        let id = log.get(&met.label.position).copied().flatten();
        met.label.era == era && id == Some(met.event_id)
    };
    let foreign = candidates.into_iter().find(|(_, met)| !is_ours(met));
    Ok(foreign.map(|(end, met)| (end.topic.clone(), met.label)))
}
