//! The rows that a worker goes through when it applies letters: what is next, and what became of it.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::types::Json;
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::verdicts::{Attempt, Decision};
use super::{State, Verdict, storable};
use crate::database;
use crate::log::RecordPlace;
use crate::record::Record;
use crate::stored_header::StoredHeader;

/// Letters of one replay that have no verdict yet; their items are locked.
pub(crate) struct Task {
    pub(crate) replay_id: Uuid,
    pub(crate) dry_run: bool,
    requested_at: Timestamp,
    /// Whether the replay takes only so many letters a second.
    pub(crate) has_rate: bool,
    /// Those of a key one after the other, in the order in which they were put aside.
    pub(crate) dead_letter_ids: Vec<Uuid>,
}

/// Whether there may be anything to do for a group.
pub(crate) struct Ahead {
    /// There may.
    pub(crate) any_work: bool,
    /// It has letters that are not done with, so that there may be at any time.
    pub(crate) any_letters: bool,
}

/// Looks whether there may be anything to do for this group. One small statement, since it is asked for again and again.
pub(crate) async fn ahead(pool: &PgPool, group: &str) -> Result<Ahead, sqlx::Error> {
    sqlx::query_as!(
        Ahead,
        r#"SELECT EXISTS (SELECT FROM parked_key WHERE group_name = $1 AND releasing)
               OR EXISTS (SELECT FROM dead_letter_replay_item WHERE group_name = $1 AND verdict IS NULL) AS "any_work!",
               EXISTS (SELECT FROM dead_letter WHERE group_name = $1 AND state IN ('PARKED', 'WAITING', 'REPLAYED'))
               AS "any_letters!""#,
        group,
    )
    .fetch_one(pool)
    .await
}

/// When the next letter of this group may be taken, where all that is to be replayed has a rate and must wait.
pub(crate) async fn next_due(pool: &PgPool, group: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    let due = sqlx::query_scalar!(
        "SELECT min(r.next_at) FROM dead_letter_replay r
         WHERE r.replay_id IN (
             SELECT i.replay_id FROM dead_letter_replay_item i WHERE i.group_name = $1 AND i.verdict IS NULL)",
        group,
    )
    .fetch_one(pool)
    .await?;
    Ok(due.map(|at| at.to_jiff()))
}

/// A parked key.
pub(crate) struct Key {
    pub(crate) topic: String,
    pub(crate) record_key: Vec<u8>,
}

/// A letter that is to be applied, with everything that is needed for it.
pub(crate) struct Letter {
    pub(crate) dead_letter_id: Uuid,
    /// Its place in the order in which messages were put aside.
    pub(crate) ordinal: i64,
    pub(crate) state: State,
    pub(crate) record: Record,
    resolved_at: Option<Timestamp>,
    resolved_by: Option<Uuid>,
    had_effect: bool,
    /// The letter that its key is parked for.
    pub(crate) waits_for: Option<Uuid>,
    /// That letter is done with, and the turn of this one comes with the others that wait.
    pub(crate) releasing: bool,
}

impl Letter {
    /// The verdict of a replay on a letter that is resolved: by itself, because its key's letter was, or before.
    pub(crate) fn verdict_in(&self, task: &Task) -> Verdict {
        let here = match self.resolved_by {
            Some(replay_id) => replay_id == task.replay_id,
            None => self.resolved_at.is_some_and(|at| at >= task.requested_at),
        };
        Verdict::of_effect(here && self.had_effect)
    }
}

/// A transaction in which letters of a group are worked at.
pub(crate) struct Work {
    pub(crate) transaction: Transaction<'static, Postgres>,
    pub(crate) group: String,
    pub(crate) now: Timestamp,
}

impl Work {
    pub(crate) async fn begin(pool: &PgPool, group: &str, now: Timestamp) -> Result<Work, sqlx::Error> {
        Ok(Work { transaction: database::begin(pool).await?, group: group.to_owned(), now })
    }

    /// Takes the next letters that a replay wants from this group, `limit` at most. Where the replay has a rate, those of 50 ms, or
    /// one. Those that another member works at are passed over.
    pub(crate) async fn next_task(&mut self, limit: i64) -> Result<Option<Task>, sqlx::Error> {
        let items = sqlx::query!(
            r#"WITH next AS (
                   SELECT r.replay_id, r.dry_run, r.requested_at, r.rate_per_second FROM dead_letter_replay r
                   WHERE r.next_at <= $3 AND r.replay_id IN (
                       SELECT i.replay_id FROM dead_letter_replay_item i
                       WHERE i.group_name = $1 AND i.verdict IS NULL)
                   ORDER BY r.replay_id LIMIT 1
               )
               SELECT n.replay_id, n.dry_run, n.requested_at, n.rate_per_second, i.dead_letter_id
               FROM next n CROSS JOIN LATERAL (
                   SELECT i.dead_letter_id, i.ordinal FROM dead_letter_replay_item i
                   WHERE i.group_name = $1 AND i.replay_id = n.replay_id AND i.verdict IS NULL
                   ORDER BY i.ordinal LIMIT LEAST($2::bigint, GREATEST(n.rate_per_second / 20, 1))
                   FOR UPDATE SKIP LOCKED
               ) i ORDER BY i.ordinal"#,
            self.group,
            limit,
            self.now.to_sqlx() as _,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        let Some(first) = items.first() else { return Ok(None) };
        let task = Task {
            replay_id: first.replay_id,
            dry_run: first.dry_run,
            requested_at: first.requested_at.to_jiff(),
            has_rate: first.rate_per_second.is_some(),
            dead_letter_ids: items.iter().map(|item| item.dead_letter_id).collect(),
        };
        let Some(rate) = first.rate_per_second else { return Ok(Some(task)) };
        // One row for all groups and members: whoever moves it may take letters, and the next one must wait.
        let taken = sqlx::query!(
            "UPDATE dead_letter_replay SET next_at = $2::timestamptz + make_interval(secs => $3)
             WHERE replay_id = $1 AND next_at <= $2",
            task.replay_id,
            self.now.to_sqlx() as _,
            items.len() as f64 / f64::from(rate),
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok((taken.rows_affected() == 1).then_some(task))
    }

    /// Writes the verdicts of a replay.
    pub(crate) async fn decide(&mut self, task: &Task, decisions: &[Decision]) -> Result<(), sqlx::Error> {
        let ids: Vec<Uuid> = decisions.iter().map(|decision| decision.dead_letter_id).collect();
        let verdicts: Vec<String> =
            decisions.iter().map(|decision| decision.verdict.name().to_owned()).collect();
        let details: Vec<Option<String>> =
            decisions.iter().map(|d| d.detail.as_deref().map(storable)).collect();
        sqlx::query!(
            "UPDATE dead_letter_replay_item i SET verdict = d.verdict, detail = d.detail, decided_at = $5
             FROM unnest($2::uuid[], $3::text[], $4::text[]) AS d (dead_letter_id, verdict, detail)
             WHERE i.replay_id = $1 AND i.dead_letter_id = d.dead_letter_id AND i.verdict IS NULL",
            task.replay_id,
            &ids,
            &verdicts,
            details as _,
            self.now.to_sqlx() as _,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// These letters, in the order in which they were put aside. Nothing is locked.
    pub(crate) async fn letters(&mut self, ids: &[Uuid]) -> Result<Vec<Letter>, sqlx::Error> {
        let rows = sqlx::query!(
            r#"SELECT d.dead_letter_id, d.topic, d.partition, d.record_offset,
                   coalesce(d.record_key, d.foreign_record_key) AS record_key,
                   d.headers AS "headers: Json<Vec<StoredHeader>>", d.payload, d.authentic, d.state AS "state: State", d.resolved_at,
                   d.resolved_by, coalesce(d.had_effect, false) AS "had_effect!",
                   d.ordinal, p.dead_letter_id AS "waits_for?", coalesce(p.releasing, false) AS "releasing!"
               FROM dead_letter d
               LEFT JOIN parked_key p
                   ON p.group_name = d.group_name AND p.topic = d.topic AND p.record_key = d.record_key
               WHERE d.dead_letter_id = ANY($1) ORDER BY d.ordinal"#,
            ids,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        let letters = rows.into_iter().map(|row| {
            let place = RecordPlace { topic: row.topic, partition: row.partition, offset: row.record_offset };
            Letter {
                dead_letter_id: row.dead_letter_id,
                ordinal: row.ordinal,
                state: row.state,
                record: Record::stored(place, row.record_key, &row.headers.0, row.payload, row.authentic),
                resolved_at: row.resolved_at.map(|at| at.to_jiff()),
                resolved_by: row.resolved_by,
                had_effect: row.had_effect,
                waits_for: row.waits_for,
                releasing: row.releasing,
            }
        });
        Ok(letters.collect())
    }

    /// Locks the keys of letters, where they are parked, and then the letters.
    pub(crate) async fn lock(&mut self, dead_letter_ids: &[Uuid]) -> Result<Vec<Letter>, sqlx::Error> {
        sqlx::query!(
            "SELECT p.topic FROM parked_key p
             JOIN (SELECT DISTINCT topic, record_key FROM dead_letter WHERE dead_letter_id = ANY($2)) d
                 ON p.topic = d.topic AND p.record_key = d.record_key
             WHERE p.group_name = $1
             ORDER BY p.topic, p.record_key FOR UPDATE OF p",
            self.group,
            dead_letter_ids,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        sqlx::query!(
            "SELECT state FROM dead_letter WHERE dead_letter_id = ANY($1) ORDER BY dead_letter_id FOR UPDATE",
            dead_letter_ids,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        // What is read from here on is what the locks have waited for.
        self.letters(dead_letter_ids).await
    }

    /// Takes a key whose letter is done with, so that what waits can be applied. Keys that another member works at are
    /// passed over.
    pub(crate) async fn releasing_key(&mut self) -> Result<Option<Key>, sqlx::Error> {
        sqlx::query_as!(
            Key,
            "SELECT topic, record_key FROM parked_key WHERE group_name = $1 AND releasing
             ORDER BY topic, record_key LIMIT 1 FOR UPDATE SKIP LOCKED",
            self.group,
        )
        .fetch_optional(&mut *self.transaction)
        .await
    }

    /// What waits for a key, in order, at most `limit`.
    pub(crate) async fn waiting(&mut self, key: &Key, limit: i64) -> Result<Vec<Letter>, sqlx::Error> {
        let ids = self.waiting_ids(key, limit).await?;
        self.letters(&ids).await
    }

    /// The ids of what waits for a key, in order, at most `limit`.
    pub(super) async fn waiting_ids(&mut self, key: &Key, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
        sqlx::query_scalar!(
            "SELECT dead_letter_id FROM dead_letter
             WHERE group_name = $1 AND topic = $2 AND record_key = $3 AND state = 'WAITING'
             ORDER BY ordinal LIMIT $4 FOR UPDATE",
            self.group,
            key.topic,
            key.record_key,
            limit,
        )
        .fetch_all(&mut *self.transaction)
        .await
    }

    /// Notes what came of letters, and answers which have been applied, by that replay or as ones that waited. Those that
    /// have failed, once more or for the first time, are parked.
    pub(crate) async fn settle(
        &mut self,
        letters: &[Letter],
        attempts: &[Attempt],
        replay_id: Option<Uuid>,
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        let (mut applied, mut effects) = (Vec::new(), Vec::new());
        let (mut failed, mut codes, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (Letter { dead_letter_id, .. }, attempt) in letters.iter().zip(attempts) {
            match attempt {
                Ok(had_effect) => {
                    applied.push(*dead_letter_id);
                    effects.push(*had_effect);
                }
                Err((code, error)) => {
                    failed.push(*dead_letter_id);
                    codes.push(code.name().to_owned());
                    errors.push(storable(error));
                }
            }
        }
        sqlx::query!(
            "UPDATE dead_letter d
             SET state = 'RESOLVED', resolved_at = $3, resolved_by = $4, had_effect = e.had_effect
             FROM unnest($1::uuid[], $2::boolean[]) AS e (dead_letter_id, had_effect)
             WHERE d.dead_letter_id = e.dead_letter_id",
            &applied,
            &effects,
            self.now.to_sqlx() as _,
            replay_id,
        )
        .execute(&mut *self.transaction)
        .await?;
        sqlx::query!(
            "UPDATE dead_letter d
             SET state = 'PARKED', code = f.code, error = f.error, attempts = attempts + 1, last_failed_at = $4,
                 first_failed_at = coalesce(first_failed_at, $4)
             FROM unnest($1::uuid[], $2::text[], $3::text[]) AS f (dead_letter_id, code, error)
             WHERE d.dead_letter_id = f.dead_letter_id",
            &failed,
            &codes,
            &errors,
            self.now.to_sqlx() as _,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(applied)
    }

    /// The letters that keys are parked for are done with: what waits is applied next; where nothing does, the group applies
    /// the key's messages as they come.
    pub(crate) async fn release(&mut self, dead_letter_ids: &[Uuid]) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "WITH done AS (
                 SELECT p.topic, p.record_key, EXISTS (
                     SELECT FROM dead_letter w
                     WHERE w.group_name = $1 AND w.topic = p.topic AND w.record_key = p.record_key
                         AND w.state = 'WAITING') AS any_waits
                 FROM parked_key p WHERE p.group_name = $1 AND p.dead_letter_id = ANY($2)
             ), released AS (
                 UPDATE parked_key p SET releasing = true FROM done d
                 WHERE d.any_waits AND p.group_name = $1 AND p.topic = d.topic AND p.record_key = d.record_key
             )
             DELETE FROM parked_key p USING done d
             WHERE NOT d.any_waits AND p.group_name = $1 AND p.topic = d.topic AND p.record_key = d.record_key",
            self.group,
            dead_letter_ids,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// The key is parked for another letter: one that waited has failed.
    pub(crate) async fn park_for(&mut self, key: &Key, dead_letter_id: Uuid) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE parked_key SET dead_letter_id = $4, releasing = false
             WHERE group_name = $1 AND topic = $2 AND record_key = $3",
            self.group,
            key.topic,
            key.record_key,
            dead_letter_id,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Nothing waits any more: the group applies the key's messages as they come.
    pub(crate) async fn unpark(&mut self, key: &Key) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "DELETE FROM parked_key WHERE group_name = $1 AND topic = $2 AND record_key = $3",
            self.group,
            key.topic,
            key.record_key,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }
}
