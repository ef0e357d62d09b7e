//! Events of the log as Kafka records.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientContext, Statistics};

use super::core::{Outgoing, Publication, Segment};
use super::signed::{self, Texts, Unsigned};
use super::{RelayConfig, RelayError};
use crate::authenticity::Key;
use crate::kafka::KafkaConfig;
use crate::kafka_usage::{ClientUsage, KafkaUsage, STATISTICS_INTERVAL};
use crate::label::Label;
use crate::log::{Appended, Entry};

/// The relay among the clients of Kafka.
const CLIENT: &str = "relay";
/// How soon a client that has no room is asked again.
const ROOM_PAUSE: Duration = Duration::from_millis(1);
/// About how many bytes the headers of a record take.
const HEADERS_BYTES: usize = 700;

impl Segment for Appended {
    fn number(&self) -> i64 {
        self.number
    }

    fn events(&self) -> usize {
        self.entries.len()
    }

    fn place(&self, index: usize) -> (&str, i16) {
        self.entries.get(index).map_or(("", 0), |entry| (&entry.topic, entry.partition))
    }

    fn bytes(&self, index: usize) -> usize {
        self.entries.get(index).map_or(0, |entry| entry.data.len() + HEADERS_BYTES)
    }
}

/// What became of a record: where Kafka has put it, if that is known.
pub(super) struct Delivery {
    pub(super) ticket: u64,
    pub(super) outcome: Result<Option<i64>, KafkaError>,
}

/// What the client has told and nobody has taken yet.
struct Deliveries {
    usage: ClientUsage,
    told: Mutex<Vec<Delivery>>,
}

impl Deliveries {
    fn told(&self) -> std::sync::MutexGuard<'_, Vec<Delivery>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn stats(&self, statistics: Statistics) {
        self.usage.report(&statistics);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let outcome = match result {
            // That of a record that was sent twice may not be known.
            Ok(message) => Ok(Some(message.offset()).filter(|offset| *offset >= 0)),
            Err((error, _)) => Err(error.clone()),
        };
        self.told().push(Delivery { ticket: ticket as u64, outcome });
    }
}

/// A producer that keeps order and repeats nothing by itself. It has no thread that waits for acknowledgements: they are told when
/// they are asked for.
pub(super) struct Publisher {
    /// There until it is dropped.
    producer: Option<BaseProducer<Deliveries>>,
    kafka: KafkaConfig,
    era: i32,
    stalled_after: Duration,
    /// The names that topics have in Kafka.
    names: HashMap<String, String>,
    texts: Texts,
}

impl Publisher {
    pub(super) fn new(config: &RelayConfig, era: i32, usage: &KafkaUsage) -> Result<Publisher, RelayError> {
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
            // What is handed over while a request is put together or under way goes with the next one.
            ("linger.ms", "0"),
            ("compression.type", "lz4"),
            ("queue.buffering.max.messages", "100000"),
            ("message.max.bytes", "1000000"),
            ("partitioner", "murmur2_random"),
            STATISTICS_INTERVAL,
        ]);
        let deliveries = Deliveries { usage: usage.of(CLIENT), told: Mutex::default() };
        Ok(Publisher {
            producer: Some(client.create_with_context(deliveries)?),
            kafka: kafka.clone(),
            era,
            stalled_after: config.stalled_after,
            names: HashMap::new(),
            texts: Texts::default(),
        })
    }

    fn producer(&self) -> Result<&BaseProducer<Deliveries>, KafkaError> {
        self.producer.as_ref().ok_or(KafkaError::Canceled)
    }

    /// What became of records since this was last asked. It does not wait.
    pub(super) fn deliveries(&self) -> Vec<Delivery> {
        let Ok(producer) = self.producer() else { return Vec::new() };
        let told = producer.context();
        loop {
            // Each poll serves one event: all that one answer of Kafka acknowledges.
            let before = told.told().len();
            producer.poll(Duration::ZERO);
            let mut told = told.told();
            if told.len() == before {
                return std::mem::take(&mut told);
            }
        }
    }

    /// Hands the records over, in their order.
    pub(super) async fn publish(&mut self, publication: &Publication<Appended>) -> Result<(), RelayError> {
        let Appended { at, entries, .. } = &publication.segment;
        let at = at.to_string();
        let keys = self.kafka.keyring.keys();
        let key = keys.signing(self.era)?;
        for record in &publication.records {
            let Some(entry) = entries.get(record.index) else { continue };
            self.hand_over(entry, &at, *record, key).await?;
        }
        Ok(())
    }

    async fn hand_over(
        &mut self,
        entry: &Entry,
        at: &str,
        outgoing: Outgoing,
        signing: &Key,
    ) -> Result<(), RelayError> {
        if !self.names.contains_key(&entry.topic) {
            self.names.insert(entry.topic.clone(), self.kafka.full_name(&entry.topic));
        }
        let name = self.names.get(&entry.topic).map_or("", String::as_str);
        let mut text = [0_u8; 36];
        let key: &[u8] = match &entry.record_key {
            Some(key) => key,
            None => entry.key.hyphenated().encode_lower(&mut text).as_bytes(),
        };
        let label = |position| Label { era: self.era, position };
        let unsigned = Unsigned {
            topic: name,
            key,
            entry,
            at,
            label: label(outgoing.position),
            previous: (outgoing.previous > 0).then(|| label(outgoing.previous)),
        };
        let headers = signed::headers(&mut self.texts, &unsigned, signing);
        let ticket = usize::try_from(outgoing.ticket).unwrap_or(usize::MAX);
        let mut record = BaseRecord::with_opaque_to(name, ticket)
            .partition(i32::from(entry.partition))
            .key(key)
            .payload(entry.data.as_slice())
            .headers(headers);
        let began = Instant::now();
        loop {
            let producer = self.producer()?;
            match producer.send(record) {
                Ok(()) => return Ok(()),
                // It waits for room and sends the same record, so that none overtakes it.
                Err((error, refused))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
                        && began.elapsed() < self.stalled_after =>
                {
                    record = refused;
                    producer.poll(Duration::ZERO);
                    tokio::time::sleep(ROOM_PAUSE).await;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Publisher {
    /// A client that waits for an answer while it ends holds up nobody.
    fn drop(&mut self) {
        if let Some(producer) = self.producer.take() {
            std::thread::spawn(move || drop(producer));
        }
    }
}
