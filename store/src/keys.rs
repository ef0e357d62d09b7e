//! API keys; only their hashes are stored. A key is valid until it expires, its grace ends or it is revoked, whichever comes first.

mod manage;
mod name;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_pipeline::database;
use sqlx::{PgConnection, PgExecutor, PgPool};
use thiserror::Error;
use uuid::Uuid;

pub use manage::{KeyRow, KeyState, NewKey, Rotated, create, list, revoke, rotate};
pub use name::{KeyName, KeyRef, NotAKeyName};

/// Whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A user's.
    Customer(Uuid),
    /// An administrator's, with its name.
    Admin(KeyName),
}

/// What a key is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It lets its owner in.
    Valid(Identity),
    /// Its time is over.
    Expired,
    /// It was revoked, or replaced.
    Revoked,
}

/// Why keys are not changed as they should be.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// Another administrator's key is called so.
    #[error(
        "there is a key of the name {0}: choose another name, or replace that key by `ordermill keys rotate {0}`"
    )]
    NameTaken(KeyName),
    /// There is no such user, or not any more.
    #[error("there is no user {0}")]
    NoSuchUser(Uuid),
    /// There is no such key, or not any more.
    #[error(
        "there is no key {0}, or it was revoked or replaced: `ordermill keys list` shows those of administrators, with --user \
         USER_ID those of a customer"
    )]
    NoSuchKey(KeyRef),
    /// It is stored already, but as another's.
    #[error("the key is in use under another name or by a customer: make another by `openssl rand -hex 32`")]
    OfAnother,
    /// It was valid once.
    #[error(
        "the key was revoked or replaced, or has expired, and stays so: make another by `openssl rand -hex 32`"
    )]
    Over,
}

/// What those of these SHA-256 hashes are worth now that are of keys.
///
/// # Errors
/// Where the database fails.
pub async fn standings(
    pool: &PgPool,
    key_hashes: &[Vec<u8>],
    now: Timestamp,
) -> Result<Vec<(Vec<u8>, Standing)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT key_hash, user_id, name, coalesce(expires_at <= $2, false) AS "is_expired!",
               (revoked_at IS NOT NULL OR coalesce(replaced_until <= $2, false)) AS "is_revoked!"
           FROM api_keys WHERE key_hash = ANY($1)"#,
        key_hashes,
        now.to_sqlx() as _,
    )
    .fetch_all(pool)
    .await?;
    let standings = rows.into_iter().map(|row| {
        let standing = match (row.is_revoked, row.is_expired, row.user_id) {
            (true, ..) => Standing::Revoked,
            (false, true, _) => Standing::Expired,
            (false, false, Some(user_id)) => Standing::Valid(Identity::Customer(user_id)),
            (false, false, None) => Standing::Valid(Identity::Admin(name_of(&row.name)?)),
        };
        Ok((row.key_hash, standing))
    });
    standings.collect()
}

/// The SHA-256 hashes of the administrators' keys that are good now.
///
/// # Errors
/// Where the database fails.
pub async fn of_administrators(pool: &PgPool, now: Timestamp) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    // By the user, who is none: the index has few of these, and many of all others.
    sqlx::query_scalar!(
        "SELECT key_hash FROM api_keys
         WHERE user_id IS NULL AND revoked_at IS NULL AND coalesce(least(replaced_until, expires_at) > $1, true)",
        now.to_sqlx() as _,
    )
    .fetch_all(pool)
    .await
}

/// Has a key be the one of administrators that has this name: every other of the name is revoked in the same transaction. Where the
/// key has the name already, or was replaced and is still good, nothing is written; so processes that start side by side
/// may all ask for it. Answers how many were revoked.
///
/// # Errors
/// [`KeysError::OfAnother`] and [`KeysError::Over`], or where the database fails.
pub async fn establish(pool: &PgPool, name: &str, key_hash: &[u8], now: Timestamp) -> Result<u64, KeysError> {
    // Mostly nothing is to be changed, and nobody has to wait for that.
    if is_established(pool, name, key_hash, now).await? {
        return Ok(0);
    }
    let mut transaction = database::begin(pool).await?;
    // Keeps others from changing keys, not from looking them up.
    sqlx::query!("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE").execute(&mut *transaction).await?;
    if is_established(&mut *transaction, name, key_hash, now).await? {
        return Ok(0);
    }
    let former = sqlx::query!(
        "UPDATE api_keys SET revoked_at = $2 WHERE scope = 'admin' AND name = $1 AND revoked_at IS NULL",
        name,
        now.to_sqlx() as _,
    )
    .execute(&mut *transaction)
    .await?;
    let row = NewRow { key_hash, user_id: None, name, created_at: now, expires_at: None };
    insert(&mut transaction, &row).await?.ok_or(KeysError::OfAnother)?;
    transaction.commit().await?;
    Ok(former.rows_affected())
}

/// Whether the key has that name of administrators and is good; not where it is unknown.
async fn is_established(
    executor: impl PgExecutor<'_>,
    name: &str,
    key_hash: &[u8],
    now: Timestamp,
) -> Result<bool, KeysError> {
    let known = sqlx::query!(
        r#"SELECT user_id, name,
               (revoked_at IS NOT NULL OR coalesce(least(replaced_until, expires_at) <= $2, false)) AS "is_over!"
           FROM api_keys WHERE key_hash = $1"#,
        key_hash,
        now.to_sqlx() as _,
    )
    .fetch_optional(executor)
    .await?;
    match known {
        Some(key) if key.user_id.is_some() || key.name != name => Err(KeysError::OfAnother),
        Some(key) if key.is_over => Err(KeysError::Over),
        known => Ok(known.is_some()),
    }
}

/// Revokes all keys of a user who is being erased, those included that were replaced and are still good, and takes the names from them that somebody
/// has chosen; their hashes.
///
/// # Errors
/// Where the database fails.
pub(crate) async fn revoke_of(
    connection: &mut PgConnection,
    user_id: Uuid,
    now: Timestamp,
) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar!(
        "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2), name = 'erased' WHERE user_id = $1
         RETURNING key_hash",
        user_id,
        now.to_sqlx() as _,
    )
    .fetch_all(connection)
    .await
}

/// A row that is to be.
struct NewRow<'a> {
    key_hash: &'a [u8],
    user_id: Option<Uuid>,
    name: &'a str,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

/// Stores a key, and answers its id; `None` where an administrator's key has the name.
async fn insert(connection: &mut PgConnection, row: &NewRow<'_>) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "INSERT INTO api_keys (key_hash, user_id, scope, name, created_at, expires_at)
         VALUES ($1, $2, CASE WHEN $2::uuid IS NULL THEN 'admin' ELSE 'customer' END, $3, $4, $5)
         ON CONFLICT DO NOTHING RETURNING key_id",
        row.key_hash,
        row.user_id,
        row.name,
        row.created_at.to_sqlx() as _,
        row.expires_at.map(|at| at.to_sqlx()) as _,
    )
    .fetch_optional(connection)
    .await
}

/// A name as the table has it, which lets no other text in.
fn name_of(text: &str) -> Result<KeyName, sqlx::Error> {
    text.parse().map_err(|error: NotAKeyName| sqlx::Error::Decode(error.into()))
}
