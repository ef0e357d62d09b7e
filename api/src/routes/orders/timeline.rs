//! An order's timeline as a client sees it.

use jiff::Timestamp;
use ordermill_pipeline::log::RecordPlace;
use ordermill_store::timeline::TimelineRow;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// The whole story of one order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Timeline {
    /// What happened, oldest first.
    pub(crate) items: Vec<EventView>,
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TimelineEvent)]
pub(crate) struct EventView {
    /// The ordinal on this timeline, from 1.
    #[schema(example = 1)]
    sequence: u32,
    /// What happened.
    #[schema(example = "order.placed")]
    r#type: String,
    /// When.
    at: Timestamp,
    /// Who did it: `user:<id>`, `admin`, `worker:<group>`.
    #[schema(example = "worker:stock")]
    actor: String,
    /// The event's payload, as its JSON Schema says.
    #[schema(value_type = Object)]
    data: Value,
    /// The place in the log.
    #[schema(example = 4711)]
    log_position: i64,
    /// Where it lay in Kafka; known once a worker has acted upon it.
    #[schema(required = true)]
    kafka: Option<KafkaPlace>,
    /// The event.
    event_id: Uuid,
    /// The event that caused it, where one did.
    #[schema(required = true)]
    cause_id: Option<Uuid>,
}

/// A place in Kafka.
#[derive(Debug, Serialize, ToSchema)]
struct KafkaPlace {
    /// The topic, without the installation's prefix.
    #[schema(example = "orders")]
    topic: String,
    /// The partition.
    #[schema(example = 3)]
    partition: i16,
    /// The offset.
    #[schema(example = 128)]
    offset: i64,
}

impl From<RecordPlace> for KafkaPlace {
    fn from(place: RecordPlace) -> KafkaPlace {
        KafkaPlace { topic: place.topic, partition: place.partition, offset: place.offset }
    }
}

impl EventView {
    pub(crate) fn of(sequence: u32, row: TimelineRow) -> EventView {
        // Only a dead letter's payload can be something else than JSON; then its text has to do.
        let data = serde_json::from_slice(&row.data)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&row.data).into_owned()));
        EventView {
            sequence,
            r#type: row.event_type,
            at: row.at,
            actor: row.actor,
            data,
            log_position: row.log_position,
            kafka: row.kafka.map(KafkaPlace::from),
            event_id: row.event_id,
            cause_id: row.cause_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_has_the_members_of_the_contract() {
        let row = TimelineRow {
            event_id: Uuid::nil(),
            event_type: "order.placed".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            actor: "admin".to_owned(),
            data: br#"{"a":1}"#.to_vec(),
            log_position: 7,
            cause_id: None,
            kafka: Some(RecordPlace { topic: "orders".to_owned(), partition: 3, offset: 9 }),
        };
        let expected = json!({
            "sequence": 1,
            "type": "order.placed",
            "at": "1970-01-01T00:00:00Z",
            "actor": "admin",
            "data": {"a": 1},
            "log_position": 7,
            "kafka": {"topic": "orders", "partition": 3, "offset": 9},
            "event_id": Uuid::nil(),
            "cause_id": null,
        });
        assert_eq!(serde_json::to_value(EventView::of(1, row)).unwrap(), expected);
    }
}
