//! Puts messages aside: their rows, the keys that they park, and what their dead-letter topics are told.

use jiff_sqlx::ToSqlx as _;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Rejection, State, storable};
use crate::consumer::Record;
use crate::log::{Cause, Entry, RecordPlace};
use crate::stored_header::StoredHeader;
use crate::topics::dead_letter_topic;
use crate::trace::TraceContext;

/// What of a payload still fits into a dead-letter message, and of its key, its own headers and the texts that describe
/// it; the row keeps all of it. Together they stay below what the relay can send.
const PAYLOAD_MAX: usize = 900 * 1024;
const KEY_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 32 * 1024;
const TEXT_MAX: usize = 8 * 1024;

/// A message that is put aside.
pub(crate) struct Aside<'a> {
    /// The message.
    pub(crate) record: &'a Record,
    /// Why it failed; none where it only waits behind a letter of its key.
    pub(crate) rejection: Option<Rejection>,
}

/// Writes the rows, in their order, and parks the keys. Answers the log entries that tell the dead-letter topics.
///
/// # Errors
/// Where the database fails.
pub(crate) async fn put(
    connection: &mut PgConnection,
    group: &str,
    asides: &[Aside<'_>],
) -> Result<Vec<Entry>, sqlx::Error> {
    if asides.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = asides.iter().map(|_| Uuid::now_v7()).collect();
    insert_rows(&mut *connection, group, asides, &ids).await?;
    park(connection, group, asides, &ids).await?;
    let letters =
        asides.iter().zip(&ids).filter_map(|(aside, id)| Some((aside, *id, aside.rejection.as_ref()?)));
    Ok(letters.map(|(aside, id, rejection)| entry(id, group, aside.record, rejection)).collect())
}

async fn insert_rows(
    connection: &mut PgConnection,
    group: &str,
    asides: &[Aside<'_>],
    ids: &[Uuid],
) -> Result<(), sqlx::Error> {
    let places = || asides.iter().map(|aside| &aside.record.place);
    let topics: Vec<String> = places().map(|place| place.topic.clone()).collect();
    let partitions: Vec<i16> = places().map(|place| place.partition).collect();
    let offsets: Vec<i64> = places().map(|place| place.offset).collect();
    let records = || asides.iter().map(|aside| aside.record);
    let keys: Vec<Option<Vec<u8>>> = asides.iter().map(key_of).collect();
    let foreign_keys: Vec<Option<Vec<u8>>> = asides.iter().map(foreign_key_of).collect();
    let headers: Vec<Value> = records().map(headers_of).collect();
    let payloads: Vec<Option<Vec<u8>>> = records().map(|record| record.payload.clone()).collect();
    let types: Vec<Option<String>> = records().map(|record| record.event_type().map(storable)).collect();
    let event_ids: Vec<Option<Uuid>> = records().map(Record::event_id).collect();
    let correlation_ids: Vec<Option<Uuid>> = records().map(Record::correlation_id).collect();
    let rejections = || asides.iter().map(|aside| aside.rejection.as_ref());
    let codes: Vec<Option<String>> = rejections().map(|r| r.map(|r| r.code.name().to_owned())).collect();
    let errors: Vec<Option<String>> = rejections().map(|r| r.map(|r| storable(&r.error))).collect();
    let attempts: Vec<i32> = rejections().map(|r| r.map_or(0, |r| r.attempts)).collect();
    let first_failed_at: Vec<_> = rejections().map(|r| r.map(|r| r.first_failed_at.to_sqlx())).collect();
    let last_failed_at: Vec<_> = rejections().map(|r| r.map(|r| r.last_failed_at.to_sqlx())).collect();
    let states: Vec<String> = rejections()
        .map(|r| if r.is_some() { State::Parked } else { State::Waiting }.name().to_owned())
        .collect();
    sqlx::query!(
        "INSERT INTO dead_letter (dead_letter_id, group_name, topic, partition, record_offset, record_key, headers,
             payload, event_type, event_id, correlation_id, code, error, attempts, first_failed_at,
             last_failed_at, state, foreign_record_key)
         SELECT dead_letter_id, $1, topic, partition, record_offset, record_key, headers,
             payload, event_type, event_id, correlation_id, code, error, attempts, first_failed_at,
             last_failed_at, state, foreign_record_key
         FROM unnest($2::uuid[], $3::text[], $4::smallint[], $5::bigint[], $6::bytea[], $7::jsonb[], $8::bytea[],
                 $9::text[], $10::uuid[], $11::text[], $12::text[], $13::int[], $14::timestamptz[],
                 $15::timestamptz[], $16::text[], $17::uuid[], $18::bytea[])
             WITH ORDINALITY AS aside (dead_letter_id, topic, partition, record_offset, record_key, headers,
                 payload, event_type, correlation_id, code, error, attempts, first_failed_at, last_failed_at,
                 state, event_id, foreign_record_key, place)
         ORDER BY place",
        group,
        ids,
        &topics,
        &partitions,
        &offsets,
        keys as _,
        &headers,
        payloads as _,
        types as _,
        correlation_ids as _,
        codes as _,
        errors as _,
        &attempts,
        first_failed_at as _,
        last_failed_at as _,
        &states,
        event_ids as _,
        foreign_keys as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn waits_by_key(aside: &Aside<'_>) -> bool {
    aside.rejection.as_ref().is_none_or(|rejection| rejection.code.parks_the_key())
}

/// What waits by its key has one, if only an empty one, so that what waits is found by it.
fn key_of(aside: &Aside<'_>) -> Option<Vec<u8>> {
    waits_by_key(aside).then(|| aside.record.parking_key().to_vec())
}

/// The key of a message that is not ours, as long as it may be.
fn foreign_key_of(aside: &Aside<'_>) -> Option<Vec<u8>> {
    aside.record.key.clone().filter(|_| !waits_by_key(aside))
}

async fn park(
    connection: &mut PgConnection,
    group: &str,
    asides: &[Aside<'_>],
    ids: &[Uuid],
) -> Result<(), sqlx::Error> {
    let parking = |aside: &Aside<'_>| aside.rejection.as_ref().is_some_and(|r| r.code.parks_the_key());
    let (mut topics, mut keys, mut letters) = (Vec::new(), Vec::new(), Vec::new());
    for (aside, id) in asides.iter().zip(ids).filter(|(aside, _)| parking(aside)) {
        topics.push(aside.record.place.topic.clone());
        keys.push(aside.record.parking_key().to_vec());
        letters.push(*id);
    }
    if letters.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO parked_key (group_name, topic, record_key, dead_letter_id)
         SELECT $1, topic, record_key, dead_letter_id
         FROM unnest($2::text[], $3::bytea[], $4::uuid[]) AS parked (topic, record_key, dead_letter_id)
         ORDER BY topic, record_key",
        group,
        &topics,
        &keys,
        &letters,
    )
    .execute(connection)
    .await?;
    Ok(())
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
    let kept = record
        .headers()
        .filter(|(name, _)| !name.starts_with("ce_") && !name.starts_with("ordermill"))
        .map_while(|(name, value)| {
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
        cause: record.event_id().map(|event_id| Cause { event_id, met_at: Some(record.place.clone()) }),
        actor: format!("worker:{group}"),
        request: None,
        trace: TraceContext::child_of(record.traceparent()),
        data: payload[..payload.len().min(PAYLOAD_MAX)].to_vec(),
        headers: serde_json::to_value(headers).ok(),
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
        let record = Record::stored(place, None, &headers, Some(vec![b'x'; PAYLOAD_MAX + 1]));
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
        let record = Record::stored(place, Some(large.clone()), &headers, Some(vec![b'x'; PAYLOAD_MAX + 1]));
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
