//! A statement of several parts, each of which says how many rows it must write.
//!
//! All parts are data-modifying CTEs of one statement, so they are one round trip. The outermost SELECT answers how
//! many rows each has written, and whoever sent it rolls back where one has written fewer. The count is not part of a
//! join or a condition: there it would commit where one side happens to be empty.

use sqlx::decode::Decode;
use sqlx::encode::Encode;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, AssertSqlSafe, PgConnection, PgExecutor, Postgres, Row as _, Type};
use thiserror::Error;

/// What it means that a part has not written all its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// Somebody else has written one of them since they were loaded.
    Conflict,
    /// Somebody else owns what the writer took for its own.
    Fenced,
    /// The log does not have what Kafka delivered.
    NotInLog,
    /// The request has been answered before.
    Repeated,
}

/// Why a statement has not been written. Its transaction must be rolled back.
#[derive(Debug, Error)]
pub enum Unwritten {
    /// A part has written fewer rows than it must.
    #[error("{part} wrote {written} of {rows} rows: {shortfall:?}")]
    Short {
        /// The part.
        part: String,
        /// How many rows it must write.
        rows: i64,
        /// How many it has.
        written: i64,
        /// What that means.
        shortfall: Shortfall,
    },
    /// The database refused or failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl Unwritten {
    /// Whether somebody else was there first, so that the same may be decided anew.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Unwritten::Short { shortfall, .. } => *shortfall == Shortfall::Conflict,
            // Somebody else has written a row that this one has not seen.
            Unwritten::Database(error) => is_taken_key(error),
        }
    }
}

/// Whether a row could not be written because there is one of its key.
#[must_use]
pub fn is_taken_key(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.is_unique_violation() && error.constraint().is_some_and(|name| name.ends_with("_pkey"))
    })
}

struct Part {
    name: String,
    sql: String,
    /// How many rows it must write, and what it means if it does not.
    must: Option<(i64, Shortfall)>,
}

/// A statement that is being put together.
#[derive(Default)]
pub struct Statement {
    arguments: PgArguments,
    bound: usize,
    failed: Option<BoxDynError>,
    parts: Vec<Part>,
}

impl Statement {
    /// Takes in a parameter; answers what stands for it.
    pub fn bind<'t, T: Encode<'t, Postgres> + Type<Postgres>>(&mut self, value: T) -> String {
        if let Err(error) = self.arguments.add(value) {
            self.failed.get_or_insert(error);
        }
        self.bound += 1;
        format!("${}", self.bound)
    }

    /// Takes in rows, to be bound column by column.
    pub fn rows<'s, 'r, R>(&'s mut self, rows: &'r [R]) -> Rows<'s, 'r, R> {
        Rows { statement: self, rows, names: Vec::new(), values: Vec::new() }
    }

    /// Adds a part under a name: a statement that ends with `RETURNING 1`, or a SELECT that other parts read.
    pub fn part(&mut self, name: &str, sql: String) {
        self.parts.push(Part { name: name.to_owned(), sql, must: None });
    }

    /// Adds a part that must write, or read, so many rows.
    pub fn must(&mut self, name: &str, sql: String, rows: usize, shortfall: Shortfall) {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        self.parts.push(Part { name: name.to_owned(), sql, must: Some((rows, shortfall)) });
    }

    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Sends the statement on its own, and answers what `select` reads of its parts; how many rows they must write is not looked at.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn query<T>(self, select: &str, executor: impl PgExecutor<'_>) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        self.fetch(select, executor).await?.iter().map(|row| row.try_get(0)).collect()
    }

    /// Sends the statement. Where it answers an error, the transaction must be rolled back.
    ///
    /// # Errors
    /// [`Unwritten`].
    pub async fn execute(self, connection: &mut PgConnection) -> Result<(), Unwritten> {
        if self.is_empty() {
            return Ok(());
        }
        let musts: Vec<_> =
            self.parts.iter().filter_map(|part| Some((part.name.clone(), part.must?))).collect();
        let counts: Vec<String> =
            musts.iter().map(|(part, _)| format!("(SELECT count(*) FROM {part})")).collect();
        let select = format!("SELECT unnest(ARRAY[{}]::bigint[])", counts.join(", "));
        let all_written: Vec<i64> = self.query(&select, connection).await?;
        for ((part, (rows, shortfall)), written) in musts.into_iter().zip(all_written) {
            if rows != written {
                return Err(Unwritten::Short { part, rows, written, shortfall });
            }
        }
        Ok(())
    }

    /// Sends the statement; answers the rows that `select` makes of its parts.
    pub(super) async fn fetch(
        self,
        select: &str,
        executor: impl PgExecutor<'_>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        if let Some(error) = self.failed {
            return Err(sqlx::Error::Encode(error));
        }
        let part = |part: &Part| format!("{} AS MATERIALIZED ({})", part.name, part.sql);
        let sql = format!("WITH {} {select}", self.parts.iter().map(part).collect::<Vec<_>>().join(", "));
        sqlx::query_with(AssertSqlSafe(sql), self.arguments).fetch_all(executor).await
    }
}

/// Rows that a statement takes in.
pub struct Rows<'s, 'r, R> {
    statement: &'s mut Statement,
    rows: &'r [R],
    names: Vec<&'static str>,
    values: Vec<String>,
}

impl<'r, R> Rows<'_, 'r, R> {
    /// Adds a column of that type.
    #[must_use]
    pub fn column<T>(mut self, name: &'static str, sql_type: &str, of: impl FnMut(&'r R) -> T) -> Self
    where
        Vec<T>: Encode<'r, Postgres> + Type<Postgres>,
    {
        let values: Vec<T> = self.rows.iter().map(of).collect();
        self.values.push(format!("{}::{sql_type}[]", self.statement.bind(values)));
        self.names.push(name);
        self
    }

    /// What stands in a FROM clause for the rows: `name` with the columns, and with `ordinal`, which counts them from 1.
    #[must_use]
    pub fn relation(self, name: &str) -> String {
        let (values, names) = (self.values.join(", "), self.names.join(", "));
        format!("unnest({values}) WITH ORDINALITY AS {name} ({names}, ordinal)")
    }
}
