//! The schema of the database.

use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};
use thiserror::Error;

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// What PostgreSQL calls the one encoding in which names can be composed and compared as users write them.
const ENCODING: &str = "UTF8";

/// Why the schema can't be brought up to date.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// The database keeps its texts in this encoding. It can't be changed once the database is there.
    #[error(
        "the encoding of the database is {0}, but it must be {ENCODING}: create another one by \
         CREATE DATABASE name ENCODING '{ENCODING}' TEMPLATE template0, and give its address"
    )]
    Encoding(String),
    /// The database failed, or was migrated by a newer version of the program.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

/// Brings the schema up to date. Safe to call from several processes at once: one does it, the others wait.
///
/// # Errors
/// Where the database has another encoding than UTF-8, before anything is written; where it fails or was migrated by a newer version
/// of the program.
pub async fn run(pool: &PgPool) -> Result<(), SchemaError> {
    // In any other one the migrations pass, and the first text beyond ASCII fails.
    let encoding = sqlx::query_scalar!(r#"SELECT current_setting('server_encoding') AS "encoding!""#)
        .fetch_one(pool)
        .await
        .map_err(MigrateError::from)?;
    if encoding != ENCODING {
        return Err(SchemaError::Encoding(encoding));
    }
    Ok(MIGRATOR.run(pool).await?)
}
