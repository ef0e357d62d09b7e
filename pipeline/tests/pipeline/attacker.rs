//! Somebody who can write to Kafka and read from it, and has no key.

use std::time::{Duration, Instant};

use ordermill_pipeline::authenticity::{Covered, Key};
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_schemas::headers::{self, COVERED};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use crate::support::{DEADLINE, Log, PARTITIONS};

/// A record as it lies in Kafka, with every byte.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captured {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Captured {
    /// Any record, for that partition.
    pub(crate) fn junk(partition: i32) -> Captured {
        let payload = Some(Uuid::new_v4().to_string().into_bytes());
        Captured { partition, payload, ..Captured::default() }
    }

    /// The same with a header of that value, in the place of the one that it may have.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Captured {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same without a header.
    pub(crate) fn without(mut self, name: &str) -> Captured {
        self.headers.retain(|(of, _)| of != name);
        self
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> &str {
        let (_, value) = self.headers.iter().find(|(of, _)| of == name).unwrap();
        std::str::from_utf8(value).unwrap()
    }
}

/// Writes to the topics of an installation.
pub(crate) struct Attacker {
    kafka: KafkaConfig,
    producer: BaseProducer,
}

impl Attacker {
    pub(crate) fn of(log: &Log) -> Attacker {
        Attacker { kafka: log.kafka.clone(), producer: log.kafka.client().create().unwrap() }
    }

    /// Sends records to a topic and waits until Kafka has them.
    pub(crate) fn send(&self, topic: &str, records: &[Captured]) {
        send(&self.producer, &self.kafka.full_name(topic), records);
        self.producer.flush(DEADLINE).unwrap();
        assert_eq!(self.producer.in_flight_count(), 0);
    }

    /// Every record of a topic.
    pub(crate) async fn capture(&self, topic: &str) -> Vec<Captured> {
        self.capture_of(topic, i32::from(PARTITIONS)).await
    }

    /// Every record of a topic that has so many partitions.
    pub(crate) async fn capture_of(&self, topic: &str, partitions: i32) -> Vec<Captured> {
        let (kafka, topic) = (self.kafka.clone(), self.kafka.full_name(topic));
        tokio::task::spawn_blocking(move || capture(&kafka, &topic, partitions)).await.unwrap()
    }
}

fn send(producer: &BaseProducer, topic: &str, records: &[Captured]) {
    for Captured { partition, key, payload, headers } in records {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(*partition).headers(headers);
        record.key = key.as_deref();
        record.payload = payload.as_deref();
        producer.send(record).unwrap();
    }
}

/// Reads a topic up to where nothing has come for a while.
fn capture(kafka: &KafkaConfig, topic: &str, partitions: i32) -> Vec<Captured> {
    const QUIET: Duration = Duration::from_secs(1);
    let mut config = kafka.client();
    config.set("group.id", "attacker").set("isolation.level", "read_uncommitted");
    let consumer: BaseConsumer = config.set("enable.auto.commit", "false").create().unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let (mut records, mut last_at) = (Vec::new(), Instant::now());
    let started = last_at;
    while last_at.elapsed() < QUIET || (records.is_empty() && started.elapsed() < DEADLINE) {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        last_at = Instant::now();
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        records.push(Captured {
            partition: message.partition(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers: headers
                .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                .collect(),
        });
    }
    records
}

/// A record that looks like the relay's, but for what it can't have: `available` for a key, under a label.
pub(crate) fn forged(partition: i32, key: Uuid, available: i64, label: &str, previous: &str) -> Captured {
    let payload = format!(r#"{{"user_id":"{key}","amount":1,"available":{available},"held":1}}"#);
    let record = Captured {
        partition,
        key: Some(key.to_string().into_bytes()),
        payload: Some(payload.into_bytes()),
        headers: Vec::new(),
    };
    let record = record
        .with(headers::ID, &Uuid::new_v4().to_string())
        .with(headers::TYPE, "balance.charged")
        .with(headers::SOURCE, "/ordermill/balances")
        .with(headers::SPEC_VERSION, "1.0")
        .with(headers::TIME, "2026-01-01T00:00:00Z")
        .with(headers::SUBJECT, &key.to_string())
        .with(headers::DATA_SCHEMA, "urn:ordermill:schema:balance.charged:1")
        .with(headers::SEQUENCE, "1")
        .with(headers::ACTOR, "admin")
        .with(headers::TRACEPARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .with(headers::KEY, "1-1-0123456789abcdef")
        .with(headers::MAC, "00112233445566778899aabbccddeeff")
        .with(headers::LABEL, label);
    if previous.is_empty() { record } else { record.with(headers::PREVIOUS, previous) }
}

/// The same record, signed by somebody who has the key.
pub(crate) fn signed(log: &Log, record: Captured, key: &Key) -> Captured {
    let record = record.with(headers::KEY, key.id().as_str());
    let topic = log.kafka.full_name("balances");
    let value =
        |name: &str| record.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_slice());
    let mac = key.sign(&Covered {
        topic: &topic,
        partition: record.partition,
        key: record.key.as_deref(),
        payload: record.payload.as_deref(),
        headers: COVERED.map(value),
    });
    let mac = std::str::from_utf8(mac.as_bytes()).unwrap().to_owned();
    record.with(headers::MAC, &mac)
}
