//! Whether the log is whole, and whether Kafka holds what the log says.
//!
//! Everything here only reads, and may be run beside a working pipeline.

mod check;
mod dead_letters;
mod histories;
mod kafka;
mod log;
mod partition;
mod records;
mod report;

use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction};

use crate::database;

pub use check::{Check, Found, SHOWN_MAX};
pub use dead_letters::dead_letters;
pub use histories::{Histories, PAGE_EVENTS, Slice, slices};
pub use kafka::{AuditError, log_against_kafka};
pub use log::{Applied, LoggedEvent, applied, count, hold_offsets, page, published, put_aside, sequences};
pub use report::Report;

/// Begins a transaction that sees one moment of the whole database for as long as it lasts, and changes nothing.
///
/// The relay does not wait for it, however long it lasts: it never gets a transaction id, and the xmin of
/// others' snapshots counts only running transactions that have one (tried: with this transaction open for
/// seconds, writers went on and `pg_current_snapshot()` of other sessions moved past its snapshot). What it
/// does hold back meanwhile is vacuum, and so the pruning of rows that are updated often.
///
/// # Errors
/// Where the database does not answer.
pub async fn snapshot(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut transaction = database::begin(pool).await?;
    sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

/// What names a snapshot to others, for as long as its transaction lasts.
#[derive(Clone, Debug)]
pub struct Moment(String);

/// Names what the transaction of [`snapshot`] sees, so that other connections can see the same.
///
/// # Errors
/// Where the database fails.
pub async fn moment(snapshot: &mut PgConnection) -> Result<Moment, sqlx::Error> {
    outlast_silence(&mut *snapshot).await?;
    let name = sqlx::query_scalar!(r#"SELECT pg_export_snapshot() AS "name!""#);
    Ok(Moment(name.fetch_one(snapshot).await?))
}

/// Begins a transaction that sees the very moment that another one does, which must still be open.
///
/// # Errors
/// Where the database does not answer, or the other transaction has ended.
pub async fn snapshot_of(
    pool: &PgPool,
    moment: &Moment,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut transaction = snapshot(pool).await?;
    // The name is the database's own word; the statement takes no parameters.
    let see = format!("SET TRANSACTION SNAPSHOT '{}'", moment.0);
    sqlx::query(AssertSqlSafe(see)).persistent(false).execute(&mut *transaction).await?;
    outlast_silence(&mut transaction).await?;
    Ok(transaction)
}

/// What is read meanwhile on other connections may take long. The relay does not wait for such a transaction.
async fn outlast_silence(snapshot: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SET LOCAL idle_in_transaction_session_timeout = 0").execute(snapshot).await?;
    Ok(())
}
