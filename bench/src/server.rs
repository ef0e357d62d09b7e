//! The PostgreSQL server that is measured: its settings, and what it counts.
//!
//! The statements here are about the server; none is about the shop's tables.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use sqlx::PgPool;

/// Has the server's statements be seen in this database. They are counted from the server's start on.
///
/// # Errors
/// Where the server does not count them: it must have been started with the library `pg_stat_statements`.
pub async fn count_statements(pool: &PgPool) -> Result<()> {
    // In a schema of its own, so that nobody takes it for a part of the shop's.
    sqlx::raw_sql(
        "CREATE SCHEMA IF NOT EXISTS bench;
         CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA bench",
    )
    .execute(pool)
    .await
    .context("statements can't be counted: is PostgreSQL's extension pg_stat_statements installed?")?;
    Ok(())
}

/// What the server has counted in the database that the pool is connected to: statements, those that begin and end
/// transactions among them; transactions that were committed, those of single statements among them, which write nothing
/// or something, and which a backend tells when it goes idle, but once a second at most; and the end of the write-ahead
/// log of all databases, in bytes.
///
/// # Errors
/// Where the server fails or does not count statements.
pub(crate) async fn counts(pool: &PgPool) -> Result<(f64, f64, f64, f64, f64)> {
    sqlx::query_as(
        "SELECT (SELECT coalesce(sum(calls), 0)::float8 FROM bench.pg_stat_statements WHERE dbid = d.datid),
             d.xact_commit::float8,
             (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8,
             (SELECT coalesce(sum(events), 0)::float8 FROM log_segment),
             (SELECT count(*)::float8 FROM log_segment)
         FROM pg_stat_database d WHERE d.datname = current_database()",
    )
    .fetch_one(pool)
    .await
    .context("the server does not tell its counts")
}

/// Writes to disk what is in memory only, so that the next phase does not pay for the last one.
///
/// # Errors
/// Where the server fails.
pub async fn checkpoint(pool: &PgPool) -> Result<()> {
    sqlx::raw_sql("CHECKPOINT").execute(pool).await.context("no checkpoint")?;
    Ok(())
}

/// The server's version.
///
/// # Errors
/// Where the server fails.
pub(crate) async fn version(pool: &PgPool) -> Result<String> {
    Ok(sqlx::query_scalar("SHOW server_version").fetch_one(pool).await?)
}

/// The settings of the server that its speed depends on most. The launcher pins them when it starts the server.
///
/// # Errors
/// Where the server fails.
pub(crate) async fn settings(pool: &PgPool) -> Result<BTreeMap<String, String>> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, current_setting(name) FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit',
             'full_page_writes', 'wal_compression', 'shared_buffers', 'max_wal_size')",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().collect())
}
