//! API keys; only their hashes are stored.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

/// Whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A user's.
    Customer(Uuid),
    /// An operator's.
    Admin,
}

/// Whose key has that SHA-256; `None` where none has or it was revoked.
///
/// # Errors
/// Where the database fails.
pub async fn find(pool: &PgPool, key_hash: &[u8]) -> Result<Option<Identity>, sqlx::Error> {
    let row =
        sqlx::query!("SELECT user_id FROM api_keys WHERE key_hash = $1 AND revoked_at IS NULL", key_hash)
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|row| row.user_id.map_or(Identity::Admin, Identity::Customer)))
}

/// Which of these hashes are of keys that are valid.
///
/// # Errors
/// Where the database fails.
pub async fn valid(pool: &PgPool, key_hashes: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT key_hash FROM api_keys WHERE key_hash = ANY($1) AND revoked_at IS NULL",
        key_hashes,
    )
    .fetch_all(pool)
    .await
}

/// Stores an admin's key, or does nothing where it is stored already.
///
/// # Errors
/// Where the database fails.
pub async fn insert_admin(
    executor: impl PgExecutor<'_>,
    key_hash: &[u8],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO api_keys (key_hash, scope, created_at) VALUES ($1, 'admin', $2) ON CONFLICT DO NOTHING",
        key_hash,
        now.to_sqlx() as _,
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// Revokes all keys of a user; their hashes.
///
/// # Errors
/// Where the database fails.
pub async fn revoke_of(
    connection: &mut PgConnection,
    user_id: Uuid,
    now: Timestamp,
) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar!(
        "UPDATE api_keys SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL RETURNING key_hash",
        user_id,
        now.to_sqlx() as _,
    )
    .fetch_all(connection)
    .await
}
