//! The relay's one row: who leads, how far it is, and what it published last to each partition.

use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, PgPool};
use thiserror::Error;

use super::RelayError;
#[cfg(test)]
use super::published::Last;
use super::published::{Published, Tails};

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
        self.tails.0.0.get(topic).into_iter().flatten().map(|last| last.position).collect()
    }

    /// A cursor of era 1 at that position, which a topic's tails lead up to.
    #[cfg(test)]
    pub(crate) fn with_tails(log_end: i64, position: i64, topic: &str, tails: &[i64]) -> Cursor {
        let lasts = tails.iter().map(|position| Last { position: *position, offset: None }).collect();
        Cursor {
            era: 1,
            partitions: 1,
            epoch: 1,
            leader: None,
            position,
            tails: Json(Tails([(topic.to_owned(), lasts)].into())),
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

/// What was last published to each partition when the cursor stood at `position`: as it was at the checkpoint before, and as the log has it
/// from there on.
pub(super) async fn tails_at(
    connection: &mut PgConnection,
    position: i64,
    partitions: i16,
) -> Result<Tails, sqlx::Error> {
    let checkpoint = sqlx::query!(
        r#"SELECT position, tails AS "tails: Json<Tails>" FROM relay_checkpoint
           WHERE position <= $1 ORDER BY position DESC LIMIT 1"#,
        position,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let (after, known) = checkpoint.map_or_else(Default::default, |row| (row.position, row.tails.0));
    // Where it lies by now may be elsewhere.
    let mut tails = known.without_offsets();
    let rows = sqlx::query!(
        r#"SELECT word AS topic, partition AS "partition!", position AS "position!" FROM (
               SELECT e.topic, e.partition, max(number * 100000 + ordinal) AS position
               FROM log_segment s
                   CROSS JOIN LATERAL unnest(s.topic, s.partition) WITH ORDINALITY AS e (topic, partition, ordinal)
               WHERE number BETWEEN $2::bigint / 100000 AND $1::bigint / 100000
                   AND number * 100000 + ordinal > $2 AND number * 100000 + ordinal <= $1
               GROUP BY e.topic, e.partition
           ) AS e JOIN log_word ON code = topic"#,
        position,
        after,
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        tails.put(&row.topic, row.partition, row.position, partitions);
    }
    Ok(tails)
}

/// The highest position that was ever drawn; 0 where none was.
pub(crate) async fn log_end(database: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT event_log_end() AS "position!""#).fetch_one(database).await
}
