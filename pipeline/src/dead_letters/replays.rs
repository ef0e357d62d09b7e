//! Replays: what was selected stands fixed in rows, and the workers of the groups that failed work it off, so a replay
//! goes on wherever processes end and begin.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde::Serialize;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use utoipa::ToSchema;
use uuid::Uuid;

use super::edits::audit;
use super::letters::Filter;
use super::{State, Verdict};

/// How many letters a replay selects at most.
pub const SELECTED_MAX: i64 = 100_000;

/// Which letters are replayed.
#[derive(Clone, Debug)]
pub enum Selection {
    /// These, each once. What is resolved already is told so; what is discarded is refused.
    Ids(Vec<Uuid>),
    /// Those that the filter means; where it names no state, those that are parked.
    Filter(Filter),
}

/// Why nothing is replayed.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// Some letters don't exist.
    #[error("there is no dead letter {}", joined(.0))]
    NotFound(Vec<Uuid>),
    /// Some letters were discarded.
    #[error("what was discarded is not replayed: {}", joined(.0))]
    Discarded(Vec<Uuid>),
    /// The selection is too large.
    #[error("{0} letters are selected, but a replay takes {SELECTED_MAX} at most: narrow the filter")]
    TooMany(i64),
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

fn joined(ids: &[Uuid]) -> String {
    ids.iter().map(Uuid::to_string).collect::<Vec<_>>().join(", ")
}

/// What is asked for besides the selection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Each letter is decided on and nothing is written: the verdicts say what would happen. What only the database would
    /// refuse is not foreseen.
    pub dry_run: bool,
    /// At most this many letters a second, whichever workers take them; as fast as they can if not given.
    pub rate_per_second: Option<i32>,
}

/// A replay that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Requested {
    /// The replay.
    pub replay_id: Uuid,
    /// How many letters it has.
    pub selected: i64,
}

/// Asks for a replay: fixes what is selected, in the caller's transaction.
///
/// # Errors
/// [`ReplayError`] where letters can't be replayed or are too many.
pub async fn request(
    connection: &mut PgConnection,
    selection: &Selection,
    options: Options,
    actor: &str,
    now: Timestamp,
) -> Result<Requested, ReplayError> {
    let selected = select(&mut *connection, selection).await?;
    let replay_id = Uuid::now_v7();
    let count = i64::try_from(selected.len()).unwrap_or(i64::MAX);
    sqlx::query!(
        "INSERT INTO dead_letter_replay (replay_id, dry_run, rate_per_second, selected, requested_by, requested_at,
             next_at)
         VALUES ($1, $2, $3, $4, $5, $6, $6)",
        replay_id,
        options.dry_run,
        options.rate_per_second,
        i32::try_from(count).unwrap_or(i32::MAX),
        actor,
        now.to_sqlx() as _,
    )
    .execute(&mut *connection)
    .await?;
    // Rows are locked by id, as everybody does. Items are numbered key by key, so that whoever works them off comes to each key once, and
    // otherwise in the order in which they were put aside.
    sqlx::query!(
        "WITH chosen AS (
             SELECT dead_letter_id, group_name, topic, record_key, ordinal FROM dead_letter
             WHERE dead_letter_id = ANY($2)
             ORDER BY dead_letter_id FOR UPDATE
         ), marked AS (
             UPDATE dead_letter d SET state = 'REPLAYED' FROM chosen c
             WHERE d.dead_letter_id = c.dead_letter_id AND d.state = 'PARKED' AND NOT $3
         )
         INSERT INTO dead_letter_replay_item (replay_id, ordinal, dead_letter_id, group_name)
         SELECT $1, row_number() OVER (ORDER BY first_of_key, ordinal), dead_letter_id, group_name
         FROM (
             SELECT c.*, min(ordinal) OVER (PARTITION BY group_name, topic, record_key) AS first_of_key
             FROM chosen c) AS of_keys",
        replay_id,
        &selected,
        options.dry_run,
    )
    .execute(&mut *connection)
    .await?;
    let detail =
        json!({"selected": count, "dry_run": options.dry_run, "rate_per_second": options.rate_per_second});
    let requested = audit::Entry::of(audit::Action::ReplayRequested, detail);
    let entry = audit::Entry { replay: Some(replay_id), ..requested };
    audit::write(connection, actor, now, vec![entry]).await?;
    Ok(Requested { replay_id, selected: count })
}

async fn select(connection: &mut PgConnection, selection: &Selection) -> Result<Vec<Uuid>, ReplayError> {
    let selected = match selection {
        Selection::Ids(ids) => {
            let ids: BTreeSet<Uuid> = ids.iter().copied().collect();
            let ids: Vec<Uuid> = ids.into_iter().collect();
            let known = sqlx::query!(
                r#"SELECT dead_letter_id, state AS "state: State" FROM dead_letter WHERE dead_letter_id = ANY($1)"#,
                &ids,
            )
            .fetch_all(connection)
            .await?;
            let states: HashMap<Uuid, State> =
                known.into_iter().map(|row| (row.dead_letter_id, row.state)).collect();
            let of_state = |wanted: Option<State>| -> Vec<Uuid> {
                ids.iter().filter(|id| states.get(id).copied() == wanted).copied().collect()
            };
            let (unknown, discarded) = (of_state(None), of_state(Some(State::Discarded)));
            if !unknown.is_empty() {
                return Err(ReplayError::NotFound(unknown));
            }
            if !discarded.is_empty() {
                return Err(ReplayError::Discarded(discarded));
            }
            ids
        }
        Selection::Filter(filter) => {
            sqlx::query_scalar!(
                "SELECT dead_letter_id FROM dead_letter
                 WHERE ($1::text IS NULL OR topic = $1) AND ($2::text IS NULL OR group_name = $2)
                     AND ($3::text IS NULL OR code = $3) AND state = $4 AND state <> 'DISCARDED'
                     AND ($5::timestamptz IS NULL OR last_failed_at >= $5)
                     AND ($6::timestamptz IS NULL OR last_failed_at < $6)",
                filter.topic,
                filter.group,
                filter.code,
                filter.state.unwrap_or(State::Parked).name(),
                filter.from.map(|at| at.to_sqlx()) as _,
                filter.to.map(|at| at.to_sqlx()) as _,
            )
            .fetch_all(connection)
            .await?
        }
    };
    let count = i64::try_from(selected.len()).unwrap_or(i64::MAX);
    if count > SELECTED_MAX { Err(ReplayError::TooMany(count)) } else { Ok(selected) }
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Progress {
    /// Some letters have no verdict yet.
    Running,
    /// Every letter has its verdict.
    Done,
}

/// How many letters of a replay have which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = ReplayCounts)]
pub struct Verdicts {
    /// Applied by this replay.
    pub applied: i64,
    /// Everything that they ask for had been done before.
    pub already_applied: i64,
    /// Parked again.
    pub failed_again: i64,
    /// Behind a letter that is not done with.
    pub waiting: i64,
    /// Without a verdict yet.
    pub undecided: i64,
}

/// A replay as it stands.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The replay.
    pub replay_id: Uuid,
    /// Whether it changes nothing.
    pub dry_run: bool,
    /// Letters a second at most.
    pub rate_per_second: Option<i32>,
    /// How many letters it has.
    pub selected: i64,
    /// Who asked for it.
    pub requested_by: String,
    /// When.
    pub requested_at: Timestamp,
    /// How far it is.
    pub progress: Progress,
    /// The verdicts so far.
    pub verdicts: Verdicts,
}

/// A letter of a replay.
#[derive(Clone, Debug)]
pub struct Item {
    /// The letter.
    pub dead_letter_id: Uuid,
    /// The group that failed.
    pub group: String,
    /// What the replay made of it, once it has come to it.
    pub verdict: Option<Verdict>,
    /// Why it failed again, for operators.
    pub detail: Option<String>,
    /// When the verdict fell.
    pub decided_at: Option<Timestamp>,
}

/// A replay as it stands, if there is one.
///
/// # Errors
/// Where the database fails.
pub async fn get(pool: &PgPool, replay_id: Uuid) -> Result<Option<Replay>, sqlx::Error> {
    let newest = upto(pool, replay_id, 1).await?.into_iter().next();
    Ok(newest.filter(|replay| replay.replay_id == replay_id))
}

/// Replays, newest first, at most `limit`, of those asked for before the replay `before`.
///
/// # Errors
/// Where the database fails.
pub async fn list(pool: &PgPool, before: Option<Uuid>, limit: i64) -> Result<Vec<Replay>, sqlx::Error> {
    let last = before.map_or(Uuid::max(), |before| Uuid::from_u128(before.as_u128().saturating_sub(1)));
    upto(pool, last, limit).await
}

/// Replays, newest first, at most `limit`, from the replay `last` on.
async fn upto(pool: &PgPool, last: Uuid, limit: i64) -> Result<Vec<Replay>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT r.replay_id, r.dry_run, r.rate_per_second, r.selected, r.requested_by, r.requested_at,
               count(*) FILTER (WHERE i.verdict = 'APPLIED') AS "applied!",
               count(*) FILTER (WHERE i.verdict = 'ALREADY_APPLIED') AS "already_applied!",
               count(*) FILTER (WHERE i.verdict = 'FAILED_AGAIN') AS "failed_again!",
               count(*) FILTER (WHERE i.verdict = 'WAITING') AS "waiting!",
               count(*) FILTER (WHERE i.verdict IS NULL AND i.ordinal IS NOT NULL) AS "undecided!"
           FROM (
               SELECT * FROM dead_letter_replay WHERE replay_id <= $1 ORDER BY replay_id DESC LIMIT $2) r
           LEFT JOIN dead_letter_replay_item i USING (replay_id)
           GROUP BY r.replay_id, r.dry_run, r.rate_per_second, r.selected, r.requested_by, r.requested_at
           ORDER BY r.replay_id DESC"#,
        last,
        limit,
    )
    .fetch_all(pool)
    .await?;
    let replays = rows.into_iter().map(|row| Replay {
        replay_id: row.replay_id,
        dry_run: row.dry_run,
        rate_per_second: row.rate_per_second,
        selected: row.selected.into(),
        requested_by: row.requested_by,
        requested_at: row.requested_at.to_jiff(),
        progress: if row.undecided == 0 { Progress::Done } else { Progress::Running },
        verdicts: Verdicts {
            applied: row.applied,
            already_applied: row.already_applied,
            failed_again: row.failed_again,
            waiting: row.waiting,
            undecided: row.undecided,
        },
    });
    Ok(replays.collect())
}

/// Those of the replays of which every letter has its verdict.
///
/// # Errors
/// Where the database fails.
pub async fn done(pool: &PgPool, replay_ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT replay_id FROM dead_letter_replay r WHERE replay_id = ANY($1)
             AND NOT EXISTS (
                 SELECT FROM dead_letter_replay_item i WHERE i.replay_id = r.replay_id AND i.verdict IS NULL)",
        replay_ids,
    )
    .fetch_all(pool)
    .await
}

/// The groups whose workers still have letters of a replay to decide about, by name.
///
/// # Errors
/// Where the database fails.
pub async fn groups_at_work(pool: &PgPool, replay_id: Uuid) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT DISTINCT group_name FROM dead_letter_replay_item
         WHERE replay_id = $1 AND verdict IS NULL ORDER BY group_name",
        replay_id,
    )
    .fetch_all(pool)
    .await
}

/// The letters of a replay: those of a key one after the other, otherwise in the order in which they were put aside.
///
/// # Errors
/// Where the database fails.
pub async fn items(pool: &PgPool, replay_id: Uuid) -> Result<Vec<Item>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT dead_letter_id, group_name, verdict AS "verdict: Verdict", detail, decided_at
           FROM dead_letter_replay_item WHERE replay_id = $1 ORDER BY ordinal"#,
        replay_id,
    )
    .fetch_all(pool)
    .await?;
    let items = rows.into_iter().map(|row| Item {
        dead_letter_id: row.dead_letter_id,
        group: row.group_name,
        verdict: row.verdict,
        detail: row.detail,
        decided_at: row.decided_at.map(|at| at.to_jiff()),
    });
    Ok(items.collect())
}
