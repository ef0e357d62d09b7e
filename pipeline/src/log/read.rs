//! Reading the log segment by segment.

use jiff::Timestamp;
use sqlx::PgExecutor;
use sqlx::types::Json;
use uuid::Uuid;

use crate::stored_header::StoredHeader;
use crate::trace::TraceContext;

/// A position is the number of a segment, and in its last five digits the event's ordinal in it, from 1.
pub(crate) const SEGMENT_POSITIONS: i64 = 100_000;

/// An event of the log. Its words are codes.
pub(crate) struct Row {
    pub(crate) position: i64,
    pub(crate) event_id: Uuid,
    pub(crate) topic: i16,
    pub(crate) partition: i16,
    pub(crate) key: Uuid,
    pub(crate) record_key: Option<Vec<u8>>,
    pub(crate) aggregate_id: Uuid,
    pub(crate) sequence: i32,
    pub(crate) event_type: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: Option<Uuid>,
    pub(crate) cause_id: Option<Uuid>,
    pub(crate) actor: i16,
    pub(crate) actor_id: Option<Uuid>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) at: Timestamp,
    pub(crate) data: Vec<u8>,
    pub(crate) headers: Option<Json<Vec<StoredHeader>>>,
}

/// A column of a segment that need not be there, as a value for each of its events.
fn each<T>(column: Option<Vec<Option<T>>>) -> impl Iterator<Item = Option<T>> {
    column.into_iter().flatten().chain(std::iter::repeat_with(|| None))
}

/// The events above `after` up to `upto`, by position, at most `events_max`. Segments are taken apart here: that takes the
/// database more time than reading the rows.
///
/// # Errors
/// Where the database fails.
pub(crate) async fn read(
    executor: impl PgExecutor<'_>,
    after: i64,
    upto: i64,
    events_max: usize,
) -> Result<Vec<Row>, sqlx::Error> {
    let segments = sqlx::query!(
        r#"SELECT number, at, event_id, topic, partition, key AS "key: Vec<Option<Uuid>>",
               record_key AS "record_key: Vec<Option<Vec<u8>>>", aggregate_id, sequence, type AS event_type, version,
               correlation_id AS "correlation_id: Vec<Option<Uuid>>", cause_id AS "cause_id: Vec<Option<Uuid>>",
               actor, actor_id AS "actor_id: Vec<Option<Uuid>>", trace, data,
               headers AS "headers: Vec<Option<Json<Vec<StoredHeader>>>>"
           FROM log_segment
           WHERE number >= $1::bigint / 100000 AND number <= (
               SELECT max(number) FROM (
                   SELECT number, sum(events) OVER (ORDER BY number) - events AS before
                   FROM (
                       SELECT number, events FROM log_segment
                       WHERE number >= $1 / 100000 AND number <= $2::bigint / 100000 ORDER BY number LIMIT $3::bigint + 1
                   ) AS next
               ) AS needed
               WHERE before < $3::bigint + $1 % 100000)
           ORDER BY number"#,
        after,
        upto,
        i64::try_from(events_max).unwrap_or(i64::MAX - 1),
    )
    .fetch_all(executor)
    .await?;
    let mut rows = Vec::new();
    for segment in segments {
        let (mut keys, mut record_keys, mut correlations) =
            (each(segment.key), each(segment.record_key), each(segment.correlation_id));
        let (mut causes, mut actors, mut headers) =
            (each(segment.cause_id), each(segment.actor_id), each(segment.headers));
        let traces = segment.trace.chunks(TraceContext::BYTES);
        let data = segment.data.into_iter().zip(traces).zip(1..);
        for (index, ((data, trace), ordinal)) in data.enumerate() {
            let aggregate_id = segment.aggregate_id[index];
            let correlation_id = correlations.next().flatten();
            rows.push(Row {
                position: segment.number * SEGMENT_POSITIONS + ordinal,
                event_id: segment.event_id[index],
                topic: segment.topic[index],
                partition: segment.partition[index],
                key: keys.next().flatten().unwrap_or(aggregate_id),
                record_key: record_keys.next().flatten(),
                aggregate_id,
                sequence: segment.sequence[index],
                event_type: segment.event_type[index],
                version: segment.version[index],
                correlation_id: correlation_id.map(|id: Uuid| if id.is_nil() { aggregate_id } else { id }),
                cause_id: causes.next().flatten(),
                actor: segment.actor[index],
                actor_id: actors.next().flatten(),
                trace: TraceContext::from_bytes(trace),
                at: segment.at.to_jiff(),
                data,
                headers: headers.next().flatten(),
            });
        }
    }
    rows.retain(|row| row.position > after && row.position <= upto);
    rows.truncate(events_max);
    Ok(rows)
}
