//! The thread that has Kafka's client: it signs records, sends them when they may leave, and hears what becomes of them.
//!
//! All of it is one thread's, so that the memory of a record's headers is given back where it was taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message as _, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use rdkafka::{ClientContext, Statistics};

use super::departures::Departures;
use super::signed::{self, Texts, Unsigned};
use super::{Beside, RelayConfig, RelayError};
use crate::authenticity::Keys;
use crate::canary;
use crate::kafka::KafkaConfig;
use crate::kafka_usage::{ClientUsage, KafkaUsage, STATISTICS_INTERVAL};
use crate::label::Label;
use crate::log::Entry;
use crate::loopback::{Lies, Loopback, LoopedBack};

/// The relay among the clients of Kafka.
const CLIENT: &str = "relay";
/// How long a record waits for others where all workers are in the relay's process, and so do not wait for it.
const LINGER_BESIDE_WORKERS: Duration = Duration::from_millis(20);
/// The setting of Kafka's client by which records wait for others.
const LINGER: &str = "linger.ms";
/// How long the client itself lets records wait at most, so that it takes the whole of a batch that it is just being given.
const CLIENT_LINGER_MAX: Duration = Duration::from_millis(1);
/// How often it is asked for acknowledgements while something is in flight, at least and at most.
const LISTEN_MIN: Duration = Duration::from_millis(1);
const LISTEN_MAX: Duration = Duration::from_millis(5);
/// How often the client is asked for its other news while there is nothing to do.
const IDLE: Duration = Duration::from_secs(1);

/// A record that is to be sent.
pub(super) struct Departing {
    /// The number of its partition.
    pub(super) slot: usize,
    pub(super) ticket: u64,
    pub(super) bytes: usize,
    pub(super) record: LoopedBack,
}

/// What became of what was sent.
pub(super) enum Delivery {
    /// Of a record: where Kafka has put it, if that is known.
    Record { ticket: u64, outcome: Result<Option<i64>, RelayError> },
    /// Of a canary.
    Canary(Result<(), RelayError>),
}

/// What the relay asks the thread for.
enum Asked {
    Send(Vec<Departing>),
    SendCanary(Label),
}

/// The relay's end of the thread, which ends with it. What is under way then is given up.
pub(super) struct Sender {
    asks: mpsc::Sender<Asked>,
    deliveries: Receiver<Vec<Delivery>>,
}

impl Sender {
    pub(super) fn start(
        config: &RelayConfig,
        era: i32,
        usage: &KafkaUsage,
        loopback: Loopback,
    ) -> Result<Sender, RelayError> {
        let kafka = config.kafka.clone();
        let linger = linger(&kafka).unwrap_or(default_linger(config.beside));
        let mut client = kafka.client_with([
            ("enable.idempotence", "true"),
            ("acks", "all"),
            // After a failure nothing overtakes: the producer stops, and the next one begins at the cursor.
            ("enable.gapless.guarantee", "true"),
            ("message.timeout.ms", "0"),
            // A topic that is gone shows after this long, and is made again.
            ("topic.metadata.propagation.max.ms", "5000"),
            ("topic.metadata.refresh.interval.ms", "5000"),
            ("compression.type", "lz4"),
            ("queue.buffering.max.messages", "100000"),
            ("message.max.bytes", "1000000"),
            ("partitioner", "murmur2_random"),
            STATISTICS_INTERVAL,
        ]);
        // Records have waited before the client is given them.
        client.set(LINGER, linger.min(CLIENT_LINGER_MAX).as_millis().to_string());
        let (arrives, arrived) = mpsc::channel();
        let producer = client.create_with_context(Context { usage: usage.of(CLIENT), arrives })?;
        let ((asks, asked), (delivers, deliveries)) = (mpsc::channel(), mpsc::channel());
        let sending = Sending {
            producer,
            asked,
            arrived,
            delivers,
            loopback,
            departures: Departures::new(linger),
            has_canary_in_flight: false,
            listens: (linger / 4).clamp(LISTEN_MIN, LISTEN_MAX),
            kafka,
            era,
            stalled_after: config.stalled_after,
            names: HashMap::new(),
            at: (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH.to_string()),
            texts: Texts::default(),
        };
        // A client that waits for an answer while it ends holds up this thread and nobody else.
        std::thread::spawn(move || sending.run());
        Ok(Sender { asks, deliveries })
    }

    /// Has the records sent, those of a partition in their order.
    pub(super) fn send(&self, departing: Vec<Departing>) {
        // The thread has ended only where something could not be sent, which its last delivery says.
        let _ = self.asks.send(Asked::Send(departing));
    }

    /// Has a canary sent.
    pub(super) fn send_canary(&self, label: Label) {
        // As above.
        let _ = self.asks.send(Asked::SendCanary(label));
    }

    /// What became of records since this was last asked. It does not wait.
    pub(super) fn deliveries(&self) -> impl Iterator<Item = Delivery> {
        self.deliveries.try_iter().flatten()
    }
}

/// How long records are to wait for others, unless settings say it.
fn default_linger(beside: Beside) -> Duration {
    match beside {
        Beside::ApiAndWorkers => LINGER_BESIDE_WORKERS,
        Beside::Nothing => Duration::ZERO,
    }
}

/// How long records are to wait for others by the settings that were given.
fn linger(kafka: &KafkaConfig) -> Option<Duration> {
    let given = kafka.settings.get(LINGER)?;
    Duration::try_from_secs_f64(given.parse::<f64>().ok()? / 1e3).ok()
}

/// What is in flight.
enum Sent {
    Record { slot: usize, ticket: u64, entry: Arc<Entry>, label: Label },
    Canary,
}

/// Where Kafka has put a record, if that is known.
type Outcome = Result<Option<i64>, KafkaError>;

/// What Kafka's client calls.
struct Context {
    usage: ClientUsage,
    arrives: mpsc::Sender<(Sent, Outcome)>,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        self.usage.report(&statistics);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let outcome = match result {
            // That of a record that was sent twice may not be known.
            Ok(message) => Ok(Some(message.offset()).filter(|offset| *offset >= 0)),
            Err((error, _)) => Err(error.clone()),
        };
        // Nobody hears it any more while the client ends.
        let _ = self.arrives.send((*sent, outcome));
    }
}

/// A record can't be sent, or was given up. Nothing is sent after that, so that nothing overtakes it.
struct Failed;

/// What the thread has: a producer that keeps order and repeats nothing by itself.
struct Sending {
    producer: BaseProducer<Context>,
    asked: Receiver<Asked>,
    arrived: Receiver<(Sent, Outcome)>,
    delivers: mpsc::Sender<Vec<Delivery>>,
    loopback: Loopback,
    departures: Departures<Departing>,
    has_canary_in_flight: bool,
    /// How long it is waited for acknowledgements before they are asked for.
    listens: Duration,
    kafka: KafkaConfig,
    era: i32,
    stalled_after: Duration,
    /// The names that topics have in Kafka.
    names: HashMap<String, Arc<str>>,
    /// When the events of the last segment happened, and the text of that.
    at: (Timestamp, String),
    texts: Texts,
}

impl Sending {
    /// Sends until the relay's end is dropped, or until something can't be sent.
    fn run(mut self) {
        while let Some(asked) = self.wait() {
            let (now, mut canary) = (Instant::now(), None);
            for asked in asked {
                match asked {
                    Asked::Send(departing) => {
                        for departing in departing {
                            self.departures.put(departing.slot, departing.bytes, departing, now);
                        }
                    }
                    Asked::SendCanary(label) => canary = Some(label),
                }
            }
            let mut sent = self.hear().and_then(|()| self.send_what_may_leave(now));
            if let Some(label) = canary {
                sent = sent.and_then(|()| self.send_canary(label));
            }
            if sent.is_err() {
                break;
            }
        }
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }

    /// Waits until something may be to be done. Answers what is asked for besides; nothing at the end.
    ///
    /// The client is not waited for: it would spend the last millisecond of every wait going round and round.
    fn wait(&self) -> Option<Vec<Asked>> {
        let next_at = self.departures.next_at();
        let mut wait = next_at.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
        if self.departures.is_any_in_flight() || self.has_canary_in_flight {
            wait = wait.min(self.listens);
        }
        let mut asked = Vec::new();
        if wait > self.departures.linger() {
            match self.asked.recv_timeout(wait) {
                Ok(first) => asked.push(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        } else {
            // What comes meanwhile leaves no sooner than after a wait of its own, so it need not wake this thread.
            std::thread::sleep(wait);
        }
        loop {
            match self.asked.try_recv() {
                Ok(more) => asked.push(more),
                Err(TryRecvError::Empty) => return Some(asked),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
    }

    /// Takes in what Kafka's client tells: the workers of this process hear where records lie, and the relay when it looks.
    fn hear(&mut self) -> Result<(), Failed> {
        let mut arrived = Vec::new();
        loop {
            self.producer.poll(Duration::ZERO);
            let known = arrived.len();
            arrived.extend(self.arrived.try_iter());
            if arrived.len() == known {
                break;
            }
        }
        if arrived.is_empty() {
            return Ok(());
        }
        let (mut places, mut deliveries) = (Vec::new(), Vec::with_capacity(arrived.len()));
        let mut heard = Ok(());
        for (sent, outcome) in arrived {
            if outcome.is_err() {
                heard = Err(Failed);
            }
            let outcome = outcome.map_err(RelayError::from);
            deliveries.push(match sent {
                Sent::Record { slot, ticket, entry, label } => {
                    self.departures.arrived(slot);
                    if let Ok(Some(offset)) = outcome {
                        places.push((entry, Lies { label, offset }));
                    }
                    Delivery::Record { ticket, outcome }
                }
                Sent::Canary => {
                    self.has_canary_in_flight = false;
                    Delivery::Canary(outcome.map(|_| ()))
                }
            });
        }
        self.loopback.acknowledged(&places);
        self.tell(deliveries);
        heard
    }

    fn send_what_may_leave(&mut self, now: Instant) -> Result<(), Failed> {
        while let Some(batch) = self.departures.leave(now) {
            // All of it is one partition's.
            let Some(first) = batch.first() else { continue };
            let topic = self.full_name(&first.record.entry.topic);
            let keys = self.kafka.keyring.keys();
            // The client is given all of them at once, so that it sends them together.
            let headers: Vec<_> =
                batch.iter().map(|departing| self.sign(&departing.record, &topic, &keys)).collect();
            for (departing, headers) in batch.into_iter().zip(headers) {
                let ticket = departing.ticket;
                if let Err(error) = headers.and_then(|headers| self.send(departing, &topic, headers)) {
                    self.tell(vec![Delivery::Record { ticket, outcome: Err(error) }]);
                    return Err(Failed);
                }
            }
        }
        Ok(())
    }

    fn send_canary(&mut self, label: Label) -> Result<(), Failed> {
        let topic = self.full_name(canary::TOPIC);
        let keys = self.kafka.keyring.keys();
        let sent = keys.signing(self.era).map_err(RelayError::from).and_then(|key| {
            let record: BaseRecord<'_, (), (), _> =
                BaseRecord::with_opaque_to(&topic, Box::new(Sent::Canary));
            let record = record.partition(canary::PARTITION).headers(canary::signed(&topic, label, key));
            self.producer.send(record).map_err(|(error, _)| error.into())
        });
        self.has_canary_in_flight = sent.is_ok();
        sent.map_err(|error| {
            self.tell(vec![Delivery::Canary(Err(error))]);
            Failed
        })
    }

    fn tell(&self, deliveries: Vec<Delivery>) {
        // The relay does not lead any more where nobody hears it; the next wait ends with that.
        let _ = self.delivers.send(deliveries);
    }

    /// The name that a topic has in Kafka.
    fn full_name(&mut self, topic: &str) -> Arc<str> {
        if let Some(name) = self.names.get(topic) {
            return name.clone();
        }
        let name: Arc<str> = self.kafka.full_name(topic).into();
        self.names.insert(topic.to_owned(), name.clone());
        name
    }

    fn sign(&mut self, record: &LoopedBack, topic: &str, keys: &Keys) -> Result<OwnedHeaders, RelayError> {
        let LoopedBack { entry, at, label, previous } = record;
        if self.at.0 != *at {
            self.at = (*at, at.to_string());
        }
        let mut text = [0_u8; 36];
        let unsigned = Unsigned {
            topic,
            key: entry.kafka_key(&mut text),
            entry,
            at: &self.at.1,
            label: *label,
            previous: Some(*previous).filter(|previous| *previous != Label::START),
        };
        Ok(signed::headers(&mut self.texts, &unsigned, keys.signing(self.era)?))
    }

    fn send(&self, departing: Departing, topic: &str, headers: OwnedHeaders) -> Result<(), RelayError> {
        let Departing { slot, ticket, record: LoopedBack { entry, label, .. }, .. } = departing;
        let mut text = [0_u8; 36];
        let sent = Sent::Record { slot, ticket, entry: entry.clone(), label };
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(sent))
            .partition(i32::from(entry.partition))
            .key(entry.kafka_key(&mut text))
            .payload(entry.data.as_slice())
            .headers(headers);
        let began = Instant::now();
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                // The same record again, once there is room, so that none overtakes it.
                Err((error, refused))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
                        && began.elapsed() < self.stalled_after =>
                {
                    record = refused;
                    std::thread::sleep(LISTEN_MIN);
                    self.producer.poll(Duration::ZERO);
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}
