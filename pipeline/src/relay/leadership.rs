//! The lead: taken, kept and given back in the cursor's row, which only the leader moves.

use std::pin::pin;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::types::Json;

use super::RelayError;
use super::core::{Begin, Progress, Repeat, Write, Written};
use super::cursor::{CursorError, partitions, tails_at};
use super::places::{Columns, Places};
use super::published::Tails;
use crate::log::SEGMENT_POSITIONS;

/// How many positions lie between two checkpoints, about: so much of the log is read for a step back.
const CHECKPOINT_EVERY: i64 = 1_000 * SEGMENT_POSITIONS;

/// The right to publish, as long as the lease is kept.
#[derive(Clone)]
pub(super) struct Leadership {
    pub(super) epoch: i64,
    pool: PgPool,
    lease: Duration,
    partitions: i16,
}

impl Leadership {
    /// Takes the lead if nobody holds it. Answers where it begins.
    pub(super) async fn acquire(
        pool: &PgPool,
        instance: &str,
        lease: Duration,
    ) -> Result<Option<(Leadership, Begin)>, RelayError> {
        let kept_at = Instant::now();
        let row = sqlx::query!(
            r#"UPDATE relay_cursor
               SET leader = $1, epoch = epoch + 1, lease_until = clock_timestamp() + make_interval(secs => $2)
               WHERE lease_until < clock_timestamp()
               RETURNING epoch, era, partitions, position, tails AS "tails: Json<Tails>", published_after, adopting,
                   system_identifier, (SELECT system_identifier FROM pg_control_system()) AS "here!""#,
            instance,
            lease.as_secs_f64(),
        )
        .fetch_optional(pool)
        .await?;
        let Some(row) = row else {
            partitions(pool).await?;
            return Ok(None);
        };
        let leadership =
            Leadership { epoch: row.epoch, pool: pool.clone(), lease, partitions: row.partitions };
        if row.adopting {
            leadership.release().await?;
            return Err(CursorError::Adopting.into());
        }
        if row.system_identifier != row.here {
            leadership.release().await?;
            let (expected, found) = (row.system_identifier, row.here);
            return Err(CursorError::OtherDatabase { expected, found }.into());
        }
        let begin = Begin {
            era: row.era,
            partitions: row.partitions,
            published: Progress { position: row.position, tails: row.tails.0 },
            published_after: row.published_after,
            kept_at,
        };
        Ok(Some((leadership, begin)))
    }

    /// Writes the cursor's row.
    pub(super) async fn write(&self, write: &Write) -> Result<Written, RelayError> {
        match write {
            Write::Lease => Ok(Written::Kept(self.keep(true).await?)),
            Write::Cursor(progress, places) => Ok(Written::Kept(self.advance(progress, places).await?)),
            Write::GoBack(repeat) => self.go_back(repeat).await,
            Write::TakeIn(repeat) => self.forget(repeat).await,
        }
    }

    /// Keeps the lease, and answers what is asked to be published again. Whoever only prepares does not lead yet.
    async fn keep(&self, leads: bool) -> Result<Option<Repeat>, RelayError> {
        let row = sqlx::query!(
            "UPDATE relay_cursor SET lease_until = clock_timestamp() + make_interval(secs => $2),
                 led_at = CASE WHEN $3 THEN clock_timestamp() ELSE led_at END
             WHERE epoch = $1 RETURNING repeat_after, repeat_topics",
            self.epoch,
            self.lease.as_secs_f64(),
            leads,
        )
        .fetch_optional(&self.pool)
        .await?;
        let row = row.ok_or(CursorError::Lost)?;
        Ok(row.repeat_after.map(|after| Repeat { after, topics: row.repeat_topics }))
    }

    /// Waits for work that may take longer than the lease, which is kept meanwhile. What is asked for meanwhile is asked for again.
    pub(super) async fn keeping<T>(&self, work: impl Future<Output = T>) -> Result<T, RelayError> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return Ok(outcome),
                () = tokio::time::sleep(self.lease / 6) => drop(self.keep(false).await?),
            }
        }
    }

    /// Moves the cursor on, and answers what is asked to be published again.
    ///
    /// The commit is not waited for: a cursor that falls back after a power cut only repeats.
    async fn advance(
        &self,
        Progress { position, tails }: &Progress,
        places: &Places,
    ) -> Result<Option<Repeat>, RelayError> {
        let Columns { numbers, firsts, lasts, offsets } = places.columns();
        // What is sent again comes to lie elsewhere; what is left out then lies where it was.
        let row = sqlx::query!(
            "WITH asynchronous AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)), moved AS (
                 UPDATE relay_cursor
                 SET position = $2, tails = $3, led_at = clock_timestamp(),
                     lease_until = clock_timestamp() + make_interval(secs => $4)
                 FROM asynchronous WHERE epoch = $1 RETURNING repeat_after, repeat_topics
             ), checkpoint AS (
                 INSERT INTO relay_checkpoint (position, tails)
                 SELECT $2, $3 FROM relay_cursor WHERE epoch = $1 AND position / $9::bigint < $2::bigint / $9
                 ON CONFLICT DO NOTHING
             ), placed AS (
                 INSERT INTO log_place AS former (number, offsets)
                 SELECT number, ($8::bigint[])[first:last]
                 FROM moved, unnest($5::bigint[], $6::integer[], $7::integer[]) AS segment (number, first, last)
                 ON CONFLICT (number) DO UPDATE SET offsets = ARRAY(
                     SELECT coalesce(nullif(latest.found, -1), latest.former, -1)
                     FROM unnest(excluded.offsets, former.offsets) WITH ORDINALITY AS latest (found, former, ordinal)
                     ORDER BY ordinal
                 )
             )
             SELECT repeat_after, repeat_topics FROM moved",
            self.epoch,
            position,
            Json(tails) as _,
            self.lease.as_secs_f64(),
            &numbers,
            &firsts,
            &lasts,
            &offsets,
            CHECKPOINT_EVERY,
        )
        .fetch_optional(&self.pool)
        .await?;
        let row = row.ok_or(CursorError::Lost)?;
        Ok(row.repeat_after.map(|after| Repeat { after, topics: row.repeat_topics }))
    }

    async fn tails_at(&self, position: i64) -> Result<Tails, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        tails_at(&mut connection, position, self.partitions).await
    }

    /// Moves the cursor back, so that what is asked for is published again.
    async fn go_back(&self, repeat: &Repeat) -> Result<Written, RelayError> {
        let tails = self.keeping(self.tails_at(repeat.after)).await??;
        // A request that asks for more than this one has come meanwhile, and stays.
        let row = sqlx::query!(
            "WITH signed AS (UPDATE wire_key SET signed_after = $2 WHERE revoked_at IS NULL AND signed_after > $2)
             UPDATE relay_cursor SET position = $2, tails = $3, published_after = LEAST(published_after, $2),
                 repeat_after = CASE WHEN repeat_after < $2
                     OR ($4::text[] IS NOT NULL AND (repeat_topics <@ $4) IS NOT TRUE) THEN repeat_after END,
                 repeat_topics = CASE WHEN repeat_after < $2
                     OR ($4::text[] IS NOT NULL AND (repeat_topics <@ $4) IS NOT TRUE) THEN repeat_topics END,
                 lease_until = clock_timestamp() + make_interval(secs => $5)
             WHERE epoch = $1 RETURNING published_after",
            self.epoch,
            repeat.after,
            Json(&tails) as _,
            repeat.topics.as_deref() as _,
            self.lease.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .await?;
        let row = row.ok_or(CursorError::Lost)?;
        Ok(Written::WentBack { tails, published_after: row.published_after })
    }

    /// Forgets a request for what lies above the cursor, and so is published anyway.
    async fn forget(&self, repeat: &Repeat) -> Result<Written, RelayError> {
        let forgotten = sqlx::query!(
            "UPDATE relay_cursor SET
                 repeat_after = CASE WHEN repeat_after IS DISTINCT FROM $2
                     OR repeat_topics IS DISTINCT FROM $3 THEN repeat_after END,
                 repeat_topics = CASE WHEN repeat_after IS DISTINCT FROM $2
                     OR repeat_topics IS DISTINCT FROM $3 THEN repeat_topics END,
                 lease_until = clock_timestamp() + make_interval(secs => $4)
             WHERE epoch = $1",
            self.epoch,
            repeat.after,
            repeat.topics.as_deref() as _,
            self.lease.as_secs_f64(),
        )
        .execute(&self.pool)
        .await?;
        if forgotten.rows_affected() == 0 {
            return Err(CursorError::Lost.into());
        }
        Ok(Written::TookIn)
    }

    /// Gives the lease back, so that another can lead at once. With another epoch: a write that is still on its way would keep the lease.
    pub(super) async fn release(&self) -> Result<(), RelayError> {
        sqlx::query!(
            "UPDATE relay_cursor SET epoch = epoch + 1, lease_until = '-infinity', leader = NULL WHERE epoch = $1",
            self.epoch,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
