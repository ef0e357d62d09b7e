//! Users. Names and e-mail addresses stand here and nowhere else.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

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

/// Stores a user; `false` where the e-mail address is taken.
///
/// # Errors
/// Where the database fails.
pub async fn insert(connection: &mut PgConnection, user: &User) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query!(
        "INSERT INTO users (user_id, name, email, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (email) DO NOTHING",
        user.user_id,
        user.name,
        user.email,
        user.created_at.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// A user; `None` where there is none of that id.
///
/// # Errors
/// Where the database fails.
pub async fn find(pool: &PgPool, user_id: Uuid) -> Result<Option<User>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT user_id, name AS "name!", email AS "email!", created_at FROM users
           WHERE user_id = $1 AND erased_at IS NULL"#,
        user_id,
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| User {
        user_id: row.user_id,
        name: row.name,
        email: row.email,
        created_at: row.created_at.to_jiff(),
    }))
}

/// Erases who a user is; the id stays, with all that belongs to it. `false` where there is no such user.
///
/// # Errors
/// Where the database fails.
pub async fn erase(
    connection: &mut PgConnection,
    user_id: Uuid,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let erased = sqlx::query!(
        "UPDATE users SET name = NULL, email = NULL, erased_at = $2 WHERE user_id = $1 AND erased_at IS NULL",
        user_id,
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(erased.rows_affected() == 1)
}
