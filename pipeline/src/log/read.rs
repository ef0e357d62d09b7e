//! Reading the log segment by segment.

use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Appended, Entry};
use crate::trace::TraceContext;
use crate::words::Words;

/// A position is the number of a segment, and in its last five digits the event's ordinal in it, from 1.
pub(crate) const SEGMENT_POSITIONS: i64 = 100_000;

/// Which segments are to be read, and what is to be known with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Those above this number,
    pub(crate) after: i64,
    /// up to this one.
    pub(crate) upto: i64,
    /// but for these.
    pub(crate) except: Vec<i64>,
    /// Whether a transaction id is to be drawn.
    pub(crate) draw: bool,
}

/// What one statement, and so one snapshot, has shown.
#[derive(Debug)]
pub(crate) struct Seen {
    /// By number.
    pub(crate) segments: Vec<Appended>,
    /// Whether these are all that were wanted and visible; otherwise all up to the last one.
    pub(crate) is_all: bool,
    /// Every transaction of a lower id had ended.
    pub(crate) xmin: i64,
    /// The id that was drawn.
    pub(crate) xid: Option<i64>,
}

/// A column of a segment that need not be there, as a value for each of its events.
fn each<T>(column: Option<Vec<Option<T>>>) -> impl Iterator<Item = Option<T>> {
    column.into_iter().flatten().chain(std::iter::repeat_with(|| None))
}

/// Reads whole segments until they have `events_max` events or more. They are taken apart here: that takes the database more
/// time than reading the rows.
///
/// # Errors
/// Where the database fails.
pub(crate) async fn read(
    connection: &mut PgConnection,
    words: &Words,
    wanted: &Wanted,
    events_max: usize,
) -> Result<Seen, sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH cut AS MATERIALIZED (
               SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
                   CASE WHEN $4 THEN pg_current_xact_id()::text::bigint END AS drawn
           ), wanted AS MATERIALIZED (
               SELECT number, sum(events) OVER (ORDER BY number) - events AS before FROM (
                   SELECT number, events FROM log_segment
                   WHERE number > $1 AND number <= $2 AND number <> ALL ($5::bigint[]) ORDER BY number LIMIT $3
               ) AS next
           )
           SELECT cut.xmin AS "xmin!", drawn AS "drawn?", s.number AS "number?", at AS "at?", event_id AS "event_id?",
               topic AS "topic?", partition AS "partition?", key AS "key?: Vec<Option<Uuid>>",
               record_key AS "record_key?: Vec<Option<Vec<u8>>>", aggregate_id AS "aggregate_id?",
               sequence AS "sequence?", type AS "event_type?", version AS "version?",
               correlation_id AS "correlation_id?: Vec<Option<Uuid>>", cause_id AS "cause_id?: Vec<Option<Uuid>>",
               actor AS "actor?", actor_id AS "actor_id?: Vec<Option<Uuid>>", trace AS "trace?", data AS "data?",
               headers AS "headers?: Vec<Option<Json<serde_json::Value>>>"
           FROM cut LEFT JOIN (wanted w JOIN log_segment s ON s.number = w.number AND before < $3) ON true
           ORDER BY s.number"#,
        wanted.after,
        wanted.upto,
        i64::try_from(events_max).unwrap_or(i64::MAX),
        wanted.draw,
        &wanted.except,
    )
    .fetch_all(&mut *connection)
    .await?;
    let codes = rows.iter().flat_map(|row| [&row.topic, &row.event_type, &row.actor]).flatten().flatten();
    if codes.into_iter().any(|code| words.word(*code).is_none()) {
        words.read_all(connection).await?;
    }
    let word = |code: i16| {
        let word = words.word(code);
        word.ok_or_else(|| sqlx::Error::Decode(format!("the log has no word {code}").into()))
    };
    let cut = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let mut seen = Seen { segments: Vec::new(), is_all: true, xmin: cut.xmin, xid: cut.drawn };
    let mut count = 0;
    for row in rows {
        let (Some(number), Some(at)) = (row.number, row.at) else { continue };
        let required = |column| sqlx::Error::Decode(format!("segment {number} has no {column}").into());
        let (event_ids, aggregate_ids) = (
            row.event_id.ok_or_else(|| required("event_id"))?,
            row.aggregate_id.ok_or_else(|| required("aggregate_id"))?,
        );
        let (topics, partitions) = (
            row.topic.ok_or_else(|| required("topic"))?,
            row.partition.ok_or_else(|| required("partition"))?,
        );
        let (types, versions) = (
            row.event_type.ok_or_else(|| required("type"))?,
            row.version.ok_or_else(|| required("version"))?,
        );
        let (sequences, actors) =
            (row.sequence.ok_or_else(|| required("sequence"))?, row.actor.ok_or_else(|| required("actor"))?);
        let (mut keys, mut record_keys, mut correlations) =
            (each(row.key), each(row.record_key), each(row.correlation_id));
        let (mut causes, mut actor_ids, mut headers) =
            (each(row.cause_id), each(row.actor_id), each(row.headers));
        let trace = row.trace.unwrap_or_default();
        let mut entries = Vec::with_capacity(event_ids.len());
        let data = row.data.unwrap_or_default().into_iter().zip(trace.chunks(TraceContext::BYTES));
        for (index, (data, trace)) in data.enumerate() {
            let aggregate_id = aggregate_ids[index];
            let correlation_id = correlations.next().flatten();
            let actor = word(actors[index])?;
            entries.push(Entry {
                event_id: event_ids[index],
                topic: word(topics[index])?.to_string(),
                partition: partitions[index],
                key: keys.next().flatten().unwrap_or(aggregate_id),
                record_key: record_keys.next().flatten(),
                aggregate_id,
                sequence: sequences[index],
                event_type: word(types[index])?.to_string(),
                version: versions[index],
                correlation_id: correlation_id.map(|id: Uuid| if id.is_nil() { aggregate_id } else { id }),
                cause_id: causes.next().flatten(),
                actor: actor_ids.next().flatten().map_or(actor.to_string(), |id| format!("{actor}:{id}")),
                request: None,
                trace: TraceContext::from_bytes(trace).unwrap_or_else(TraceContext::new_root),
                data,
                headers: headers.next().flatten().map(|Json(headers)| headers),
                event: None,
            });
        }
        count += entries.len();
        seen.segments.push(Appended { number, at: at.to_jiff(), entries });
    }
    seen.is_all = count < events_max;
    Ok(seen)
}
