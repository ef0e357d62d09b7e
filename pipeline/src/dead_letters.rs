//! Messages that a group could not apply: kept whole in a row, and told to a topic of their own.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::consumer::Record;
use crate::log::{Cause, Entry, RecordPlace};
use crate::topics::dead_letter_topic;
use crate::trace::TraceContext;

/// What of a payload still fits into a dead-letter message; the row keeps all of it.
const PAYLOAD_MAX: usize = 900 * 1024;

/// Why a message was not applied. The names are public and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// It does not carry our headers, so it was not published by the relay.
    Foreign,
    /// Its type or version is not known.
    UnknownType,
    /// Its payload does not have the shape that its type promises.
    Undecodable,
    /// Its key is not the one that its payload says.
    KeyMismatch,
    /// It breaks a rule of the database.
    Rule,
}

impl Code {
    /// The public name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Code::Foreign => "FOREIGN",
            Code::UnknownType => "UNKNOWN_TYPE",
            Code::Undecodable => "UNDECODABLE",
            Code::KeyMismatch => "KEY_MISMATCH",
            Code::Rule => "RULE",
        }
    }
}

/// Why one message was not applied.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// For programs.
    pub code: Code,
    /// For operators.
    pub error: String,
    /// How many attempts were made.
    pub attempts: i32,
    /// When the first attempt failed.
    pub first_failed_at: Timestamp,
    /// When the last attempt failed.
    pub last_failed_at: Timestamp,
}

/// Writes the row of a dead letter and answers the log entry that tells its topic.
///
/// # Errors
/// Where the database fails.
pub async fn record(
    connection: &mut PgConnection,
    group: &str,
    record: &Record,
    rejection: &Rejection,
) -> Result<Entry, sqlx::Error> {
    let dead_letter_id = Uuid::now_v7();
    let original: Vec<Value> = record
        .headers()
        .map(|(name, value)| json!({"name": storable(name), "value": storable(&String::from_utf8_lossy(value))}))
        .collect();
    sqlx::query!(
        "INSERT INTO dead_letter (dead_letter_id, group_name, topic, partition, record_offset, record_key,
             headers, payload, event_type, code, error, attempts, first_failed_at, last_failed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        dead_letter_id,
        group,
        record.place.topic,
        record.place.partition,
        record.place.offset,
        record.key,
        Value::Array(original.clone()),
        record.payload,
        record.event_type().map(storable),
        rejection.code.name(),
        storable(&rejection.error),
        rejection.attempts,
        rejection.first_failed_at.to_sqlx() as _,
        rejection.last_failed_at.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(entry(dead_letter_id, group, record, rejection, original))
}

fn entry(
    dead_letter_id: Uuid,
    group: &str,
    record: &Record,
    rejection: &Rejection,
    mut headers: Vec<Value>,
) -> Entry {
    let RecordPlace { topic, partition, offset } = &record.place;
    // The original's own headers keep their names but for those that the relay writes anew.
    headers.retain(|header| {
        header["name"].as_str().is_some_and(|name| !name.starts_with("ce_") && !name.starts_with("ordermill"))
    });
    let payload = record.payload.as_deref().unwrap_or_default();
    for (name, value) in [
        ("dlt-topic", topic.clone()),
        ("dlt-partition", partition.to_string()),
        ("dlt-offset", offset.to_string()),
        ("dlt-group", group.to_owned()),
        ("dlt-type", storable(record.event_type().unwrap_or_default())),
        ("dlt-code", rejection.code.name().to_owned()),
        ("dlt-error", storable(&rejection.error)),
        ("dlt-attempts", rejection.attempts.to_string()),
        ("dlt-first-failed-at", rejection.first_failed_at.to_string()),
        ("dlt-last-failed-at", rejection.last_failed_at.to_string()),
        ("dlt-payload-bytes", payload.len().to_string()),
    ] {
        headers.push(json!({"name": name, "value": value}));
    }
    Entry {
        event_id: dead_letter_id,
        topic: dead_letter_topic(topic, group),
        partition: *partition,
        key: dead_letter_id,
        record_key: Some(record.key.clone().unwrap_or_default()),
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
        headers: Some(Value::Array(headers)),
    }
}

/// PostgreSQL's text can't hold NUL, and a dead letter must not fail over what is wrong with it.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
