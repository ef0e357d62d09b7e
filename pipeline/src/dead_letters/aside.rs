//! Puts messages aside: their rows, the keys that they park, and what their dead-letter topics are told.

use jiff_sqlx::ToSqlx as _;
use ordermill_wire::headers;
use serde_json::Value;
use uuid::Uuid;

use super::{Rejection, State, storable};
use crate::authenticity::Authenticity;
use crate::journal::Statement;
use crate::log::{Entry, RecordPlace};
use crate::record::Record;
use crate::stored_header::StoredHeader;
use crate::topics::dead_letter_topic;
use crate::trace::TraceContext;

/// What of a payload still fits into a dead-letter message, and of its key, its own headers and the texts that describe
/// it; the row keeps all of it. Together they stay below what the relay can send.
const PAYLOAD_MAX: usize = 900 * 1024;
const KEY_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 32 * 1024;
const TEXT_MAX: usize = 8 * 1024;

/// What a letter's row has besides its group when it is put aside.
const COLUMNS: &str = "dead_letter_id, topic, partition, record_offset, record_key, foreign_record_key, headers, payload, authentic, \
    event_type, event_id, correlation_id, code, error, attempts, first_failed_at, last_failed_at, state";

/// A message that is put aside.
pub(crate) struct Aside<'a> {
    /// The letter that it becomes.
    pub(crate) dead_letter_id: Uuid,
    /// The message.
    pub(crate) record: &'a Record,
    /// Why it failed; none where it only waits behind a letter of its key.
    pub(crate) rejection: Option<Rejection>,
}

impl Aside<'_> {
    /// What comes after it waits by its key.
    fn parks(&self) -> bool {
        self.rejection.as_ref().is_some_and(|rejection| rejection.code.parks_the_key())
    }

    /// What waits by its key has one, if only an empty one, so that what waits is found by it.
    fn key(&self) -> Option<&[u8]> {
        (self.parks() || self.rejection.is_none()).then(|| self.record.parking_key())
    }

    /// The key of a message that is not ours, as long as it may be.
    fn foreign_key(&self) -> Option<&[u8]> {
        self.record.key.as_deref().filter(|_| self.key().is_none())
    }

    fn rejection<T>(&self, of: impl FnOnce(&Rejection) -> T) -> Option<T> {
        self.rejection.as_ref().map(of)
    }
}

/// Adds to a statement that messages are put aside, in their order, and that their keys are parked. Answers the log entries
/// that tell the dead-letter topics.
pub(crate) fn add(statement: &mut Statement, group: &str, asides: &[Aside<'_>]) -> Vec<Entry> {
    if asides.is_empty() {
        return Vec::new();
    }
    let state = |aside: &Aside<'_>| aside.rejection(|_| State::Parked).unwrap_or(State::Waiting).name();
    let rows = statement
        .rows(asides)
        .column("dead_letter_id", "uuid", |a| a.dead_letter_id)
        .column("topic", "text", |a| a.record.place.topic.as_str())
        .column("partition", "smallint", |a| a.record.place.partition)
        .column("record_offset", "bigint", |a| a.record.place.offset)
        .column("record_key", "bytea", Aside::key)
        .column("foreign_record_key", "bytea", Aside::foreign_key)
        .column("headers", "jsonb", |a| headers_of(a.record))
        .column("payload", "bytea", |a| a.record.payload.as_deref())
        .column("authentic", "boolean", |a| a.record.authenticity == Authenticity::Authentic)
        .column("event_type", "text", |a| a.record.event_type().map(storable))
        .column("event_id", "uuid", |a| a.record.event_id())
        .column("correlation_id", "uuid", |a| a.record.correlation_id())
        .column("code", "text", |a| a.rejection(|r| r.code.name()))
        .column("error", "text", |a| a.rejection(|r| storable(&r.error)))
        .column("attempts", "integer", |a| a.rejection(|r| r.attempts).unwrap_or(0))
        .column("first_failed_at", "timestamptz", |a| a.rejection(|r| r.first_failed_at.to_sqlx()))
        .column("last_failed_at", "timestamptz", |a| a.rejection(|r| r.last_failed_at.to_sqlx()))
        .column("state", "text", state)
        .column("parks", "boolean", Aside::parks)
        .relation("aside");
    let group_name = statement.bind(group.to_owned());
    statement.part("aside", format!("SELECT * FROM {rows}"));
    statement.part(
        "put_aside",
        format!(
            "INSERT INTO dead_letter (group_name, {COLUMNS}) SELECT {group_name}, {COLUMNS} FROM aside ORDER BY ordinal"
        ),
    );
    statement.part(
        "parked",
        format!(
            "INSERT INTO parked_key (group_name, topic, record_key, dead_letter_id)
             SELECT {group_name}, topic, record_key, dead_letter_id FROM aside WHERE parks ORDER BY topic, record_key"
        ),
    );
    let tell = |aside: &Aside<'_>| aside.rejection(|r| entry(aside.dead_letter_id, group, aside.record, r));
    asides.iter().filter_map(tell).collect()
}

fn headers_of(record: &Record) -> Value {
    let headers = record.headers().map(|(name, value)| StoredHeader::new(name, value));
    serde_json::to_value(headers.collect::<Vec<_>>()).unwrap_or_default()
}

/// What the dead-letter topic is told of a letter.
pub(crate) fn entry(dead_letter_id: Uuid, group: &str, record: &Record, rejection: &Rejection) -> Entry {
    let RecordPlace { topic, partition, offset } = &record.place;
    // The original's own headers keep their names but for those that the relay writes anew.
    let mut left = HEADERS_MAX;
    let is_anew = |name: &str| {
        ["ce_", "ordermill", "dlt-"].iter().any(|ours| name.starts_with(ours)) || name == headers::TRACEPARENT
    };
    let kept = record.headers().filter(|(name, _)| !is_anew(name)).map_while(|(name, value)| {
        left = left.checked_sub(name.len() + value.len())?;
        Some(StoredHeader::new(name, value))
    });
    let mut headers: Vec<StoredHeader> = kept.collect();
    let payload = record.payload.as_deref().unwrap_or_default();
    let key = record.key.as_deref().unwrap_or_default();
    for (name, value) in [
        ("dlt-topic", topic.clone()),
        ("dlt-partition", partition.to_string()),
        ("dlt-offset", offset.to_string()),
        ("dlt-group", group.to_owned()),
        ("dlt-type", beginning(record.event_type().unwrap_or_default()).to_owned()),
        ("dlt-code", rejection.code.name().to_owned()),
        ("dlt-error", storable(beginning(&rejection.error))),
        ("dlt-attempts", rejection.attempts.to_string()),
        ("dlt-first-failed-at", rejection.first_failed_at.to_string()),
        ("dlt-last-failed-at", rejection.last_failed_at.to_string()),
        ("dlt-payload-bytes", payload.len().to_string()),
    ] {
        headers.push(StoredHeader::new(name, value.as_bytes()));
    }
    Entry {
        event_id: dead_letter_id,
        topic: dead_letter_topic(topic, group),
        partition: *partition,
        key: dead_letter_id,
        record_key: Some(key[..key.len().min(KEY_MAX)].to_vec()),
        aggregate_id: dead_letter_id,
        sequence: 1,
        event_type: "dead_letter.recorded".to_owned(),
        version: 1,
        correlation_id: record.correlation_id(),
        cause_id: record.event_id(),
        actor: format!("worker:{group}"),
        request: None,
        trace: TraceContext::child_of(record.traceparent()),
        data: payload[..payload.len().min(PAYLOAD_MAX)].to_vec(),
        headers: serde_json::to_value(headers).ok(),
        event: None,
    }
}

/// As much of a text as a dead-letter message tells.
fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::dead_letters::Code;

    #[test]
    fn a_dead_letter_tells_what_the_contract_says() {
        let place = RecordPlace { topic: "cups".to_owned(), partition: 1, offset: 7 };
        let headers = [StoredHeader::new("theirs", b"\xff"), StoredHeader::new("ce_type", b"cup.filled")];
        let record = Record::stored(place, None, &headers, Some(vec![b'x'; PAYLOAD_MAX + 1]), true);
        let at = Timestamp::UNIX_EPOCH;
        let rejection = Rejection {
            code: Code::Rule,
            error: "too\0full".to_owned(),
            attempts: 3,
            first_failed_at: at,
            last_failed_at: at,
        };
        let entry = entry(Uuid::nil(), "drinkers", &record, &rejection);
        assert_eq!((entry.topic.as_str(), entry.data.len()), ("cups.drinkers.dlt", PAYLOAD_MAX));
        let headers: Vec<StoredHeader> = serde_json::from_value(entry.headers.unwrap()).unwrap();
        assert_eq!(headers[0].bytes(), b"\xff", "a header of the message is kept to the byte");
        let told: Vec<&str> = headers[1..].iter().map(|header| header.name.as_str()).collect();
        assert_eq!(told, ordermill_schemas::dead_letters::HEADERS.map(|(name, _)| name));
        let value = |name: &str| headers.iter().find(|h| h.name == name).unwrap().value.clone().unwrap();
        assert_eq!(value("dlt-payload-bytes"), (PAYLOAD_MAX + 1).to_string());
        assert_eq!(value("dlt-type"), "cup.filled");
        assert_eq!(value("dlt-attempts"), "3");
    }

    #[test]
    fn a_dead_letter_is_never_too_large_to_be_published() {
        let large = vec![b'x'; 500_000];
        let place = RecordPlace { topic: "cups".to_owned(), partition: 1, offset: 7 };
        let headers = [("first", &large[..10]), ("second", &large), ("ce_type", &large)];
        let headers = headers.map(|(name, value)| StoredHeader::new(name, value));
        let record =
            Record::stored(place, Some(large.clone()), &headers, Some(vec![b'x'; PAYLOAD_MAX + 1]), true);
        let at = Timestamp::UNIX_EPOCH;
        let error = "ü".repeat(500_000);
        let rejection =
            Rejection { code: Code::Foreign, error, attempts: 1, first_failed_at: at, last_failed_at: at };
        let entry = entry(Uuid::nil(), "drinkers", &record, &rejection);
        let headers: Vec<StoredHeader> = serde_json::from_value(entry.headers.unwrap()).unwrap();
        assert_eq!(headers[0].name, "first");
        assert_eq!(headers[1].name, "dlt-topic", "the second does not fit");
        let size: usize = headers.iter().map(|header| header.name.len() + header.bytes().len()).sum();
        // The relay's own headers are less than two kilobytes.
        assert!(entry.data.len() + entry.record_key.unwrap().len() + size < 998_000);
    }
}
