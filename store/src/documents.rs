//! Documents as they are read without being changed.

use ordermill_domain::aggregate::{self, Aggregate};
use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow, PgExecutor, Postgres, QueryBuilder};
use uuid::Uuid;

/// A row of state, as [`select`] reads it.
#[derive(Debug, FromRow)]
pub(crate) struct Row {
    pub(crate) key: Uuid,
    state: String,
    bulk: Option<String>,
}

impl Row {
    /// The document.
    pub(crate) fn read<A: Aggregate>(&self) -> Result<A, sqlx::Error> {
        aggregate::read(self.key, &self.state, self.bulk.as_deref())
            .map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }
}

/// A statement that reads documents; what follows `SELECT … FROM` is pushed by the caller.
pub(crate) fn select() -> QueryBuilder<Postgres> {
    QueryBuilder::new("SELECT key, state::text AS state, bulk::text AS bulk FROM ")
}

/// The rows of a statement that [`select`] has begun.
pub(crate) async fn rows(
    mut statement: QueryBuilder<Postgres>,
    executor: impl PgExecutor<'_>,
) -> Result<Vec<Row>, sqlx::Error> {
    statement.build_query_as().fetch_all(executor).await
}

/// The same as documents with their keys.
pub(crate) async fn all<A: Aggregate>(
    statement: QueryBuilder<Postgres>,
    executor: impl PgExecutor<'_>,
) -> Result<Vec<(Uuid, A)>, sqlx::Error> {
    let rows = rows(statement, executor).await?;
    rows.iter().map(|row| Ok((row.key, row.read()?))).collect()
}

/// The document of that key; `None` where there is none.
///
/// # Errors
/// Where the database fails, or the document can't be read.
pub async fn find<A: Aggregate>(executor: impl PgExecutor<'_>, key: Uuid) -> Result<Option<A>, sqlx::Error> {
    let sql = format!("SELECT key, state::text AS state, bulk::text AS bulk FROM {} WHERE key = $1", A::NOUN);
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(sql)).bind(key).fetch_optional(executor).await?;
    row.map(|row| row.read()).transpose()
}

/// The word of a state in documents and answers.
#[must_use]
pub fn word(state: impl Serialize) -> String {
    serde_json::to_value(state).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}
