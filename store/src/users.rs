//! Users. Names and e-mail addresses stand here and nowhere else, and what was said about what belongs to a user in `notes.rs`.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_pipeline::journal::{Projection, Shortfall, Statement};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{keys, notes};

/// A user who has not been erased.
#[derive(Clone, Debug)]
pub struct User {
    /// The user.
    pub user_id: Uuid,
    /// The name.
    pub name: String,
    /// The e-mail address.
    pub email: String,
    /// When the user signed up.
    pub created_at: Timestamp,
}

/// A user who signs up, with a key; to be written with the balance. Where the e-mail address is taken, that is
/// [`Shortfall::Repeated`].
#[derive(Clone, Debug)]
pub struct SignUp {
    /// The user.
    pub user: User,
    /// SHA-256 of the key.
    pub key_hash: Vec<u8>,
}

impl Projection for SignUp {
    fn add(&self, statement: &mut Statement) {
        let User { user_id, name, email, created_at } = self.user.clone();
        let user_id = statement.bind(user_id);
        let (name, email) = (statement.bind(name), statement.bind(email));
        let (at, hash) = (statement.bind(created_at.to_sqlx()), statement.bind(self.key_hash.clone()));
        statement.must(
            "signed_up",
            format!(
                "INSERT INTO users (user_id, name, email, created_at) VALUES ({user_id}, {name}, {email}, {at})
                 ON CONFLICT (email) DO NOTHING RETURNING 1"
            ),
            1,
            Shortfall::Repeated,
        );
        statement.part(
            "key_given",
            format!(
                "INSERT INTO api_keys (key_hash, user_id, scope, name, created_at)
                 SELECT {hash}, {user_id}, 'customer', 'sign-up', {at} FROM signed_up"
            ),
        );
    }
}

/// A user; `None` where there is none of that id.
///
/// # Errors
/// Where the database fails.
pub async fn find(pool: &PgPool, user_id: Uuid) -> Result<Option<User>, sqlx::Error> {
    sqlx::query_as!(
        User,
        r#"SELECT user_id, name AS "name!", email AS "email!", created_at FROM users
           WHERE user_id = $1 AND erased_at IS NULL"#,
        user_id,
    )
    .fetch_optional(pool)
    .await
}

/// Erases who a user is, and what was said in words of one's own about what belongs to the user; the id stays, with all that belongs to it.
/// `None` where there is no such user, else the hashes of the user's keys, which are revoked.
///
/// # Errors
/// Where the database fails.
pub async fn erase(
    connection: &mut PgConnection,
    user_id: Uuid,
    now: Timestamp,
) -> Result<Option<Vec<Vec<u8>>>, sqlx::Error> {
    let erased = sqlx::query!(
        "UPDATE users SET name = NULL, email = NULL, erased_at = $2 WHERE user_id = $1 AND erased_at IS NULL",
        user_id,
        now.to_sqlx() as _,
    )
    .execute(&mut *connection)
    .await?;
    if erased.rows_affected() == 0 {
        return Ok(None);
    }
    // The user's row is locked by now: who was adding a note has added it, and who comes later finds nobody to add it for.
    notes::erase_of(connection, user_id).await?;
    Ok(Some(keys::revoke_of(connection, user_id, now).await?))
}
