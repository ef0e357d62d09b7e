//! How the relay stands, for operators.

use serde::Serialize;
use sqlx::PgPool;

use super::RelayError;
use super::cursor::{Cursor, CursorError};

/// Who leads, and how far log and relay are.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The instance that leads; none where no lease is running.
    pub leader: Option<String>,
    /// Counts leaders.
    pub epoch: i64,
    /// Counts logs: one more for each adoption.
    pub era: i32,
    /// Where the log ended when the era began: labels of earlier eras above it name events that are lost.
    pub era_after: i64,
    /// Whether an adoption was begun and not finished, so that nothing is published.
    pub adopting: bool,
    /// Everything up to here was acknowledged by Kafka.
    pub position: i64,
    /// The highest position of the log.
    pub log_end: i64,
    /// How many events lie between the two.
    pub lag: i64,
    /// What was asked to be published again and is not begun: everything above this position.
    pub repeat_after: Option<i64>,
    /// The oldest transaction that writes, in any database of the cluster: the relay waits for it where a number of the log
    /// is missing below one that is known.
    pub oldest_transaction: Option<OpenTransaction>,
}

/// A transaction that is open.
#[derive(Clone, Debug, Serialize)]
pub struct OpenTransaction {
    /// The process id of its session; none where it is a prepared one.
    pub pid: Option<i32>,
    /// Its database.
    pub database: String,
    /// For how many seconds it has been open.
    pub age_s: f64,
}

/// Looks how the relay stands.
///
/// # Errors
/// [`CursorError::NotInstalled`] where the log was never set up, or where the database fails.
pub async fn status(pool: &PgPool) -> Result<Status, RelayError> {
    let cursor = Cursor::read(pool).await?.ok_or(CursorError::NotInstalled)?;
    let lag = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(events), 0) - least($1::bigint % 100000,
               coalesce((SELECT events FROM log_segment WHERE number = $1 / 100000), 0)) AS "lag!"
           FROM log_segment WHERE number >= $1 / 100000 AND number <= $2::bigint / 100000"#,
        cursor.position,
        cursor.log_end,
    );
    let lag = lag.fetch_one(pool).await?;
    let oldest_transaction = sqlx::query_as!(
        OpenTransaction,
        r#"SELECT pid, database AS "database!", extract(epoch FROM clock_timestamp() - began)::float8 AS "age_s!"
           FROM (
               SELECT pid, datname::text AS database, xact_start AS began FROM pg_stat_activity
               WHERE backend_xid IS NOT NULL AND xact_start IS NOT NULL AND datname IS NOT NULL
               UNION ALL
               SELECT NULL, database::text, prepared FROM pg_prepared_xacts
           ) AS open
           ORDER BY began LIMIT 1"#
    )
    .fetch_optional(pool)
    .await?;
    let Cursor { leader, epoch, era, era_after, adopting, position, log_end, repeat_after, .. } = cursor;
    Ok(Status {
        leader,
        epoch,
        era,
        era_after,
        adopting,
        position,
        log_end,
        lag,
        repeat_after,
        oldest_transaction,
    })
}
