//! The relay's one row: who leads, how far it is, and what it published last to each partition.

use std::time::{Duration, Instant};

use sqlx::types::Json;
use sqlx::{PgExecutor, PgPool};
use thiserror::Error;

use super::RelayError;
use super::published::{Published, Tails};
use super::repeat::{Only, Repeat};

/// Why the cursor can't be used.
#[derive(Debug, Error)]
pub enum CursorError {
    /// Another instance leads now.
    #[error("another relay has taken over")]
    Lost,
    /// The log was never set up.
    #[error("the log is not set up: run `ordermill migrate`")]
    NotInstalled,
    /// The log began in another database cluster.
    #[error(
        "this database is a copy of another one (system identifier {found}, the log began in {expected}); \
         labels would repeat, so nothing is published from it: use the original, or, where that one is lost for \
         good, stop all relays and workers and run `ordermill relay adopt`"
    )]
    OtherDatabase {
        /// The identifier of the cluster that the log began in.
        expected: i64,
        /// The identifier of this cluster.
        found: i64,
    },
    /// A new era was begun, but its topics are not known to be fresh.
    #[error("an adoption was begun and not finished: run `ordermill relay adopt` again, as before")]
    Adopting,
    /// The log was written for another number of partitions.
    #[error(
        "the log was written for {expected} partitions, not {found}; the number can't change: leave --partitions and \
         ORDERMILL_PARTITIONS out, or set up another database"
    )]
    PartitionCount {
        /// What the log was written for.
        expected: i16,
        /// What is asked for now.
        found: i16,
    },
}

/// Sets the log up, once: for `wanted` partitions, or for the default. Later calls only check that it is the wanted number,
/// if one is. Answers the number.
///
/// # Errors
/// [`RelayError::Cursor`] where the number differs, [`RelayError::Database`] where the database fails.
pub async fn install(pool: &PgPool, wanted: Option<i16>, default: i16) -> Result<i16, RelayError> {
    sqlx::query!(
        "INSERT INTO relay_cursor (system_identifier, partitions)
         SELECT system_identifier, $1 FROM pg_control_system() ON CONFLICT DO NOTHING",
        wanted.unwrap_or(default),
    )
    .execute(pool)
    .await?;
    let expected = partitions(pool).await?;
    match wanted {
        Some(found) if found != expected => Err(CursorError::PartitionCount { expected, found }.into()),
        _ => Ok(expected),
    }
}

/// The cursor as it stands, and the log's end at that moment.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    /// The era of the log.
    pub(crate) era: i32,
    pub(crate) partitions: i16,
    /// Counts leaders.
    pub(crate) epoch: i64,
    /// The instance that leads; none where no lease is running.
    pub(crate) leader: Option<String>,
    /// Everything up to here was acknowledged by Kafka.
    pub(crate) position: i64,
    /// Of that, what was published last.
    pub(crate) tails: Json<Tails>,
    /// Nothing up to here has been published in this era.
    pub(crate) published_after: i64,
    /// Where the log ended when the era began.
    pub(crate) era_after: i64,
    /// An adoption was begun and not finished.
    pub(crate) adopting: bool,
    /// Everything above is asked to be published again.
    pub(crate) repeat_after: Option<i64>,
    /// The highest position that was committed.
    pub(crate) log_end: i64,
}

impl Cursor {
    /// Reads it; `None` where the log was never set up.
    pub(crate) async fn read(database: impl PgExecutor<'_>) -> Result<Option<Cursor>, sqlx::Error> {
        sqlx::query_as!(
            Cursor,
            r#"SELECT era, partitions, epoch, CASE WHEN lease_until > clock_timestamp() THEN leader END AS leader, position,
                   tails AS "tails: Json<Tails>", published_after, era_after, adopting, repeat_after,
                   coalesce((SELECT number * 100000 + events FROM log_segment ORDER BY number DESC LIMIT 1), 0) AS "log_end!"
               FROM relay_cursor"#
        )
        .fetch_optional(database)
        .await
    }

    /// What has been published in the log's era.
    pub(crate) fn published(self) -> Published {
        Published { era: self.era, tails: self.tails.0, after: self.published_after }
    }

    /// The last position published to each partition of a topic; empty where nothing was published to it.
    pub(crate) fn tails_of(&self, topic: &str) -> Vec<i64> {
        self.tails.0.0.get(topic).cloned().unwrap_or_default()
    }

    /// A cursor of era 1 at that position, which a topic's tails lead up to.
    #[cfg(test)]
    pub(crate) fn with_tails(log_end: i64, position: i64, topic: &str, tails: &[i64]) -> Cursor {
        Cursor {
            era: 1,
            partitions: 1,
            epoch: 1,
            leader: None,
            position,
            tails: Json(Tails([(topic.to_owned(), tails.to_vec())].into())),
            published_after: 0,
            era_after: 0,
            adopting: false,
            repeat_after: None,
            log_end,
        }
    }

    /// The topics that something was published to.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &String> {
        self.tails.0.0.keys()
    }
}

/// How many partitions the log is written for.
///
/// # Errors
/// [`CursorError::NotInstalled`] where the log was never set up, or where the database fails.
pub async fn partitions(pool: &PgPool) -> Result<i16, RelayError> {
    Ok(Cursor::read(pool).await?.ok_or(CursorError::NotInstalled)?.partitions)
}

/// What was last published to each partition when the cursor stood at `position`: read from the whole log,
/// which is rare enough.
pub(super) async fn tails_at(
    database: impl PgExecutor<'_>,
    position: i64,
    partitions: i16,
) -> Result<Tails, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT word AS topic, partition AS "partition!", position AS "position!" FROM (
               SELECT e.topic, e.partition, max(number * 100000 + ordinal) AS position
               FROM log_segment s
                   CROSS JOIN LATERAL unnest(s.topic, s.partition) WITH ORDINALITY AS e (topic, partition, ordinal)
               WHERE number <= $1::bigint / 100000 AND number * 100000 + ordinal <= $1 GROUP BY e.topic, e.partition
           ) AS e JOIN log_word ON code = topic"#,
        position,
    )
    .fetch_all(database)
    .await?;
    let mut tails = Tails::default();
    for row in rows {
        tails.replace(&row.topic, row.partition, row.position, partitions);
    }
    Ok(tails)
}

/// The right to publish, as long as the lease is kept.
pub(super) struct Leadership {
    pub(super) epoch: i64,
    pub(super) era: i32,
    pub(super) partitions: i16,
    pub(super) position: i64,
    pub(super) tails: Tails,
    /// Nothing up to here has been published in this era.
    pub(super) published_after: i64,
    /// Of a stretch of the log, only some topics are published again.
    pub(super) only: Option<Only>,
    /// Counts how often the cursor was moved back.
    pub(super) rewinds: u64,
    pool: PgPool,
    lease: Duration,
    kept_at: Instant,
}

impl Leadership {
    /// Takes the lead if nobody holds it.
    pub(super) async fn acquire(
        pool: &PgPool,
        instance: &str,
        lease: Duration,
    ) -> Result<Option<Leadership>, RelayError> {
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
        let leadership = Leadership {
            epoch: row.epoch,
            era: row.era,
            partitions: row.partitions,
            position: row.position,
            tails: row.tails.0,
            published_after: row.published_after,
            only: None,
            rewinds: 0,
            pool: pool.clone(),
            lease,
            kept_at,
        };
        if row.adopting {
            leadership.release().await?;
            return Err(CursorError::Adopting.into());
        }
        if row.system_identifier != row.here {
            leadership.release().await?;
            let (expected, found) = (row.system_identifier, row.here);
            return Err(CursorError::OtherDatabase { expected, found }.into());
        }
        Ok(Some(leadership))
    }

    /// How far this leader has come.
    pub(super) fn published(&self) -> Published {
        Published { era: self.era, tails: self.tails.clone(), after: self.published_after }
    }

    /// Keeps the lease if it is getting old, and answers what is asked to be published again.
    pub(super) async fn keep(&mut self) -> Result<Option<Repeat>, RelayError> {
        if self.kept_at.elapsed() < self.lease / 6 {
            return Ok(None);
        }
        let kept_at = Instant::now();
        let row = sqlx::query!(
            "UPDATE relay_cursor SET lease_until = clock_timestamp() + make_interval(secs => $2)
             WHERE epoch = $1 RETURNING repeat_after, repeat_topics",
            self.epoch,
            self.lease.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .await?;
        self.kept_at = kept_at;
        let row = row.ok_or(CursorError::Lost)?;
        Ok(row.repeat_after.map(|after| Repeat { after, topics: row.repeat_topics }))
    }

    /// Moves the cursor to `position`, everything up to which Kafka has acknowledged. Answers what is asked to be
    /// published again.
    ///
    /// The commit is not waited for: a cursor that falls back after a power cut only repeats.
    pub(super) async fn advance(
        &mut self,
        position: i64,
        tails: Tails,
    ) -> Result<Option<Repeat>, RelayError> {
        let kept_at = Instant::now();
        let row = sqlx::query!(
            "WITH asynchronous AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
             UPDATE relay_cursor
             SET position = $2, tails = $3, lease_until = clock_timestamp() + make_interval(secs => $4)
             FROM asynchronous
             WHERE epoch = $1 RETURNING repeat_after, repeat_topics",
            self.epoch,
            position,
            Json(&tails) as _,
            self.lease.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .await?;
        let row = row.ok_or(CursorError::Lost)?;
        (self.position, self.tails, self.kept_at) = (position, tails, kept_at);
        self.only.take_if(|only| only.upto <= position);
        Ok(row.repeat_after.map(|after| Repeat { after, topics: row.repeat_topics }))
    }

    /// Moves the cursor back, so that what is asked for is published again.
    pub(super) async fn rewind(&mut self, repeat: Repeat, tails: Tails) -> Result<(), RelayError> {
        // A request that asks for more than this one has come meanwhile, and stays.
        let row = sqlx::query!(
            "UPDATE relay_cursor SET position = $2, tails = $3, published_after = LEAST(published_after, $2),
                 repeat_after = CASE WHEN repeat_after < $2
                     OR ($4::text[] IS NOT NULL AND repeat_topics IS DISTINCT FROM $4) THEN repeat_after END,
                 repeat_topics = CASE WHEN repeat_after < $2
                     OR ($4::text[] IS NOT NULL AND repeat_topics IS DISTINCT FROM $4) THEN repeat_topics END
             WHERE epoch = $1 RETURNING published_after",
            self.epoch,
            repeat.after,
            Json(&tails) as _,
            repeat.topics.as_deref() as _,
        )
        .fetch_optional(&self.pool)
        .await?;
        let row = row.ok_or(CursorError::Lost)?;
        self.only = Only::next(self.only.take(), &repeat, self.published_after, self.position);
        (self.position, self.tails, self.published_after) = (repeat.after, tails, row.published_after);
        self.rewinds += 1;
        Ok(())
    }

    /// Takes in a request for what lies above the cursor, and so is published anyway, and forgets it.
    pub(super) async fn take_in(&mut self, repeat: &Repeat) -> Result<(), RelayError> {
        sqlx::query!(
            "UPDATE relay_cursor SET repeat_after = NULL, repeat_topics = NULL
             WHERE epoch = $1 AND repeat_after = $2 AND repeat_topics IS NOT DISTINCT FROM $3",
            self.epoch,
            repeat.after,
            repeat.topics.as_deref() as _,
        )
        .execute(&self.pool)
        .await?;
        self.only = self.only.take().and_then(|only| only.with(repeat));
        Ok(())
    }

    /// Gives the lease back, so that another can lead at once.
    pub(super) async fn release(&self) -> Result<(), RelayError> {
        sqlx::query!(
            "UPDATE relay_cursor SET lease_until = '-infinity', leader = NULL WHERE epoch = $1",
            self.epoch,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
