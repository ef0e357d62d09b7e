//! What unit tests share.

use uuid::Uuid;

use crate::authenticity::RootSecret;
use crate::kafka::KafkaConfig;
use crate::log::Entry;
use crate::trace::TraceContext;

/// An entry of a topic's partition, with so many bytes.
pub(crate) fn entry(topic: &str, partition: i16, bytes: usize) -> Entry {
    Entry {
        event_id: Uuid::from_u128(1),
        topic: topic.to_owned(),
        partition,
        key: Uuid::from_u128(2),
        record_key: None,
        aggregate_id: Uuid::from_u128(3),
        sequence: 7,
        event_type: "cup.filled".to_owned(),
        version: 2,
        correlation_id: Some(Uuid::from_u128(4)),
        cause_id: None,
        actor: "admin".to_owned(),
        request: None,
        trace: TraceContext::new_root(),
        data: vec![b' '; bytes],
        headers: None,
        event: None,
    }
}

/// A Kafka that is nowhere.
pub(crate) fn kafka(prefix: &str) -> KafkaConfig {
    KafkaConfig::new("127.0.0.1:1", prefix, RootSecret::generate().unwrap().into())
}
