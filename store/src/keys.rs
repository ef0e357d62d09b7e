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

/// Which of these SHA-256 hashes are of keys that are valid, and whose they are.
///
/// # Errors
/// Where the database fails.
pub async fn valid(pool: &PgPool, key_hashes: &[Vec<u8>]) -> Result<Vec<(Vec<u8>, Identity)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT key_hash, user_id FROM api_keys WHERE key_hash = ANY($1) AND revoked_at IS NULL",
        key_hashes,
    )
    .fetch_all(pool)
    .await?;
    let owner = |user_id: Option<Uuid>| user_id.map_or(Identity::Admin, Identity::Customer);
    Ok(rows.into_iter().map(|row| (row.key_hash, owner(row.user_id))).collect())
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
