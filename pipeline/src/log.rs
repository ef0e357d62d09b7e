//! The event log: the append-only table that is the event store and the outbox.
//!
//! Architecture Invariant: whoever appends has locked what the entries are about first. The position is
//! drawn by the insert, so under the lock, and positions of one key are in the order of its changes.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_schemas::Event;
use uuid::Uuid;

use crate::journal::statement::{Shortfall, Statement};
use crate::partition::partition_of;
use crate::trace::TraceContext;
use crate::words::Words;

/// The event that caused another, and where it lay in Kafka when a worker met it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The event's id.
    pub event_id: Uuid,
    /// Where it was met; absent where it was not met in Kafka.
    pub met_at: Option<RecordPlace>,
}

/// A place in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// The topic, without prefix.
    pub topic: String,
    /// The partition.
    pub partition: i16,
    /// The offset.
    pub offset: i64,
}

/// The HTTP request that wrote an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRef {
    /// The request's id.
    pub id: Uuid,
    /// The key under which it may be repeated, where it has one.
    pub idempotency_key: Option<String>,
}

/// A row of the log that is about to be appended.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The event's id, unique for good.
    pub event_id: Uuid,
    /// The topic, without prefix.
    pub topic: String,
    /// The partition.
    pub partition: i16,
    /// The key.
    pub key: Uuid,
    /// The Kafka key where it is not the text of `key`.
    pub record_key: Option<Vec<u8>>,
    /// What the event happened to.
    pub aggregate_id: Uuid,
    /// The ordinal in the aggregate's history on this topic, from 1.
    pub sequence: i32,
    /// The event's type.
    pub event_type: String,
    /// The version of the payload's schema.
    pub version: i16,
    /// What the event belongs to: the timeline that it shows on.
    pub correlation_id: Option<Uuid>,
    /// What caused it.
    pub cause: Option<Cause>,
    /// Who caused it.
    pub actor: String,
    /// The request that wrote it, where one did.
    pub request: Option<RequestRef>,
    /// The span that it happened in.
    pub trace: TraceContext,
    /// The payload.
    pub data: Vec<u8>,
    /// Further Kafka headers: an array of `{name, value}`.
    pub headers: Option<serde_json::Value>,
}

impl Entry {
    /// The entry for an event.
    ///
    /// # Errors
    /// None in practice, see [`Event::encode`].
    pub fn of_event(
        event_id: Uuid,
        event: &Event,
        sequence: i32,
        origin: Origin,
        partitions: i16,
    ) -> Result<Entry, serde_json::Error> {
        let key = event.key();
        Ok(Entry {
            event_id,
            topic: event.topic().name().to_owned(),
            partition: partition_of(key, partitions),
            key,
            record_key: None,
            aggregate_id: event.aggregate_id(),
            sequence,
            event_type: event.name().to_owned(),
            version: event.version(),
            correlation_id: event.order_id(),
            cause: origin.cause,
            actor: origin.actor,
            request: origin.request,
            trace: origin.trace,
            data: event.encode()?,
            headers: None,
        })
    }
}

/// Where an event comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// What caused it.
    pub cause: Option<Cause>,
    /// Who caused it.
    pub actor: String,
    /// The request that writes it, where one does.
    pub request: Option<RequestRef>,
    /// The span that it happens in.
    pub trace: TraceContext,
}

/// The parts of an actor: a word, and the id of a user where that stands as it will be shown.
fn actor_of(actor: &str) -> (&str, Option<Uuid>) {
    let user = actor.split_once(':').and_then(|(word, text)| {
        let id = text.parse::<Uuid>().ok().filter(|id| id.to_string() == text)?;
        Some((word, Some(id)))
    });
    user.unwrap_or((actor, None))
}

/// The words of entries.
pub(crate) fn words(entries: &[Entry]) -> impl Iterator<Item = &str> {
    entries.iter().flat_map(|entry| {
        let met = entry.cause.as_ref().and_then(|cause| cause.met_at.as_ref());
        [entry.topic.as_str(), entry.event_type.as_str(), actor_of(&entry.actor).0]
            .into_iter()
            .chain(met.map(|place| place.topic.as_str()))
    })
}

/// Adds entries to a statement that is being put together, in their order. Their words must be known.
pub(crate) fn add(statement: &mut Statement, known: &Words, entries: &[Entry], at: Timestamp) {
    if entries.is_empty() {
        return;
    }
    let code = |word: &str| known.code(word).unwrap_or_default();
    let cause = |entry: &Entry| entry.cause.as_ref().map(|cause| cause.event_id);
    let met = |entry: &Entry| entry.cause.as_ref().and_then(|cause| cause.met_at.clone());
    let request = |entry: &Entry| entry.request.clone();
    let rows = statement
        .rows(entries)
        .column("event_id", "uuid", |e| e.event_id)
        .column("aggregate_id", "uuid", |e| e.aggregate_id)
        .column("sequence", "integer", |e| e.sequence)
        .column("topic", "smallint", |e| code(&e.topic))
        .column("type", "smallint", |e| code(&e.event_type))
        .column("version", "smallint", |e| e.version)
        .column("partition", "smallint", |e| e.partition)
        .column("key", "uuid", |e| (e.key != e.aggregate_id).then_some(e.key))
        .column("correlation_id", "uuid", |e| e.correlation_id)
        .column("cause_id", "uuid", cause)
        .column("cause_topic", "smallint", |e| met(e).map(|place| code(&place.topic)))
        .column("cause_partition", "smallint", |e| met(e).map(|place| place.partition))
        .column("cause_offset", "bigint", |e| met(e).map(|place| place.offset))
        .column("actor", "smallint", |e| code(actor_of(&e.actor).0))
        .column("actor_id", "uuid", |e| actor_of(&e.actor).1)
        .column("request_id", "uuid", |e| request(e).map(|request| request.id))
        .column("idempotency_key", "text", |e| request(e).and_then(|request| request.idempotency_key))
        .column("trace", "bytea", |e| e.trace.to_bytes().to_vec())
        .column("data", "bytea", |e| e.data.as_slice())
        .column("record_key", "bytea", |e| e.record_key.as_deref())
        .column("headers", "jsonb", |e| e.headers.as_ref())
        .relation("entry");
    let at = statement.bind(at.to_sqlx());
    let condition = statement.logged_where.map_or_else(String::new, |condition| format!("WHERE {condition}"));
    statement.must(
        "logged",
        format!(
            "INSERT INTO log_entry (event_id, aggregate_id, sequence, topic, type, version, partition, key,
                 correlation_id, cause_id, cause_topic, cause_partition, cause_offset, actor, actor_id, request_id,
                 idempotency_key, trace, data, record_key, headers, at)
             SELECT event_id, aggregate_id, sequence, topic, type, version, partition, key,
                 correlation_id, cause_id, cause_topic, cause_partition, cause_offset, actor, actor_id, request_id,
                 idempotency_key, trace, data, record_key, headers, {at}
             FROM {rows} {condition} ORDER BY ordinal RETURNING 1"
        ),
        entries.len(),
        Shortfall::Conflict,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_word_and_an_id_and_everybody_else_a_word() {
        let id = Uuid::from_u128(7);
        assert_eq!(actor_of(&format!("user:{id}")), ("user", Some(id)));
        let (without_hyphens, in_capitals) =
            (format!("user:{}", id.simple()), format!("user:{}", Uuid::max()).to_uppercase());
        for actor in ["admin", "worker:orders", "gateway", "user:", &without_hyphens, &in_capitals] {
            assert_eq!(actor_of(actor), (actor, None));
        }
    }
}
