//! Keys as an operator lists and changes them.

use jiff::Timestamp;
use jiff_sqlx::{Timestamp as SqlTimestamp, ToSqlx as _};
use ordermill_pipeline::database;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{KeyName, KeyRef, KeysError, NewRow, insert, name_of};

/// A key as people see it.
#[derive(Clone, Debug)]
pub struct KeyRow {
    /// By which it is named.
    pub key_id: Uuid,
    /// Its name.
    pub name: KeyName,
    /// Whose it is; an administrator's where it is nobody's.
    pub user_id: Option<Uuid>,
    /// The first 8 hexadecimal digits of its hash, as logs name it.
    pub mark: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its time is over.
    pub expires_at: Option<Timestamp>,
    /// Until when it is good although it was replaced.
    pub replaced_until: Option<Timestamp>,
    /// When it was revoked, by the clock of whoever did it.
    pub revoked_at: Option<Timestamp>,
}

/// How a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It lets its owner in.
    Valid,
    /// Another is in its place, but it still lets its owner in.
    Replaced,
    /// Its time is over.
    Expired,
    /// It was revoked, or replaced for good.
    Revoked,
}

impl KeyRow {
    /// How it stands at that time.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        let is_past = |at: Timestamp| at <= now;
        match self.replaced_until {
            _ if self.revoked_at.is_some() => KeyState::Revoked,
            Some(until) if is_past(until) => KeyState::Revoked,
            _ if self.expires_at.is_some_and(is_past) => KeyState::Expired,
            Some(_) => KeyState::Replaced,
            None => KeyState::Valid,
        }
    }
}

/// A key that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewKey {
    /// Its name.
    pub name: KeyName,
    /// Whose it will be; an administrator's where it is nobody's.
    pub user_id: Option<Uuid>,
    /// When its time will be over.
    pub expires_at: Option<Timestamp>,
}

/// A key that has taken the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The new key.
    pub key_id: Uuid,
    /// The key that was replaced.
    pub former_id: Uuid,
    /// Their name.
    pub name: KeyName,
    /// When the time of the new one will be over.
    pub expires_at: Option<Timestamp>,
}

/// The keys of a user, or else all of administrators; oldest first.
///
/// # Errors
/// Where the database fails.
pub async fn list(pool: &PgPool, user_id: Option<Uuid>) -> Result<Vec<KeyRow>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT key_id, name, user_id, encode(substr(key_hash, 1, 4), 'hex') AS "mark!", created_at, expires_at,
               replaced_until, revoked_at
           FROM api_keys WHERE user_id IS NOT DISTINCT FROM $1 ORDER BY created_at, key_id"#,
        user_id,
    )
    .fetch_all(pool)
    .await?;
    let rows = rows.into_iter().map(|row| {
        Ok(KeyRow {
            key_id: row.key_id,
            name: name_of(&row.name)?,
            user_id: row.user_id,
            mark: row.mark,
            created_at: row.created_at.to_jiff(),
            expires_at: row.expires_at.map(SqlTimestamp::to_jiff),
            replaced_until: row.replaced_until.map(SqlTimestamp::to_jiff),
            revoked_at: row.revoked_at.map(SqlTimestamp::to_jiff),
        })
    });
    rows.collect()
}

/// Stores a new key, and answers its id. The name of an administrator's key that has expired is free.
///
/// # Errors
/// [`KeysError::NameTaken`] and [`KeysError::NoSuchUser`], or where the database fails.
pub async fn create(pool: &PgPool, key_hash: &[u8], new: &NewKey, now: Timestamp) -> Result<Uuid, KeysError> {
    let NewKey { name, user_id, expires_at } = *new;
    let mut transaction = database::begin(pool).await?;
    if let Some(user_id) = user_id {
        hold_user(&mut transaction, user_id).await?;
    } else {
        sqlx::query!(
            "UPDATE api_keys SET revoked_at = expires_at
             WHERE scope = 'admin' AND name = $1 AND revoked_at IS NULL AND expires_at <= $2",
            name.as_str(),
            now.to_sqlx() as _,
        )
        .execute(&mut *transaction)
        .await?;
    }
    let row = NewRow { key_hash, user_id, name: name.as_str(), created_at: now, expires_at };
    let key_id = insert(&mut transaction, &row).await?.ok_or(KeysError::NameTaken(name))?;
    transaction.commit().await?;
    Ok(key_id)
}

/// Stores a new key in the place of another, with its name and for as long as that was made for. The former is good until `former_until`
/// at most, and so is whatever has been replaced before under an administrator's name; where that time is not ahead, they are revoked.
///
/// # Errors
/// [`KeysError::NoSuchKey`] where there is none, or it was revoked or replaced; [`KeysError::NoSuchUser`] where its user was erased; or
/// where the database fails.
pub async fn rotate(
    pool: &PgPool,
    which: &KeyRef,
    key_hash: &[u8],
    former_until: Timestamp,
    now: Timestamp,
) -> Result<Rotated, KeysError> {
    let (key_id, name) = which.parts();
    let mut transaction = database::begin(pool).await?;
    let found = sqlx::query!(
        "SELECT key_id, user_id FROM api_keys
         WHERE (key_id = $1 OR (scope = 'admin' AND name = $2))
             AND replaced_until IS NULL AND revoked_at IS NULL",
        key_id,
        name,
    )
    .fetch_optional(&mut *transaction)
    .await?
    .ok_or(KeysError::NoSuchKey(*which))?;
    if let Some(user_id) = found.user_id {
        hold_user(&mut transaction, user_id).await?;
    }
    // Somebody else may have replaced or revoked it since it was found.
    let former = sqlx::query!(
        "UPDATE api_keys SET replaced_until = $2, revoked_at = CASE WHEN $2::timestamptz <= $3 THEN $3 END
         WHERE key_id = $1 AND replaced_until IS NULL AND revoked_at IS NULL
         RETURNING name, created_at, expires_at",
        found.key_id,
        former_until.to_sqlx() as _,
        now.to_sqlx() as _,
    )
    .fetch_optional(&mut *transaction)
    .await?
    .ok_or(KeysError::NoSuchKey(*which))?;
    // Whoever replaces a key because it is known to others may not know which of them is.
    sqlx::query!(
        "UPDATE api_keys SET replaced_until = $2, revoked_at = CASE WHEN $2::timestamptz <= $3 THEN $3 END
         WHERE scope = 'admin' AND name = $1 AND replaced_until > $2 AND revoked_at IS NULL",
        former.name,
        former_until.to_sqlx() as _,
        now.to_sqlx() as _,
    )
    .execute(&mut *transaction)
    .await?;
    let created_at = former.created_at.to_jiff();
    let expires_at = former.expires_at.map(|expires_at| {
        let lasts = expires_at.to_jiff().duration_since(created_at);
        now.saturating_add(lasts).unwrap_or(Timestamp::MAX)
    });
    let name = name_of(&former.name)?;
    let row = NewRow { key_hash, user_id: found.user_id, name: name.as_str(), created_at: now, expires_at };
    let key_id = insert(&mut transaction, &row).await?.ok_or(KeysError::NameTaken(name))?;
    transaction.commit().await?;
    Ok(Rotated { key_id, former_id: found.key_id, name, expires_at })
}

/// Revokes a key; of a name also those that were replaced and are still good. Answers their ids.
///
/// # Errors
/// [`KeysError::NoSuchKey`] where there is none, or all were revoked before; or where the database fails.
pub async fn revoke(pool: &PgPool, which: &KeyRef, now: Timestamp) -> Result<Vec<Uuid>, KeysError> {
    let (key_id, name) = which.parts();
    let revoked = sqlx::query_scalar!(
        "UPDATE api_keys SET revoked_at = $3
         WHERE (key_id = $1 OR (scope = 'admin' AND name = $2)) AND revoked_at IS NULL
         RETURNING key_id",
        key_id,
        name,
        now.to_sqlx() as _,
    )
    .fetch_all(pool)
    .await?;
    if revoked.is_empty() { Err(KeysError::NoSuchKey(*which)) } else { Ok(revoked) }
}

/// Keeps a user from being erased meanwhile: whoever erases one holds the user first and revokes the keys then.
async fn hold_user(connection: &mut PgConnection, user_id: Uuid) -> Result<(), KeysError> {
    sqlx::query_scalar!(
        r#"SELECT true AS "is_there!" FROM users WHERE user_id = $1 AND erased_at IS NULL FOR SHARE"#,
        user_id,
    )
    .fetch_optional(connection)
    .await?
    .ok_or(KeysError::NoSuchUser(user_id))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_key_stands_as_what_comes_first_says() {
        let state = |expires_at: Option<i64>, replaced_until: Option<i64>, revoked_at: Option<i64>| {
            let row = KeyRow {
                key_id: Uuid::nil(),
                name: "minji".parse().unwrap(),
                user_id: None,
                mark: String::new(),
                created_at: at(0),
                expires_at: expires_at.map(at),
                replaced_until: replaced_until.map(at),
                revoked_at: revoked_at.map(at),
            };
            row.state(at(10))
        };
        let valid = [state(None, None, None), state(Some(11), None, None)];
        assert_eq!(valid, [KeyState::Valid; 2]);
        assert_eq!([state(None, Some(11), None), state(Some(12), Some(11), None)], [KeyState::Replaced; 2]);
        assert_eq!([state(Some(10), None, None), state(Some(9), Some(11), None)], [KeyState::Expired; 2]);
        assert_eq!([state(None, Some(10), None), state(Some(9), Some(10), None)], [KeyState::Revoked; 2]);
        // By the clock of whoever has revoked it that is yet to come.
        assert_eq!([state(None, None, Some(11)), state(Some(9), Some(12), Some(11))], [KeyState::Revoked; 2]);
    }
}
