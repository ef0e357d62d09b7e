//! The rows that a worker goes through when it applies letters: what is next, and what became of it.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::letters::state_of;
use super::{Code, State, Verdict, storable};
use crate::consumer::Record;
use crate::log::RecordPlace;
use crate::stored_header::StoredHeader;

/// A letter of a replay that has no verdict yet; its row is locked.
pub(crate) struct NextItem {
    pub(crate) replay_id: Uuid,
    pub(crate) ordinal: i32,
    pub(crate) dead_letter_id: Uuid,
    pub(crate) dry_run: bool,
    requested_at: jiff_sqlx::Timestamp,
    rate_per_second: Option<i32>,
}

/// Takes the next letter that a replay wants from this group. Rows that another member works at are passed over.
pub(crate) async fn next_item(
    connection: &mut PgConnection,
    group: &str,
    now: Timestamp,
) -> Result<Option<NextItem>, sqlx::Error> {
    let next = sqlx::query_as!(
        NextItem,
        "SELECT i.replay_id, i.ordinal, i.dead_letter_id, r.dry_run, r.requested_at, r.rate_per_second
         FROM dead_letter_replay_item i JOIN dead_letter_replay r USING (replay_id)
         WHERE i.group_name = $1 AND i.verdict IS NULL AND r.next_at <= $2
         ORDER BY i.replay_id, i.ordinal LIMIT 1 FOR UPDATE OF i SKIP LOCKED",
        group,
        now.to_sqlx() as _,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(item) = next else { return Ok(None) };
    let Some(rate) = item.rate_per_second else { return Ok(Some(item)) };
    // One row for all groups and members: whoever moves it may take a letter, and the next one must wait.
    let taken = sqlx::query!(
        "UPDATE dead_letter_replay SET next_at = $2::timestamptz + make_interval(secs => 1.0::double precision / $3)
         WHERE replay_id = $1 AND next_at <= $2",
        item.replay_id,
        now.to_sqlx() as _,
        f64::from(rate),
    )
    .execute(connection)
    .await?;
    Ok((taken.rows_affected() == 1).then_some(item))
}

/// Writes the verdict on a letter of a replay.
pub(crate) async fn decide(
    connection: &mut PgConnection,
    item: &NextItem,
    verdict: Verdict,
    detail: Option<&str>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE dead_letter_replay_item SET verdict = $3, detail = $4, decided_at = $5
         WHERE replay_id = $1 AND ordinal = $2 AND verdict IS NULL",
        item.replay_id,
        item.ordinal,
        verdict.name(),
        detail.map(storable),
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A parked key.
pub(crate) struct Key {
    pub(crate) topic: String,
    pub(crate) record_key: Vec<u8>,
}

/// A letter that is to be applied, with everything that is needed for it.
pub(crate) struct Work {
    pub(crate) dead_letter_id: Uuid,
    pub(crate) state: State,
    pub(crate) record: Record,
    pub(crate) attempts: i32,
    pub(crate) first_failed_at: Option<Timestamp>,
    resolved_at: Option<Timestamp>,
    resolved_by: Option<Uuid>,
    had_effect: Option<bool>,
}

impl Work {
    /// The verdict of a replay on a letter that is resolved: by itself, because its letter was, or before.
    pub(crate) fn verdict_in(&self, item: &NextItem) -> Verdict {
        let here = match self.resolved_by {
            Some(replay_id) => replay_id == item.replay_id,
            None => self.resolved_at.is_some_and(|at| at >= item.requested_at.to_jiff()),
        };
        Verdict::of_effect(here && self.had_effect == Some(true))
    }
}

/// What a key is parked for.
pub(crate) struct Head {
    /// The letter that the others wait behind.
    pub(crate) dead_letter_id: Uuid,
    /// The letter is done with, and what waits is being applied.
    pub(crate) releasing: bool,
}

struct WorkRow {
    dead_letter_id: Uuid,
    topic: String,
    partition: i16,
    record_offset: i64,
    record_key: Option<Vec<u8>>,
    headers: Json<Vec<StoredHeader>>,
    payload: Option<Vec<u8>>,
    state: String,
    attempts: i32,
    first_failed_at: Option<jiff_sqlx::Timestamp>,
    resolved_at: Option<jiff_sqlx::Timestamp>,
    resolved_by: Option<Uuid>,
    had_effect: Option<bool>,
}

impl From<WorkRow> for Work {
    fn from(row: WorkRow) -> Work {
        let place = RecordPlace { topic: row.topic, partition: row.partition, offset: row.record_offset };
        Work {
            dead_letter_id: row.dead_letter_id,
            state: state_of(&row.state),
            record: Record::stored(place, row.record_key, &row.headers.0, row.payload),
            attempts: row.attempts,
            first_failed_at: row.first_failed_at.map(|at| at.to_jiff()),
            resolved_at: row.resolved_at.map(|at| at.to_jiff()),
            resolved_by: row.resolved_by,
            had_effect: row.had_effect,
        }
    }
}

/// Locks a letter's key, where it is parked, and then the letter. Answers what the key is parked for.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    group: &str,
    dead_letter_id: Uuid,
) -> Result<(Work, Option<Head>), sqlx::Error> {
    let head = sqlx::query_as!(
        Head,
        "SELECT p.dead_letter_id, p.releasing FROM parked_key p
         JOIN dead_letter d
             ON p.group_name = d.group_name AND p.topic = d.topic AND p.record_key = coalesce(d.record_key, '')
         WHERE d.dead_letter_id = $1 AND d.group_name = $2 FOR UPDATE OF p",
        dead_letter_id,
        group,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let row = sqlx::query_as!(
        WorkRow,
        r#"SELECT dead_letter_id, topic, partition, record_offset, record_key,
               headers AS "headers: Json<Vec<StoredHeader>>", payload, state, attempts, first_failed_at,
               resolved_at, resolved_by, had_effect
           FROM dead_letter WHERE dead_letter_id = $1 FOR UPDATE"#,
        dead_letter_id,
    )
    .fetch_one(connection)
    .await?;
    Ok((row.into(), head))
}

/// Takes a key whose letter is done with, so that what waits can be applied. Keys that another member works at are
/// passed over.
pub(crate) async fn releasing_key(
    connection: &mut PgConnection,
    group: &str,
) -> Result<Option<Key>, sqlx::Error> {
    sqlx::query_as!(
        Key,
        "SELECT topic, record_key FROM parked_key WHERE group_name = $1 AND releasing
         ORDER BY topic, record_key LIMIT 1 FOR UPDATE SKIP LOCKED",
        group,
    )
    .fetch_optional(connection)
    .await
}

/// What waits for a key, in order, at most `limit`.
pub(crate) async fn waiting(
    connection: &mut PgConnection,
    group: &str,
    key: &Key,
    limit: i64,
) -> Result<Vec<Work>, sqlx::Error> {
    let rows = sqlx::query_as!(
        WorkRow,
        r#"SELECT dead_letter_id, topic, partition, record_offset, record_key,
               headers AS "headers: Json<Vec<StoredHeader>>", payload, state, attempts, first_failed_at,
               resolved_at, resolved_by, had_effect
           FROM dead_letter
           WHERE group_name = $1 AND topic = $2 AND record_key = $3 AND state = 'WAITING'
           ORDER BY ordinal LIMIT $4 FOR UPDATE"#,
        group,
        key.topic,
        key.record_key,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Work::from).collect())
}

/// Notes that a letter has been applied, by that replay or as one that waited.
pub(crate) async fn resolve(
    connection: &mut PgConnection,
    dead_letter_id: Uuid,
    replay_id: Option<Uuid>,
    had_effect: bool,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE dead_letter SET state = 'RESOLVED', resolved_at = $2, resolved_by = $3, had_effect = $4
         WHERE dead_letter_id = $1",
        dead_letter_id,
        now.to_sqlx() as _,
        replay_id,
        had_effect,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that a letter has failed, once more or for the first time, and parks it.
pub(crate) async fn fail(
    connection: &mut PgConnection,
    dead_letter_id: Uuid,
    code: Code,
    error: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE dead_letter
         SET state = 'PARKED', code = $2, error = $3, attempts = attempts + 1, last_failed_at = $4,
             first_failed_at = coalesce(first_failed_at, $4)
         WHERE dead_letter_id = $1",
        dead_letter_id,
        code.name(),
        storable(error),
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The letter that a key is parked for is done with: what waits is to be applied next.
pub(crate) async fn release(connection: &mut PgConnection, dead_letter_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE parked_key SET releasing = true WHERE dead_letter_id = $1", dead_letter_id)
        .execute(connection)
        .await?;
    Ok(())
}

/// The key is parked for another letter: one that waited has failed.
pub(crate) async fn park_for(
    connection: &mut PgConnection,
    group: &str,
    key: &Key,
    dead_letter_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE parked_key SET dead_letter_id = $4, releasing = false
         WHERE group_name = $1 AND topic = $2 AND record_key = $3",
        group,
        key.topic,
        key.record_key,
        dead_letter_id,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Nothing waits any more: the group applies the key's messages as they come.
pub(crate) async fn unpark(connection: &mut PgConnection, group: &str, key: &Key) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM parked_key WHERE group_name = $1 AND topic = $2 AND record_key = $3",
        group,
        key.topic,
        key.record_key,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether a replay has selected a letter.
pub(crate) async fn is_selected(
    connection: &mut PgConnection,
    replay_id: Uuid,
    dead_letter_id: Uuid,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM dead_letter_replay_item WHERE replay_id = $1 AND dead_letter_id = $2) AS "selected!""#,
        replay_id,
        dead_letter_id,
    )
    .fetch_one(connection)
    .await
}

/// What waits for the key of a letter that waits itself, in order, up to that letter.
pub(crate) async fn waiting_upto(
    connection: &mut PgConnection,
    group: &str,
    last: &Work,
) -> Result<Vec<Work>, sqlx::Error> {
    let rows = sqlx::query_as!(
        WorkRow,
        r#"SELECT dead_letter_id, topic, partition, record_offset, record_key,
               headers AS "headers: Json<Vec<StoredHeader>>", payload, state, attempts, first_failed_at,
               resolved_at, resolved_by, had_effect
           FROM dead_letter
           WHERE group_name = $1 AND topic = $2 AND record_key = $3 AND state = 'WAITING'
               AND ordinal <= (SELECT ordinal FROM dead_letter WHERE dead_letter_id = $4)
           ORDER BY ordinal"#,
        group,
        last.record.place.topic,
        last.record.parking_key(),
        last.dead_letter_id,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Work::from).collect())
}
