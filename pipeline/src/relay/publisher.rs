//! Events of the log as Kafka records.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use rdkafka::{ClientContext, Statistics};

use super::core::{Outgoing, Publication, Segment};
use super::signed::{self, Texts, Unsigned};
use super::{RelayConfig, RelayError};
use crate::authenticity::Key;
use crate::kafka::KafkaConfig;
use crate::kafka_usage::{ClientUsage, KafkaUsage, STATISTICS_INTERVAL};
use crate::label::Label;
use crate::log::{Appended, Entry};
use crate::loopback::{Lies, Loopback, LoopedBack};

/// The relay among the clients of Kafka.
const CLIENT: &str = "relay";
/// How often the thread that hears acknowledgements looks whether it is still needed.
const POLL: Duration = Duration::from_secs(1);
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

/// A record that is under way.
struct Sent {
    ticket: u64,
    entry: Arc<Entry>,
    label: Label,
}

/// Hears what Kafka acknowledges: the workers of this process are told where it lies, and the relay takes it when it looks.
struct Deliveries {
    usage: ClientUsage,
    loopback: Loopback,
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
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let Sent { ticket, entry, label } = *sent;
        let outcome = match result {
            // That of a record that was sent twice may not be known.
            Ok(message) => Ok(Some(message.offset()).filter(|offset| *offset >= 0)),
            Err((error, _)) => Err(error.clone()),
        };
        if let Ok(Some(offset)) = outcome {
            self.loopback.acknowledged(&entry, Lies { label, offset });
        }
        self.told().push(Delivery { ticket, outcome });
    }
}

/// A producer that keeps order and repeats nothing by itself, and a thread that hears what is acknowledged.
pub(super) struct Publisher {
    /// There until it is dropped.
    producer: Option<Arc<BaseProducer<Deliveries>>>,
    loopback: Loopback,
    /// The thread is to end.
    is_dropped: Arc<AtomicBool>,
    kafka: KafkaConfig,
    era: i32,
    stalled_after: Duration,
    /// The names that topics have in Kafka.
    names: HashMap<String, String>,
    texts: Texts,
}

impl Publisher {
    pub(super) fn new(
        config: &RelayConfig,
        era: i32,
        usage: &KafkaUsage,
        loopback: Loopback,
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
            // What is handed over while a request is put together or under way goes with the next one anyway.
            ("linger.ms", &config.linger.as_millis().to_string()),
            ("compression.type", "lz4"),
            ("queue.buffering.max.messages", "100000"),
            ("message.max.bytes", "1000000"),
            ("partitioner", "murmur2_random"),
            STATISTICS_INTERVAL,
        ]);
        let deliveries =
            Deliveries { usage: usage.of(CLIENT), loopback: loopback.clone(), told: Mutex::default() };
        let producer: Arc<BaseProducer<Deliveries>> = Arc::new(client.create_with_context(deliveries)?);
        let is_dropped = Arc::new(AtomicBool::new(false));
        {
            // A client that waits for an answer while it ends holds up this thread and nobody else.
            let (producer, is_dropped) = (producer.clone(), is_dropped.clone());
            std::thread::spawn(move || {
                while !is_dropped.load(Ordering::Relaxed) {
                    producer.poll(POLL);
                }
            });
        }
        Ok(Publisher {
            producer: Some(producer),
            loopback,
            is_dropped,
            kafka: kafka.clone(),
            era,
            stalled_after: config.stalled_after,
            names: HashMap::new(),
            texts: Texts::default(),
        })
    }

    fn producer(&self) -> Result<&BaseProducer<Deliveries>, KafkaError> {
        self.producer.as_deref().ok_or(KafkaError::Canceled)
    }

    /// What became of records since this was last asked. It does not wait.
    pub(super) fn deliveries(&self) -> Vec<Delivery> {
        self.producer().map_or(Vec::new(), |producer| std::mem::take(&mut producer.context().told()))
    }

    /// Hands the records over, in their order.
    pub(super) async fn publish(&mut self, publication: Publication<Appended>) -> Result<(), RelayError> {
        let Publication { segment: Appended { at, entries, .. }, records } = publication;
        let at_text = at.to_string();
        let keys = self.kafka.keyring.keys();
        let key = keys.signing(self.era)?;
        // In the order of the entries; some may be left out.
        let mut records = records.into_iter().peekable();
        let mut handed_over = Vec::with_capacity(records.len());
        for (index, entry) in entries.into_iter().enumerate() {
            if let Some(outgoing) = records.next_if(|record| record.index == index) {
                handed_over.push(self.hand_over(entry, (at, &at_text), outgoing, key).await?);
            }
        }
        // Where one could not be handed over, the relay begins at its cursor, and hands over all of them again.
        self.loopback.handed_over(&handed_over);
        Ok(())
    }

    async fn hand_over(
        &mut self,
        entry: Entry,
        (at, at_text): (Timestamp, &str),
        outgoing: Outgoing,
        signing: &Key,
    ) -> Result<LoopedBack, RelayError> {
        let entry = Arc::new(entry);
        if !self.names.contains_key(&entry.topic) {
            self.names.insert(entry.topic.clone(), self.kafka.full_name(&entry.topic));
        }
        let name = self.names.get(&entry.topic).map_or("", String::as_str);
        let mut text = [0_u8; 36];
        let key: &[u8] = match &entry.record_key {
            Some(key) => key,
            None => entry.key.hyphenated().encode_lower(&mut text).as_bytes(),
        };
        let label_at = |position| Label { era: self.era, position };
        let label = label_at(outgoing.position);
        let previous = (outgoing.previous > 0).then(|| label_at(outgoing.previous));
        let unsigned = Unsigned { topic: name, key, entry: &entry, at: at_text, label, previous };
        let headers = signed::headers(&mut self.texts, &unsigned, signing);
        let sent = Sent { ticket: outgoing.ticket, entry: entry.clone(), label };
        let mut record = BaseRecord::with_opaque_to(name, Box::new(sent))
            .partition(i32::from(entry.partition))
            .key(key)
            .payload(entry.data.as_slice())
            .headers(headers);
        let began = Instant::now();
        loop {
            match self.producer()?.send(record) {
                Ok(()) => break,
                // It waits for room and sends the same record, so that none overtakes it.
                Err((error, refused))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
                        && began.elapsed() < self.stalled_after =>
                {
                    record = refused;
                    tokio::time::sleep(ROOM_PAUSE).await;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
        let previous = previous.unwrap_or(Label::START);
        Ok(LoopedBack { entry, at, label, previous })
    }
}

impl Drop for Publisher {
    /// What is under way is given up. The thread is the last that has the client, so that nobody else waits while it ends.
    fn drop(&mut self) {
        if let Some(producer) = self.producer.take() {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
        self.is_dropped.store(true, Ordering::Relaxed);
    }
}
