//! Whether the log is whole, and whether Kafka holds what the log says.
//!
//! Everything here only reads, and may be run beside a working pipeline.

mod check;
mod dead_letters;
mod kafka;
mod log;
mod partition;
mod records;
mod report;

use sqlx::{PgPool, Postgres, Transaction};

use crate::database;

pub use check::{Check, Found, SHOWN_MAX};
pub use dead_letters::dead_letters;
pub use kafka::{AuditError, log_against_kafka};
pub use log::{Applied, LoggedEvent, applied, page, put_aside, sequences};
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
