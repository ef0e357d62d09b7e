//! The schema of the database.

use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// Brings the schema up to date. Safe to call from several processes at once: one does it, the others wait.
///
/// # Errors
/// Where the database fails or was migrated by a newer version of the program.
pub async fn run(pool: &PgPool) -> Result<(), MigrateError> {
    MIGRATOR.run(pool).await
}
