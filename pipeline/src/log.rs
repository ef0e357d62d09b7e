//! The event log: the append-only table that is the event store and the outbox.
//!
//! Architecture Invariant: whoever appends has locked what the entries are about first. The position is
//! drawn by the insert, so under the lock, and positions of one key are in the order of its changes.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_schemas::Event;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::partition::partition_of;
use crate::trace::TraceContext;

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

/// The entries as columns, the form in which a set-based statement takes them.
#[derive(Debug, Default)]
pub struct Columns {
    /// Event ids.
    pub event_ids: Vec<Uuid>,
    /// Topics.
    pub topics: Vec<String>,
    /// Partitions.
    pub partitions: Vec<i16>,
    /// Keys.
    pub keys: Vec<Uuid>,
    /// Kafka keys that are not the text of the key.
    pub record_keys: Vec<Option<Vec<u8>>>,
    /// Aggregates.
    pub aggregate_ids: Vec<Uuid>,
    /// Ordinals.
    pub sequences: Vec<i32>,
    /// Types.
    pub types: Vec<String>,
    /// Schema versions.
    pub versions: Vec<i16>,
    /// Timelines.
    pub correlation_ids: Vec<Option<Uuid>>,
    /// Causes.
    pub cause_ids: Vec<Option<Uuid>>,
    /// Where the causes were met.
    pub cause_topics: Vec<Option<String>>,
    /// Where the causes were met.
    pub cause_partitions: Vec<Option<i16>>,
    /// Where the causes were met.
    pub cause_offsets: Vec<Option<i64>>,
    /// Actors.
    pub actors: Vec<String>,
    /// Requests.
    pub request_ids: Vec<Option<Uuid>>,
    /// The keys of requests.
    pub idempotency_keys: Vec<Option<String>>,
    /// Spans.
    pub traceparents: Vec<String>,
    /// Payloads.
    pub data: Vec<Vec<u8>>,
    /// Further headers.
    pub headers: Vec<Option<serde_json::Value>>,
}

impl FromIterator<Entry> for Columns {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Columns {
        let mut columns = Columns::default();
        for entry in entries {
            columns.push(entry);
        }
        columns
    }
}

impl Columns {
    fn push(&mut self, entry: Entry) {
        let (cause_id, met_at) = entry.cause.map_or((None, None), |c| (Some(c.event_id), c.met_at));
        self.event_ids.push(entry.event_id);
        self.topics.push(entry.topic);
        self.partitions.push(entry.partition);
        self.keys.push(entry.key);
        self.record_keys.push(entry.record_key);
        self.aggregate_ids.push(entry.aggregate_id);
        self.sequences.push(entry.sequence);
        self.types.push(entry.event_type);
        self.versions.push(entry.version);
        self.correlation_ids.push(entry.correlation_id);
        self.cause_ids.push(cause_id);
        self.cause_partitions.push(met_at.as_ref().map(|place| place.partition));
        self.cause_offsets.push(met_at.as_ref().map(|place| place.offset));
        self.cause_topics.push(met_at.map(|place| place.topic));
        self.actors.push(entry.actor);
        let (request_id, key) = entry.request.map_or((None, None), |r| (Some(r.id), r.idempotency_key));
        self.request_ids.push(request_id);
        self.idempotency_keys.push(key);
        self.traceparents.push(entry.trace.to_string());
        self.data.push(entry.data);
        self.headers.push(entry.headers);
    }
}

/// Appends entries in their order, all in one statement.
///
/// # Errors
/// Where the database fails, or an aggregate already has an event of the same ordinal.
pub async fn append(
    connection: &mut PgConnection,
    entries: Vec<Entry>,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    if entries.is_empty() {
        return Ok(());
    }
    let columns: Columns = entries.into_iter().collect();
    sqlx::query!(
        "INSERT INTO event_log (event_id, topic, partition, key, record_key, aggregate_id, sequence, type,
             version, correlation_id, cause_id, cause_topic, cause_partition, cause_offset, actor,
             request_id, idempotency_key, traceparent, data, headers, at)
         SELECT event_id, topic, partition, key, record_key, aggregate_id, sequence, type,
             version, correlation_id, cause_id, cause_topic, cause_partition, cause_offset, actor,
             request_id, idempotency_key, traceparent, data, headers, $19
         FROM unnest($1::uuid[], $2::text[], $3::smallint[], $4::uuid[], $5::bytea[], $6::uuid[],
             $7::int[], $8::text[], $9::smallint[], $10::uuid[], $11::uuid[], $12::text[],
             $13::smallint[], $14::bigint[], $15::text[], $16::text[], $17::bytea[], $18::jsonb[],
             $20::uuid[], $21::text[])
             WITH ORDINALITY AS entry (event_id, topic, partition, key, record_key, aggregate_id, sequence,
                 type, version, correlation_id, cause_id, cause_topic, cause_partition, cause_offset,
                 actor, traceparent, data, headers, request_id, idempotency_key, ordinal)
         ORDER BY ordinal",
        &columns.event_ids,
        &columns.topics,
        &columns.partitions,
        &columns.keys,
        columns.record_keys as _,
        &columns.aggregate_ids,
        &columns.sequences,
        &columns.types,
        &columns.versions,
        columns.correlation_ids as _,
        columns.cause_ids as _,
        columns.cause_topics as _,
        columns.cause_partitions as _,
        columns.cause_offsets as _,
        &columns.actors,
        &columns.traceparents,
        &columns.data,
        columns.headers as _,
        at.to_sqlx() as _,
        columns.request_ids as _,
        columns.idempotency_keys as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}
