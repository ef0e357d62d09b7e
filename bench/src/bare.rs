//! Kafka by itself: its client with nothing of ours around it, on the broker under measurement.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ordermill_pipeline::kafka::KafkaConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::latency::{Latencies, Percentiles};

/// How long the broker may take for anything.
const WITHIN: Duration = Duration::from_secs(60);
/// What a record of the round trip carries, in bytes.
const ROUND_TRIP_BYTES: usize = 1_000;
/// Round trips that are not measured.
const WARM_UP: usize = 200;

/// Makes a topic.
///
/// # Errors
/// Where Kafka does not.
pub(crate) async fn make_topic(kafka: &KafkaConfig, topic: &str, partitions: i16) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = kafka.client().create()?;
    let new = NewTopic::new(topic, i32::from(partitions), TopicReplication::Fixed(-1));
    let made = admin.create_topics([&new], &AdminOptions::new().operation_timeout(Some(WITHIN))).await?;
    for result in made {
        result.map_err(|(topic, code)| anyhow::anyhow!("Kafka did not make the topic {topic}: {code}"))?;
    }
    Ok(())
}

/// Reads topics from outside of every group.
pub(crate) struct Reader {
    consumer: BaseConsumer,
    /// The partitions of all topics.
    partitions: Vec<(String, i32)>,
}

impl Reader {
    /// Of so many partitions of each topic, by full name.
    ///
    /// # Errors
    /// Where the client can't be made.
    pub(crate) fn new(kafka: &KafkaConfig, topics: &[String], partitions: i16) -> Result<Reader> {
        let consumer = kafka
            .client()
            .set("group.id", kafka.full_name("bench"))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()?;
        let of =
            |topic: &String| (0..partitions).map(move |n| (topic.clone(), i32::from(n))).collect::<Vec<_>>();
        Ok(Reader { consumer, partitions: topics.iter().flat_map(of).collect() })
    }

    /// How many records there are.
    ///
    /// # Errors
    /// Where Kafka does not answer.
    pub(crate) fn count(&self) -> Result<u64> {
        let mut count = 0;
        for (topic, partition) in &self.partitions {
            let (low, high) = self.consumer.fetch_watermarks(topic, *partition, WITHIN)?;
            count += u64::try_from(high - low)?;
        }
        Ok(count)
    }

    /// The first `count` records as they lie there, headers and all.
    ///
    /// # Errors
    /// Where they are not there in time.
    pub(crate) fn read(&self, count: u64) -> Result<Vec<OwnedMessage>> {
        self.assign(Offset::Beginning)?;
        let (started, mut records) = (Instant::now(), Vec::new());
        while (records.len() as u64) < count {
            if started.elapsed() > WITHIN {
                bail!("of {count} records only {} can be read", records.len());
            }
            if let Some(message) = self.consumer.poll(Duration::from_secs(1)) {
                records.push(message?.detach());
            }
        }
        self.consumer.unassign()?;
        Ok(records)
    }

    fn assign(&self, offset: Offset) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in &self.partitions {
            list.add_partition_offset(topic, *partition, offset)?;
        }
        Ok(self.consumer.assign(&list)?)
    }
}

/// A producer that keeps what ours keeps, and is otherwise as librdkafka makes it.
fn producer(kafka: &KafkaConfig, linger_ms: &str) -> Result<BaseProducer> {
    let mut config = kafka.client();
    config.set("enable.idempotence", "true").set("acks", "all").set("compression.type", "lz4");
    config.set("linger.ms", linger_ms);
    Ok(config.create()?)
}

/// Sends the same records to the same partitions of another topic, and answers how many a second were acknowledged. The
/// first one is sent before the time begins, so that the client is connected.
///
/// # Errors
/// Where Kafka does not take them all.
pub(crate) fn produce(
    kafka: &KafkaConfig,
    topic: &str,
    records: Vec<OwnedMessage>,
    partitions: i16,
) -> Result<f64> {
    // librdkafka's own.
    let producer = producer(kafka, "5")?;
    let count = records.len();
    // What the client takes over is made ready before the time begins.
    let headers: Vec<_> = records.iter().map(|record| record.headers().cloned()).collect();
    let mut started = Instant::now();
    for (number, (record, headers)) in records.iter().zip(headers).enumerate() {
        let mut next = BaseRecord::<[u8], [u8]>::to(topic).partition(record.partition());
        next.key = record.key();
        next.payload = record.payload();
        next.headers = headers;
        send(&producer, next)?;
        if number == 0 {
            producer.flush(WITHIN)?;
            started = Instant::now();
        }
    }
    producer.flush(WITHIN)?;
    let took = started.elapsed().as_secs_f64();
    let arrived = Reader::new(kafka, &[topic.to_owned()], partitions)?.count()?;
    if arrived != count as u64 {
        bail!("of {count} records {arrived} arrived");
    }
    Ok(count.saturating_sub(1) as f64 / took.max(f64::EPSILON))
}

/// Hands a record over, once the client has room for it.
fn send(producer: &BaseProducer, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<()> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error).context("Kafka does not take a record"),
        }
    }
}

/// Sends records one after the other, each when the one before has come back.
///
/// # Errors
/// Where one does not come back.
pub(crate) fn round_trips(kafka: &KafkaConfig, topic: &str, count: usize) -> Result<Percentiles> {
    let producer = producer(kafka, "0")?;
    let reader = Reader::new(kafka, &[topic.to_owned()], 1)?;
    reader.assign(Offset::Beginning)?;
    let payload = [b'x'; ROUND_TRIP_BYTES];
    let mut latencies = Latencies::new()?;
    for number in 0..WARM_UP + count {
        let sent = Instant::now();
        send(&producer, BaseRecord::to(topic).partition(0).payload(&payload[..]))?;
        let message = reader.consumer.poll(WITHIN).context("a record did not come back")??;
        if message.offset() != i64::try_from(number)? {
            bail!("record {number} came back as {}", message.offset());
        }
        if number >= WARM_UP {
            latencies.record(sent.elapsed());
        }
        producer.poll(Duration::ZERO);
    }
    Ok(latencies.percentiles())
}
