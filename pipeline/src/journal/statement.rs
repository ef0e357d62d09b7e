//! A statement of several parts, each of which says how many rows it must write.
//!
//! All parts are data-modifying CTEs of one statement, so they are one round trip. The outermost SELECT counts how many rows
//! each has written and fails where one has written another number than it must, so that nothing is written by a statement that stands alone,
//! either. The count is not part of a join or a condition: there it would commit where one side happens to be empty.
//!
//! The counts are taken in the order in which the parts were added, so that is the order in which they lock.

use sqlx::encode::Encode;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, AssertSqlSafe, PgExecutor, Postgres, Row as _, Type};
use thiserror::Error;
use uuid::Uuid;

use crate::database::Told;
use crate::log::LOGGED;

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
    /// The group does not stand as it was taken to: it has stopped, or a key of it is parked.
    Standing,
}

/// Why a statement has not been written. Its transaction must be rolled back.
#[derive(Debug, Error)]
pub enum Unwritten {
    /// A part has written another number of rows than it must.
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
    #[error("database: {}", Told(.0))]
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

    /// Where it was: a part or, of a key that is taken, its table; nothing of other errors.
    pub(super) fn part(&self) -> &str {
        match self {
            Unwritten::Short { part, .. } => part,
            Unwritten::Database(error) => {
                let constraint = error.as_database_error().and_then(|error| error.constraint());
                constraint.and_then(|name| name.strip_suffix("_pkey")).unwrap_or_default()
            }
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

/// What a statement answers.
#[derive(Debug, Default)]
pub struct Answer {
    /// The number of the segment that it has appended, where it appends.
    pub number: Option<i64>,
    /// Where the documents lie that it has written.
    pub(super) places: Vec<Place>,
}

/// Where a document lies: the `ctid` of its row.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) table: &'static str,
    pub(super) key: Uuid,
    pub(super) ctid: String,
}

/// The SQLSTATE by which `require_rows` says that a part has written another number of rows than it must.
const ROWS_MISSING: &str = "OM001";

/// Why a statement failed: of the parts that must write so many rows, the first that has not, or what the database says.
fn unwritten(error: sqlx::Error, musts: &[(String, (i64, Shortfall))]) -> Unwritten {
    let told = error.as_database_error().filter(|error| error.code().as_deref() == Some(ROWS_MISSING));
    let counts =
        told.map(|told| told.message().split(',').map(|count| count.parse::<i64>().unwrap_or_default()));
    let short = counts.into_iter().flatten().zip(musts).find(|(written, (_, (rows, _)))| written != rows);
    match short {
        Some((written, (part, (rows, shortfall)))) => {
            Unwritten::Short { part: part.clone(), rows: *rows, written, shortfall: *shortfall }
        }
        None => Unwritten::Database(error),
    }
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
    /// The parts that answer where the documents lie that they have written, of which table, and how many.
    placed: Vec<(String, &'static str, usize)>,
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

    /// Adds a part that must write, or read, exactly so many rows.
    pub fn must(&mut self, name: &str, sql: String, rows: usize, shortfall: Shortfall) {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        self.parts.push(Part { name: name.to_owned(), sql, must: Some((rows, shortfall)) });
    }

    /// Adds a part that must write so many documents of a table, and answers their `key` and `ctid`.
    pub(super) fn documents(&mut self, name: &str, sql: String, table: &'static str, rows: usize) {
        self.must(name, sql, rows, Shortfall::Conflict);
        self.placed.push((name.to_owned(), table, rows));
    }

    /// Has parts come before those that are there, and so lock before them.
    pub(super) fn before(&mut self, add: impl FnOnce(&mut Statement)) {
        let count = self.parts.len();
        add(self);
        self.parts.rotate_left(count);
    }

    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Sends the statement. Nothing of it is written where it answers an error; a transaction that it was part of must be rolled back.
    ///
    /// # Errors
    /// [`Unwritten`].
    pub async fn execute(mut self, executor: impl PgExecutor<'_>) -> Result<Answer, Unwritten> {
        if self.is_empty() {
            return Ok(Answer::default());
        }
        let musts: Vec<_> =
            self.parts.iter().filter_map(|part| Some((part.name.clone(), part.must?))).collect();
        let counts: Vec<String> =
            musts.iter().map(|(part, _)| format!("(SELECT count(*) FROM {part})")).collect();
        let wanted = self.bind(musts.iter().map(|(_, (rows, _))| *rows).collect::<Vec<i64>>());
        let is_appended = self.parts.iter().any(|part| part.name == LOGGED);
        let number = if is_appended { "(SELECT number FROM logged)" } else { "NULL" };
        let places: Vec<String> =
            self.placed.iter().map(|(part, ..)| format!("SELECT key, ctid FROM {part}")).collect();
        let (keys, places) = if places.is_empty() {
            ("NULL".to_owned(), "NULL".to_owned())
        } else {
            let places = places.join(" UNION ALL ");
            (
                format!("ARRAY(SELECT key FROM ({places}) AS p)"),
                format!("ARRAY(SELECT ctid::text FROM ({places}) AS p)"),
            )
        };
        let select = format!(
            "SELECT require_rows(ARRAY[{}]::bigint[], {wanted})::text, {number}::bigint, {keys}::uuid[], {places}::text[]",
            counts.join(", ")
        );
        let placed = std::mem::take(&mut self.placed);
        let tables = placed.into_iter().flat_map(|(_, table, rows)| std::iter::repeat_n(table, rows));
        let rows = self.fetch(&select, executor).await.map_err(|error| unwritten(error, &musts))?;
        let answer = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let keys = answer.try_get::<Option<Vec<Uuid>>, _>(2)?.unwrap_or_default();
        let ctids = answer.try_get::<Option<Vec<String>>, _>(3)?.unwrap_or_default();
        let places =
            tables.zip(keys).zip(ctids).map(|((table, key), ctid)| Place { table, key, ctid }).collect();
        Ok(Answer { number: answer.try_get(1)?, places })
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
