//! The event log: the append-only table that is the event store and the outbox.
//!
//! What one statement appends is one row, a segment.
//!
//! Architecture Invariant: whoever appends has locked what the entries are about first. The position is
//! drawn by the insert, so under the lock, and positions of one key are in the order of its changes.

mod read;

use std::any::Any;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_wire::{DecodeError, Event, Topic as _};
use sqlx::{Encode, Postgres, Type};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::journal::statement::{Shortfall, Statement};
use crate::partition::partition_of;
use crate::trace::TraceContext;
use crate::words::Words;

pub(crate) use read::{SEGMENT_POSITIONS, Seen, Wanted, read};

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

/// An event that is about to be appended to the log.
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
    /// The event that caused it.
    pub cause_id: Option<Uuid>,
    /// Who caused it.
    pub actor: String,
    /// The id of the HTTP request that wrote it, where one did.
    pub request: Option<Uuid>,
    /// The span that it happened in.
    pub trace: TraceContext,
    /// The payload.
    pub data: Vec<u8>,
    /// Further Kafka headers: an array of `{name, value}`.
    pub headers: Option<serde_json::Value>,
    /// The event that `data` was made of, where that was in this process.
    pub event: Option<Arc<dyn Any + Send + Sync>>,
}

impl Entry {
    /// The Kafka key, which is the text of the key where the record was ours.
    pub(crate) fn kafka_key<'a>(&'a self, text: &'a mut [u8; Hyphenated::LENGTH]) -> &'a [u8] {
        match &self.record_key {
            Some(key) => key,
            None => self.key.hyphenated().encode_lower(text).as_bytes(),
        }
    }

    /// The entry for an event.
    ///
    /// # Errors
    /// None in practice, see [`Event::encode`].
    pub fn of_event(
        event_id: Uuid,
        event: impl Event,
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
            correlation_id: event.correlation_id(),
            cause_id: origin.cause_id,
            actor: origin.actor,
            request: origin.request,
            trace: origin.trace,
            data: event.encode()?,
            headers: None,
            event: Some(Arc::new(event)),
        })
    }

    /// The event in it.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none of that kind.
    pub fn event<E: Event>(&self) -> Result<Arc<E>, DecodeError> {
        let known = self.event.clone().and_then(|event| event.downcast::<E>().ok());
        let known = known.filter(|event| (event.name(), event.version()) == (&self.event_type, self.version));
        known.map_or_else(|| E::decode(&self.event_type, self.version, &self.data).map(Arc::new), Ok)
    }
}

/// Where an event comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The event that caused it.
    pub cause_id: Option<Uuid>,
    /// Who caused it.
    pub actor: String,
    /// The id of the HTTP request that writes it, where one does.
    pub request: Option<Uuid>,
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
    entries
        .iter()
        .flat_map(|entry| [entry.topic.as_str(), entry.event_type.as_str(), actor_of(&entry.actor).0])
}

/// How many events of a history share what their segments are found by.
const STRETCH_EVENTS: i32 = 16;

/// What the segments with events of a stretch of a history are found by, in `log_segment.about`. Of the first fifteen events it is
/// the id of what they happened to; longer histories have more, so that a page of one is not looked for in all its segments.
fn stretch(aggregate_id: Uuid, sequence: i32) -> Uuid {
    Uuid::from_u128(aggregate_id.as_u128() ^ u128::from((sequence / STRETCH_EVENTS).unsigned_abs()))
}

/// What the segments are found by that have these events of a history.
#[must_use]
pub fn stretches(aggregate_id: Uuid, sequences: RangeInclusive<i32>) -> Vec<Uuid> {
    let (first, last) = sequences.into_inner();
    let numbers = first / STRETCH_EVENTS..=last / STRETCH_EVENTS;
    numbers.map(|number| stretch(aggregate_id, number * STRETCH_EVENTS)).collect()
}

/// The part of a statement that appends, and answers the `number` of the segment.
pub(crate) const LOGGED: &str = "logged";

/// What this process has appended: the segment of that number.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The segment's number.
    pub number: i64,
    /// When it happened.
    pub at: Timestamp,
    /// The events, in the order of their positions.
    pub entries: Vec<Entry>,
}

/// Adds entries to a statement that is being put together, in their order: one segment. Their words must be known.
pub(crate) fn add(statement: &mut Statement, known: &Words, entries: &[Entry], at: Timestamp) {
    if entries.is_empty() {
        return;
    }
    let code = |word: &str| known.code(word).unwrap_or_default();
    let correlation =
        |e: &Entry| e.correlation_id.map(|id| if id == e.aggregate_id { Uuid::nil() } else { id });
    let about: BTreeSet<Uuid> = entries
        .iter()
        .flat_map(|e| e.correlation_id.into_iter().chain([stretch(e.aggregate_id, e.sequence)]))
        .collect();
    let events = i32::try_from(entries.len()).unwrap_or(i32::MAX);
    let traces: Vec<u8> = entries.iter().flat_map(|e| e.trace.to_bytes()).collect();
    let mut segment = Segment { statement, entries, columns: Vec::new(), values: Vec::new() };
    segment.value("at", at.to_sqlx());
    segment.value("events", events);
    segment.value("about", Vec::from_iter(about));
    segment.value("trace", traces);
    segment.each("event_id", |e| e.event_id);
    segment.each("aggregate_id", |e| e.aggregate_id);
    segment.each("sequence", |e| e.sequence);
    segment.each("topic", |e| code(&e.topic));
    segment.each("type", |e| code(&e.event_type));
    segment.each("version", |e| e.version);
    segment.each("partition", |e| e.partition);
    segment.some("key", |e| (e.key != e.aggregate_id).then_some(e.key));
    segment.some("correlation_id", correlation);
    segment.some("cause_id", |e| e.cause_id);
    segment.each("actor", |e| code(actor_of(&e.actor).0));
    segment.some("actor_id", |e| actor_of(&e.actor).1);
    segment.some("request_id", |e| e.request);
    segment.each("data", |e| e.data.as_slice());
    segment.some("record_key", |e| e.record_key.as_deref());
    segment.some("headers", |e| e.headers.as_ref());
    let sql = format!(
        "INSERT INTO log_segment ({}) VALUES ({}) RETURNING number",
        segment.columns.join(", "),
        segment.values.join(", ")
    );
    statement.must(LOGGED, sql, 1, Shortfall::Conflict);
}

/// A row of the log that is being put together.
struct Segment<'s, 'e> {
    statement: &'s mut Statement,
    entries: &'e [Entry],
    columns: Vec<&'static str>,
    values: Vec<String>,
}

impl<'e> Segment<'_, 'e> {
    fn value<T: Encode<'e, Postgres> + Type<Postgres>>(&mut self, column: &'static str, value: T) {
        self.columns.push(column);
        self.values.push(self.statement.bind(value));
    }

    /// What each entry has.
    fn each<T>(&mut self, column: &'static str, of: impl FnMut(&'e Entry) -> T)
    where
        Vec<T>: Encode<'e, Postgres> + Type<Postgres>,
    {
        self.value(column, self.entries.iter().map(of).collect::<Vec<T>>());
    }

    /// What some entries have; nothing where none has it.
    fn some<T>(&mut self, column: &'static str, of: impl FnMut(&'e Entry) -> Option<T>)
    where
        Option<Vec<Option<T>>>: Encode<'e, Postgres> + Type<Postgres>,
    {
        let values: Vec<Option<T>> = self.entries.iter().map(of).collect();
        self.value(column, values.iter().any(Option::is_some).then_some(values));
    }
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
        for actor in
            ["admin", "admin:minji", "worker:orders", "gateway", "user:", &without_hyphens, &in_capitals]
        {
            assert_eq!(actor_of(actor), (actor, None));
        }
    }
}
