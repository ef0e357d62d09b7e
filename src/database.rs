//! The database, as commands open it and as they tell that it failed.

use anyhow::{Result, anyhow};
use ordermill_pipeline::database::{self, NOT_ALLOWED};
use sqlx::PgPool;

/// Opens a pool, or says in one line that the database is not there.
///
/// # Errors
/// Where it does not answer, or the URL can't be used.
pub async fn connect_pool(url: &str, name: &str, connections_max: u32) -> Result<PgPool> {
    database::connect(url, &format!("ordermill-{name}"), connections_max).await.map_err(not_connected)
}

/// What an operator is told where there is no connection.
pub(crate) fn not_connected(error: sqlx::Error) -> anyhow::Error {
    match error {
        sqlx::Error::Configuration(reason) => anyhow!("DATABASE_URL can't be used: {reason}"),
        error => anyhow::Error::new(error)
            .context("PostgreSQL does not answer; check that it runs and that DATABASE_URL names it"),
    }
}

/// A database error in words that say what to do.
pub(crate) fn explain(error: sqlx::Error) -> anyhow::Error {
    const UNDEFINED_TABLE: &str = "42P01";
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    let code = error.as_database_error().and_then(|error| error.code());
    let advice = match code.as_deref() {
        Some(UNDEFINED_TABLE) => "the database is not set up: run `ordermill migrate` first",
        _ if database::is_not_allowed(&error) => NOT_ALLOWED,
        Some(LOCK_NOT_AVAILABLE) => "another transaction holds on to it; look at pg_locks, or try again",
        _ => "the database failed",
    };
    anyhow::Error::new(error).context(advice)
}
