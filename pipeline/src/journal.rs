//! The one way by which state changes: load, decide, write.
//!
//! Whoever changes anything says which rows it needs, decides from them in memory, and writes documents, events and
//! projections in one statement, in one transaction. A conflict is loaded afresh. What is decided does no I/O, so the same
//! decision can be made again, or made and not written.
//!
//! Architecture Invariant: no state changes but through [`Journal::decide`], a consumer's batch, and the statement that accepts
//! orders.

mod load;
pub(crate) mod statement;
mod write;

use jiff::Timestamp;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;

use crate::clock::Clock;
use crate::database::{self, Next};
use crate::log::{self, Entry};
use crate::wake::Wake;
use crate::words::Words;

pub(crate) use load::{Beside, Load};
pub use load::{Keys, Loaded, Lock, StoredDocument, Table, load};
pub use statement::{Shortfall, Statement, Unwritten};
pub use write::{Change, Projection};

/// How often a decision is made anew before a conflict is told: it is another one each time.
const CONFLICTS_MAX: u32 = 20;

/// What was decided, to be written.
#[derive(Default)]
pub struct Writes {
    /// Documents.
    pub changes: Vec<Change>,
    /// Events, in order.
    pub entries: Vec<Entry>,
    /// What else is made of them.
    pub projections: Vec<Box<dyn Projection>>,
}

impl Writes {
    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.entries.is_empty() && self.projections.is_empty()
    }
}

/// Where state is changed: the database, the time, and the relay's ear. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Journal {
    /// The database.
    pub pool: PgPool,
    /// The clock.
    pub clock: Clock,
    /// How many partitions every topic has.
    pub partitions: i16,
    /// Wakes a relay in this process after a commit.
    wake: Wake,
    /// The codes of the log's words.
    pub(crate) words: Words,
}

/// Why nothing was decided.
#[derive(Debug, Error)]
pub enum JournalError {
    /// What was decided can't be written.
    #[error(transparent)]
    Unwritten(#[from] Unwritten),
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// What was loaded is not what the program writes.
    #[error("corrupt row: {0}")]
    Corrupt(String),
    /// What was decided breaks a rule.
    #[error("rule: {0}")]
    Rule(String),
    /// An event could not be written as JSON.
    #[error("encoding: {0}")]
    Encode(#[from] serde_json::Error),
}

impl Journal {
    /// A journal on that database.
    #[must_use]
    pub fn new(pool: PgPool, clock: Clock, wake: Wake, partitions: i16) -> Journal {
        Journal { pool, clock, partitions, wake, words: Words::default() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Loads and locks rows, decides, and writes what was decided; all of it or nothing. `decide` is given what was
    /// loaded and the time, taken under the locks, so that times follow one another as changes do. It may be called more than once.
    ///
    /// # Errors
    /// Those of `decide`, or [`JournalError`].
    pub async fn decide<T, E: From<JournalError>>(
        &self,
        tables: &'static [Table],
        keys: &Keys,
        mut decide: impl FnMut(&Loaded, Timestamp) -> Result<(Writes, T), E>,
    ) -> Result<T, E> {
        let mut conflicts = 0;
        loop {
            let mut transaction = self.begin().await?;
            let loaded =
                load(&mut transaction, tables, keys, Lock::ForUpdate).await.map_err(JournalError::from)?;
            let now = self.now();
            let (writes, answer) = decide(&loaded, now)?;
            if writes.is_empty() {
                return Ok(answer);
            }
            let mut statement = Statement::default();
            self.add(&mut statement, &writes, now).await?;
            match statement.execute(&mut transaction).await {
                Ok(()) => {
                    transaction.commit().await.map_err(JournalError::from)?;
                    self.committed(&writes.entries);
                    return Ok(answer);
                }
                Err(error) if error.is_conflict() && conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                    tracing::debug!(%error, conflicts, "decided anew");
                    transaction.rollback().await.map_err(JournalError::from)?;
                }
                Err(error) => return Err(JournalError::from(error).into()),
            }
        }
    }

    /// Gives codes to words that will be written. Words that nobody has told of before are learnt when they are met, on a
    /// connection of their own; whoever starts tells of all that it knows.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn learn<'a>(&self, words: impl Iterator<Item = &'a str>) -> Result<(), sqlx::Error> {
        self.words.read_all(&self.pool).await?;
        self.words.learn(&self.pool, words).await
    }

    /// Where a relay in this process hears of commits.
    #[must_use]
    pub fn wake(&self) -> Wake {
        self.wake.clone()
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// Where no connection can be had.
    pub async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, JournalError> {
        Ok(database::begin(&self.pool).await?)
    }

    /// Adds what is to be written to a statement.
    ///
    /// # Errors
    /// Where the log's words can't be given codes.
    pub async fn add(
        &self,
        statement: &mut Statement,
        writes: &Writes,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        write::add_changes(statement, &writes.changes);
        log::add(statement, &self.pool, &self.words, &writes.entries, now, "").await?;
        writes.projections.iter().for_each(|projection| projection.add(statement));
        Ok(())
    }

    /// Adds entries for which `condition` holds, a WHERE clause over the log's columns, to a statement of the caller's.
    ///
    /// # Errors
    /// Where the log's words can't be given codes.
    pub async fn add_entries(
        &self,
        statement: &mut Statement,
        entries: &[Entry],
        now: Timestamp,
        condition: &str,
    ) -> Result<(), sqlx::Error> {
        log::add(statement, &self.pool, &self.words, entries, now, condition).await
    }

    /// Appends entries in the caller's transaction, and nothing else.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn append(
        &self,
        connection: &mut PgConnection,
        entries: Vec<Entry>,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let mut statement = Statement::default();
        self.add(&mut statement, &Writes { entries, ..Writes::default() }, now).await?;
        Ok(statement.execute(connection).await?)
    }

    /// Something was committed: a relay in this process looks at once.
    pub fn committed(&self, entries: &[Entry]) {
        if !entries.is_empty() {
            self.wake.wake();
        }
    }
}

impl JournalError {
    /// Whether the request has been answered before, and nothing was written.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        matches!(self, JournalError::Unwritten(Unwritten::Short { shortfall: Shortfall::Repeated, .. }))
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> Next {
        match self {
            JournalError::Unwritten(error) if error.is_conflict() => Next::Retry,
            JournalError::Unwritten(Unwritten::Short { .. }) => Next::Bug,
            JournalError::Unwritten(Unwritten::Database(error)) | JournalError::Database(error) => {
                database::next_after(error)
            }
            JournalError::Rule(_) => Next::Reject,
            JournalError::Corrupt(_) | JournalError::Encode(_) => Next::Bug,
        }
    }
}
