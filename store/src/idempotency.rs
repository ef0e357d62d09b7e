//! The first answers to requests that may be repeated.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::{PgConnection, PgExecutor, PgPool};

/// A request that carries an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Who asks: `user:<id>` or `admin`.
    pub caller: String,
    /// Method and concrete path.
    pub route: String,
    /// The key.
    pub key: String,
    /// SHA-256 of the parsed body.
    pub body_hash: Vec<u8>,
}

/// An answer that is given again to repetitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstAnswer {
    /// The HTTP status.
    pub status: i16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

/// An answer that was kept, with the body that it answers.
#[derive(Clone, Debug)]
pub struct Kept {
    /// SHA-256 of the request's body.
    pub body_hash: Vec<u8>,
    /// The answer.
    pub answer: FirstAnswer,
}

/// Keeps the answer of a first request. `false` where the key has been used before: then the caller's transaction
/// must be rolled back and [`find`] knows the first answer.
///
/// # Errors
/// Where the database fails.
pub async fn keep(
    connection: &mut PgConnection,
    request: &Request,
    answer: &FirstAnswer,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let kept = sqlx::query!(
        "INSERT INTO idempotency_keys (caller, route, key, body_hash, status, location, body, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        request.caller,
        request.route,
        request.key,
        request.body_hash,
        answer.status,
        answer.location,
        answer.body,
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(kept.rows_affected() == 1)
}

/// The answer that was kept for a key.
///
/// # Errors
/// Where the database fails.
pub async fn find(executor: impl PgExecutor<'_>, request: &Request) -> Result<Option<Kept>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT body_hash, status, location, body FROM idempotency_keys
         WHERE caller = $1 AND route = $2 AND key = $3",
        request.caller,
        request.route,
        request.key,
    )
    .fetch_optional(executor)
    .await?;
    Ok(row.map(|row| Kept {
        body_hash: row.body_hash,
        answer: FirstAnswer { status: row.status, location: row.location, body: row.body },
    }))
}

/// The answers that were kept for several keys, each with the index of its request.
///
/// # Errors
/// Where the database fails.
pub async fn find_many(pool: &PgPool, requests: &[&Request]) -> Result<Vec<(usize, Kept)>, sqlx::Error> {
    let callers: Vec<&str> = requests.iter().map(|request| request.caller.as_str()).collect();
    let routes: Vec<&str> = requests.iter().map(|request| request.route.as_str()).collect();
    let keys: Vec<&str> = requests.iter().map(|request| request.key.as_str()).collect();
    let rows = sqlx::query!(
        r#"SELECT ordinal AS "ordinal!", body_hash, status, location, body
           FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS t (caller, route, key, ordinal)
           JOIN idempotency_keys USING (caller, route, key)"#,
        callers as _,
        routes as _,
        keys as _,
    )
    .fetch_all(pool)
    .await?;
    let kept = rows.into_iter().filter_map(|row| {
        let index = usize::try_from(row.ordinal - 1).ok()?;
        let answer = FirstAnswer { status: row.status, location: row.location, body: row.body };
        Some((index, Kept { body_hash: row.body_hash, answer }))
    });
    Ok(kept.collect())
}

/// Forgets answers that are older than `before`; at most `at_most` of them. Answers how many.
///
/// # Errors
/// Where the database fails.
pub async fn forget(pool: &PgPool, before: Timestamp, at_most: i64) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query!(
        "DELETE FROM idempotency_keys k USING (
             SELECT caller, route, key FROM idempotency_keys WHERE created_at < $1 LIMIT $2
         ) AS old
         WHERE k.caller = old.caller AND k.route = old.route AND k.key = old.key",
        before.to_sqlx() as _,
        at_most,
    )
    .execute(pool)
    .await?;
    Ok(forgotten.rows_affected())
}
