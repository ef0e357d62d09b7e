//! The rows of `wire_key`: which keys there are, which one signs, which are revoked.

use jiff::Timestamp;
use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::{PgConnection, PgExecutor, PgPool};
use thiserror::Error;

use super::key::{KeyId, NotAKeyId};
use super::secrets::Secrets;
use crate::database::{self, Told};

/// Why keys can't be used or changed.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The database failed.
    #[error("database: {}", Told(.0))]
    Database(#[from] sqlx::Error),
    /// Keys are to be put right, and whoever we connect as may not do that.
    #[error(
        "the wire secret file revokes a key that the database does not know to be revoked, or no key signs, and the user of DATABASE_URL \
         may not put that right: run `ordermill migrate` with this file as the owner of the tables"
    )]
    NotAllowed,
    /// The machine has no source of randomness.
    #[error("no random numbers can be had: {0}")]
    Random(#[from] getrandom::Error),
    /// A row can't be read.
    #[error("the table wire_key has a row with another id: {0}")]
    Id(#[from] NotAKeyId),
    /// The log was never set up or its keys were deleted, or it is in another era.
    #[error(
        "no wire key signs for era {0}: `ordermill keys wire list` lists them; `ordermill migrate` makes one where none signs"
    )]
    NoneSigns(i32),
    /// The log was never set up.
    #[error("the log is not set up: run `ordermill migrate`")]
    NotInstalled,
    /// The key that signs derives from another secret.
    #[error(
        "wire key {0} derives from another secret than those of the wire secret file: give every process the file that \
         the others have; if the secret was changed on purpose, run `ordermill keys wire rotate` with the new file"
    )]
    OtherSecret(KeyId),
    /// There is no such key.
    #[error(
        "there is no wire key {0}: `ordermill keys wire list` lists them. A key that the database has forgotten since it was \
         restored is revoked by a line `revoked {0}` in the wire secret file of all processes"
    )]
    Unknown(KeyId),
}

/// What a key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// The relay signs with it.
    Signs,
    /// What it has signed is authentic.
    Retired,
    /// Nothing that it has signed is authentic.
    Revoked,
}

/// A key as the database knows it.
#[derive(Clone, Debug)]
pub struct KeyRow {
    /// Its id.
    pub id: KeyId,
    /// The fingerprint of the secret that it derives from; none where no more is known than that it is revoked.
    pub secret: Option<Vec<u8>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it signs nothing more.
    pub retired_at: Option<Timestamp>,
    /// Since when nothing that it has signed is authentic.
    pub revoked_at: Option<Timestamp>,
}

impl KeyRow {
    /// What it is used for.
    #[must_use]
    pub fn state(&self) -> KeyState {
        match (self.retired_at, self.revoked_at) {
            (_, Some(_)) => KeyState::Revoked,
            (Some(_), None) => KeyState::Retired,
            (None, None) => KeyState::Signs,
        }
    }

    /// The fingerprint of its secret as it is shown.
    #[must_use]
    pub fn secret_fingerprint(&self) -> Option<String> {
        self.secret.as_deref().map(hex::encode)
    }
}

/// What a revocation has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Whether it was revoked before.
    pub was_revoked: bool,
    /// The key that signs from now on, where the revoked one did before.
    pub signs_now: Option<KeyId>,
}

/// Every key, in the order of their numbers.
///
/// # Errors
/// Where the database fails.
pub async fn list(database: impl PgExecutor<'_>) -> Result<Vec<KeyRow>, KeyError> {
    let rows = sqlx::query!(
        r#"SELECT id, secret, created_at AS "created_at: SqlTimestamp", retired_at AS "retired_at: SqlTimestamp",
               revoked_at AS "revoked_at: SqlTimestamp"
           FROM wire_key"#
    );
    let rows = rows.fetch_all(database).await?.into_iter().map(|row| {
        Ok(KeyRow {
            id: row.id.parse()?,
            secret: row.secret,
            created_at: row.created_at.to_jiff(),
            retired_at: row.retired_at.map(SqlTimestamp::to_jiff),
            revoked_at: row.revoked_at.map(SqlTimestamp::to_jiff),
        })
    });
    let mut rows = rows.collect::<Result<Vec<KeyRow>, NotAKeyId>>()?;
    rows.sort_by_key(|row| (row.id.number(), row.created_at));
    Ok(rows)
}

/// Revokes what the file says is revoked, in case the database was restored and has forgotten it, and makes a key where none
/// signs. Where all is as it should be, nothing is written.
///
/// # Errors
/// [`KeyError`] where the key that signs derives from another secret, the log is not set up, the database fails, or it does not let us put
/// right what is not.
pub async fn install(pool: &PgPool, secrets: &Secrets) -> Result<(), KeyError> {
    let rows = list(pool).await?;
    let is_revoked = |id: &KeyId| rows.iter().any(|row| row.id == *id && row.state() == KeyState::Revoked);
    let signs = rows.iter().find(|row| row.state() == KeyState::Signs);
    if let Some(row) = signs
        && row.secret.as_deref().and_then(|secret| secrets.with_fingerprint(secret)).is_none()
    {
        return Err(KeyError::OtherSecret(row.id.clone()));
    }
    if signs.is_some() && secrets.revoked.iter().all(is_revoked) {
        return Ok(());
    }
    match put_right(pool, secrets).await {
        Err(KeyError::Database(error)) if database::is_not_allowed(&error) => Err(KeyError::NotAllowed),
        done => done,
    }
}

async fn put_right(pool: &PgPool, secrets: &Secrets) -> Result<(), KeyError> {
    let mut transaction = database::begin(pool).await?;
    lock(&mut transaction).await?;
    let revoked: Vec<String> = secrets.revoked.iter().map(KeyId::to_string).collect();
    revoke_all(&mut transaction, &revoked).await?;
    make_if_none_signs(&mut transaction, secrets).await?;
    transaction.commit().await?;
    Ok(())
}

/// Has a new key sign, which derives from the first secret of the file. Answers its id, and that of the key which signed before.
///
/// # Errors
/// [`KeyError`] where the log is not set up, or the database fails.
pub async fn rotate(pool: &PgPool, secrets: &Secrets) -> Result<(KeyId, Option<KeyId>), KeyError> {
    let mut transaction = database::begin(pool).await?;
    let keys = replace(&mut transaction, secrets).await?;
    transaction.commit().await?;
    Ok(keys)
}

/// [`rotate`] in the caller's transaction.
pub(crate) async fn replace(
    connection: &mut PgConnection,
    secrets: &Secrets,
) -> Result<(KeyId, Option<KeyId>), KeyError> {
    lock(&mut *connection).await?;
    let former =
        sqlx::query_scalar!("UPDATE wire_key SET retired_at = now() WHERE retired_at IS NULL RETURNING id")
            .fetch_optional(&mut *connection)
            .await?;
    let made = make_if_none_signs(connection, secrets).await?.ok_or(KeyError::NotInstalled)?;
    Ok((made, former.map(|id| id.parse()).transpose()?))
}

/// Has nothing be authentic any more that a key has signed. If it signs, another one does from now on.
///
/// # Errors
/// [`KeyError::Unknown`] where there is no such key, or where the database fails.
pub async fn revoke(pool: &PgPool, secrets: &Secrets, id: &KeyId) -> Result<Revocation, KeyError> {
    let mut transaction = database::begin(pool).await?;
    lock(&mut transaction).await?;
    let was_revoked = sqlx::query_scalar!(
        r#"SELECT revoked_at IS NOT NULL AS "was_revoked!" FROM wire_key WHERE id = $1"#,
        id.as_str(),
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let was_revoked = was_revoked.ok_or_else(|| KeyError::Unknown(id.clone()))?;
    revoke_all(&mut transaction, &[id.to_string()]).await?;
    let signs_now = make_if_none_signs(&mut transaction, secrets).await?;
    transaction.commit().await?;
    Ok(Revocation { was_revoked, signs_now })
}

/// Revokes those that are not, and asks the relay for what they have signed: whoever sees that it is asked for sees the
/// revocation, too. What is not known here has been signed in a future that this database has forgotten. The cursor is behind what
/// was handed over, so what was signed may all lie above it.
async fn revoke_all(connection: &mut PgConnection, ids: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH revoked AS (
             INSERT INTO wire_key AS k (id, created_at, signed_after, retired_at, revoked_at)
             SELECT id, now(), 0, now(), now() FROM unnest($1::text[]) AS id
             ON CONFLICT (id) DO UPDATE SET retired_at = coalesce(k.retired_at, now()), revoked_at = now()
                 WHERE k.revoked_at IS NULL
             RETURNING secret, signed_after
         )
         UPDATE relay_cursor SET repeat_after = LEAST(repeat_after, r.after), repeat_topics = NULL
         FROM (SELECT min(signed_after) AS after FROM revoked WHERE secret IS NOT NULL) AS r
         WHERE position >= r.after",
        ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Keeps others from changing keys, not from reading them.
async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("LOCK TABLE wire_key IN SHARE ROW EXCLUSIVE MODE").execute(connection).await?;
    Ok(())
}

/// Makes a key for the era of the log where none signs. Answers its id.
async fn make_if_none_signs(
    connection: &mut PgConnection,
    secrets: &Secrets,
) -> Result<Option<KeyId>, KeyError> {
    let fingerprint = secrets.signing().fingerprint();
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    let made = sqlx::query_scalar!(
        "INSERT INTO wire_key (id, secret, created_at, signed_after)
         SELECT concat_ws('-', era, (SELECT coalesce(max(split_part(id, '-', 2)::integer), 0) + 1 FROM wire_key), $1::text),
             $2, now(), position
         FROM relay_cursor WHERE NOT EXISTS (SELECT FROM wire_key WHERE retired_at IS NULL)
         RETURNING id",
        hex::encode(random),
        fingerprint.as_slice(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(made.map(|id| id.parse()).transpose()?)
}
