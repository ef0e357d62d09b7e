//! Events of the log as Kafka records.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ordermill_wire::headers;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::published::Tails;
use super::repeat::Only;
use super::tails::Tail;
use super::{RelayConfig, RelayError};
use crate::kafka::KafkaConfig;
use crate::kafka_usage::{ClientUsage, KafkaUsage, STATISTICS_INTERVAL};
use crate::label::Label;
use crate::log::Row;
use crate::trace::TraceContext;
use crate::words::Words;

/// The relay among the clients of Kafka.
const CLIENT: &str = "relay";

/// Where the next record of each partition must come to lie at least.
#[derive(Default)]
struct Ends {
    /// The offset after the last record that is known, by topic and partition.
    offsets: HashMap<(Arc<str>, i32), i64>,
    /// Partitions whose records came to lie before others that Kafka had acknowledged: it has lost those.
    set_back: Vec<SetBack>,
}

/// A partition that was cut off or made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetBack {
    /// The topic, without prefix.
    pub(super) topic: String,
    pub(super) partition: i16,
    /// Where the first record lies that was published since.
    pub(super) offset: i64,
}

impl Ends {
    fn met(&mut self, topic: impl Into<Arc<str>>, partition: i32, offset: i64) {
        // The offset of a record that was sent twice may not be known.
        if offset < 0 {
            return;
        }
        let topic = topic.into();
        let end = self.offsets.entry((topic.clone(), partition)).or_default();
        if offset < *end {
            let partition = i16::try_from(partition).unwrap_or(i16::MAX);
            self.set_back.push(SetBack { topic: topic.to_string(), partition, offset });
        }
        *end = offset + 1;
    }
}

/// A record that was handed to the client: its topic, and what Kafka will say.
type Sent = (Arc<str>, DeliveryFuture);

/// A producer that keeps order and repeats nothing by itself.
pub(super) struct Publisher {
    producer: FutureProducer<ClientUsage>,
    ends: Ends,
    kafka: KafkaConfig,
    words: Words,
    era: i32,
    stalled_after: Duration,
}

impl Publisher {
    /// `found` is what Kafka holds.
    pub(super) fn new(
        config: &RelayConfig,
        era: i32,
        found: &[Tail],
        words: &Words,
        usage: &KafkaUsage,
    ) -> Result<Publisher, RelayError> {
        let kafka = &config.kafka;
        let client = kafka.client_with([
            ("enable.idempotence", "true"),
            ("acks", "all"),
            // After a failure nothing overtakes: the producer stops, and the next one begins at the cursor.
            ("enable.gapless.guarantee", "true"),
            ("message.timeout.ms", "0"),
            // A topic that is gone shows after this long, and is made again.
            ("topic.metadata.propagation.max.ms", "5000"),
            ("topic.metadata.refresh.interval.ms", "5000"),
            ("linger.ms", "0.5"),
            ("compression.type", "lz4"),
            ("queue.buffering.max.messages", "100000"),
            ("message.max.bytes", "1000000"),
            ("partitioner", "murmur2_random"),
            STATISTICS_INTERVAL,
        ]);
        let mut ends = Ends::default();
        for tail in found {
            ends.met(tail.topic.as_str(), i32::from(tail.partition), tail.high - 1);
        }
        let producer = client.create_with_context(usage.of(CLIENT))?;
        let (kafka, words, stalled_after) = (kafka.clone(), words.clone(), config.stalled_after);
        Ok(Publisher { producer, ends, kafka, words, era, stalled_after })
    }

    /// Publishes the rows in order, but for those that `only` leaves out, and waits until all are acknowledged. Answers how
    /// many were published.
    pub(super) async fn publish(
        &mut self,
        rows: Vec<Row>,
        only: Option<&Only>,
        tails: &mut Tails,
        partitions: i16,
    ) -> Result<usize, RelayError> {
        let (mut count, mut sent) = (0, VecDeque::new());
        for row in rows {
            let topic = self.word(row.topic)?;
            let previous = tails.replace(&topic, row.partition, row.position, partitions);
            if only.is_some_and(|only| only.leaves_out(&topic, row.position)) {
                continue;
            }
            self.send(&row, topic, previous, &mut sent).await?;
            count += 1;
        }
        // In the order in which they were sent, so that the offsets of a partition rise.
        for record in sent {
            self.acknowledged(record).await?;
        }
        Ok(count)
    }

    /// Waits until Kafka has acknowledged a record. A client that waits for what never comes is given up: another one may
    /// fare better, and begins at the cursor.
    async fn acknowledged(&mut self, (topic, delivery): Sent) -> Result<(), RelayError> {
        let told = tokio::time::timeout(self.stalled_after, delivery).await;
        let told = told.map_err(|_| RelayError::Stalled(self.stalled_after))?;
        let delivery = told.map_err(|_| KafkaError::Canceled)?.map_err(|(error, _)| error)?;
        self.ends.met(topic, delivery.partition, delivery.offset);
        Ok(())
    }

    /// The partitions in which Kafka has lost records since this was last asked, as far as later records show it.
    pub(super) fn set_back(&mut self) -> Vec<SetBack> {
        std::mem::take(&mut self.ends.set_back)
    }

    fn word(&self, code: i16) -> Result<Arc<str>, sqlx::Error> {
        let word = self.words.word(code);
        word.ok_or_else(|| sqlx::Error::Decode(format!("the log has no word {code}").into()))
    }

    async fn send(
        &mut self,
        row: &Row,
        topic: Arc<str>,
        previous: i64,
        sent: &mut VecDeque<Sent>,
    ) -> Result<(), RelayError> {
        let mut text = [0_u8; 36];
        let key: &[u8] = match &row.record_key {
            Some(key) => key,
            None => row.key.hyphenated().encode_lower(&mut text).as_bytes(),
        };
        let name = self.kafka.full_name(&topic);
        let mut record = FutureRecord::to(&name)
            .partition(i32::from(row.partition))
            .key(key)
            .payload(row.data.as_slice())
            .headers(self.headers(row, &topic, previous)?);
        loop {
            match self.producer.send_result(record) {
                Ok(delivery) => {
                    sent.push_back((topic, delivery));
                    return Ok(());
                }
                Err((error, refused)) => {
                    // Where the queue is full, it waits for room and sends the same record, so that none overtakes it.
                    let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    let Some(first) = sent.pop_front().filter(|_| is_full) else { return Err(error.into()) };
                    self.acknowledged(first).await?;
                    record = refused;
                }
            }
        }
    }

    fn headers(&self, row: &Row, topic: &str, previous: i64) -> Result<OwnedHeaders, sqlx::Error> {
        let label = |position| Label { era: self.era, position }.to_string();
        let (event_type, actor) = (self.word(row.event_type)?, self.word(row.actor)?);
        let trace = row.trace.unwrap_or_else(TraceContext::new_root);
        let own = [
            (headers::ID, Some(row.event_id.to_string())),
            (headers::TYPE, Some(event_type.to_string())),
            (headers::SOURCE, Some(format!("/ordermill/{topic}"))),
            (headers::SPEC_VERSION, Some("1.0".to_owned())),
            (headers::TIME, Some(row.at.to_string())),
            (headers::SUBJECT, Some(row.aggregate_id.to_string())),
            (headers::DATA_SCHEMA, Some(format!("{}{event_type}:{}", headers::SCHEMA_URN, row.version))),
            (headers::SEQUENCE, Some(row.sequence.to_string())),
            (headers::ACTOR, Some(row.actor_id.map_or(actor.to_string(), |id| format!("{actor}:{id}")))),
            (headers::TRACEPARENT, Some(trace.to_string())),
            (headers::LABEL, Some(label(row.position))),
            (headers::PREVIOUS, (previous > 0).then(|| label(previous))),
            (headers::CORRELATION, row.correlation_id.map(|id| id.to_string())),
            (headers::CAUSATION, row.cause_id.map(|id| id.to_string())),
            (headers::CONTENT_TYPE, row.headers.is_none().then(|| "application/json".to_owned())),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let all = own.fold(OwnedHeaders::new_with_capacity(18), |all, (key, value)| {
            all.insert(Header { key, value: Some(&value) })
        });
        let further = row.headers.iter().flat_map(|headers| &headers.0);
        Ok(further
            .fold(all, |all, header| all.insert(Header { key: &header.name, value: Some(&header.bytes()) })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_lies_before_one_that_was_there_shows_that_kafka_has_lost_some() {
        let mut ends = Ends::default();
        for offset in [4, 5, 9] {
            ends.met("cups", 1, offset);
        }
        ends.met("cups", 0, 0);
        assert_eq!(ends.set_back, []);
        ends.met("cups", 1, 2);
        let expected = SetBack { topic: "cups".to_owned(), partition: 1, offset: 2 };
        assert_eq!(std::mem::take(&mut ends.set_back), [expected]);
        ends.met("cups", 1, 3);
        ends.met("cups", 1, -1);
        assert_eq!(ends.set_back, [], "it is told once");
    }
}
