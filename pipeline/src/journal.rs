//! The one way by which state changes: load, decide, write.
//!
//! Whoever changes anything says which rows it needs, decides from them in memory, and writes documents, events and
//! projections in one statement, in one transaction. A conflict is loaded afresh. What is decided does no I/O, so the same
//! decision can be made again, or made and not written.
//!
//! Architecture Invariant: no state changes but through [`Journal::decide`], a consumer's batch, and a statement that only adds
//! what is new.

mod cache;
mod contention;
mod foreseen;
mod load;
pub(crate) mod statement;
mod turns;
mod write;

use std::time::Instant;

use jiff::Timestamp;
use sqlx::{PgExecutor, PgPool};
use thiserror::Error;

use crate::clock::Clock;
use crate::database::{self, Next, Told};
use crate::log::{self, Appended, Entry};
use crate::wake::Wake;
use crate::warm_connections::WarmConnections;
use crate::words::Words;

use cache::{Cache, Recalled};
use contention::{Contention, Means};
use turns::{Turn, Turns};

pub(crate) use foreseen::Foreseen;
pub(crate) use load::{Beside, Load};
pub use load::{Follows, Keys, KeysOf, Loaded, Lock, StoredDocument, Table, load};
pub use statement::{Answer, Rows, Shortfall, Statement, Unwritten, is_taken_key};
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

/// What a statement has written, to be told once it is committed.
#[must_use = "it is to be told once it is committed"]
pub struct Stored {
    loaded: Loaded,
    writes: Writes,
    at: Timestamp,
    answer: Answer,
}

impl Stored {
    /// The events.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.writes.entries
    }
}

/// Where state is changed: the database, the time, and the relay's ear. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Journal {
    /// The database, for whoever reads, and for what is not decided here.
    pub pool: PgPool,
    /// The clock.
    pub clock: Clock,
    /// How many partitions every topic has.
    pub partitions: i16,
    /// Tells this process of commits.
    wake: Wake,
    /// The codes of the log's words.
    words: Words,
    /// Documents that need not be loaded.
    cache: Cache,
    /// Where somebody else was faster lately.
    contention: Contention,
    /// Who decides after whom there.
    turns: Turns,
    /// Connections for whoever decides.
    warm: WarmConnections,
}

/// Why nothing was decided.
#[derive(Debug, Error)]
pub enum JournalError {
    /// What was decided can't be written.
    #[error(transparent)]
    Unwritten(#[from] Unwritten),
    /// The database failed.
    #[error("database: {}", Told(.0))]
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
    /// What decides panicked.
    #[error("panic: {0}")]
    Panic(String),
    /// The log has no codes for these words yet. They are to be learnt without an open transaction, and then the same again.
    #[error("the log has no codes for {}", .0.join(", "))]
    Unlearnt(Vec<String>),
}

impl Journal {
    /// A journal on that database.
    #[must_use]
    pub fn new(pool: PgPool, clock: Clock, wake: Wake, partitions: i16) -> Journal {
        let (words, cache, warm) = (Words::default(), Cache::new(), WarmConnections::among_others(&pool));
        let (contention, turns) = (Contention::default(), Turns::default());
        Journal { pool, clock, partitions, wake, words, cache, contention, turns, warm }
    }

    /// The same over other connections: those of `pool` for whoever reads, those of `deciding` for whoever decides. All else is shared: what is
    /// remembered, whose turn it is, and who hears of commits.
    ///
    /// Whoever waits for a turn waits until the one before has a connection, too. So nobody else should use `deciding`: who decides holds
    /// a connection for a statement or a transaction, and waits for nothing else meanwhile but the database.
    #[must_use]
    pub fn over(&self, pool: PgPool, deciding: &PgPool) -> Journal {
        Journal { pool, warm: WarmConnections::alone(deciding), ..self.clone() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Decides on rows, and writes what was decided; all of it or nothing. `decide` is given the rows and the time. It may be called more than
    /// once: first with the rows as this process remembers them, where it remembers all, which needs no load and no transaction;
    /// where nothing could be written, or nothing is to be, with the rows as they are loaded and locked. Times follow one another
    /// as changes of a row do.
    ///
    /// # Errors
    /// Those of `decide`, or [`JournalError`].
    pub async fn decide<T, E: From<JournalError>>(
        &self,
        tables: &'static [Table],
        keys: &Keys,
        mut decide: impl FnMut(&Loaded, Timestamp) -> Result<(Writes, T), E>,
    ) -> Result<T, E> {
        if let Some(recalled) = self.recall(tables, keys).await {
            let now = self.now();
            // What was decided from what may be out of date is believed only once it is written.
            if let Ok((writes, answer)) = decide(&recalled, now)
                && !writes.is_empty()
                && self.write_recalled(Statement::default(), recalled, writes, now).await?
            {
                return Ok(answer);
            }
        }
        let mut conflicts = 0;
        loop {
            let turn = self.turn(tables, keys).await;
            let mut transaction = self.begin().await?;
            let loaded =
                load(&mut transaction, tables, keys, Lock::ForUpdate).await.map_err(JournalError::from)?;
            let loaded = loaded.in_turn(turn);
            let now = self.now();
            let (writes, answer) = decide(&loaded, now)?;
            if writes.is_empty() {
                return Ok(answer);
            }
            match self.write(Statement::default(), loaded, writes, now, &mut *transaction).await {
                Ok(stored) => {
                    transaction.commit().await.map_err(JournalError::from)?;
                    self.committed(stored);
                    return Ok(answer);
                }
                Err(JournalError::Unlearnt(words)) => {
                    transaction.rollback().await.map_err(JournalError::from)?;
                    self.learn(words.iter().map(String::as_str)).await.map_err(JournalError::from)?;
                }
                Err(error) if error.is_conflict() && conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                    tracing::debug!(%error, conflicts, "decided anew");
                    transaction.rollback().await.map_err(JournalError::from)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The rows of those keys, and of the keys that follow from them, as this process remembers them; none where it does not remember all, or
    /// other processes write the same rows so often that locking them costs less. Where this process does, it waits for its turn.
    pub(crate) async fn recall(&self, tables: &'static [Table], keys: &Keys) -> Option<Loaded> {
        let recalled = self.cache.recall(tables, keys);
        match self.contention.calls_for(&recalled.tables, Instant::now()) {
            None => recalled.whole(),
            Some(Means::Locks) => None,
            Some(Means::Turns) => {
                let turn = self.turn_at(&recalled).await;
                // As those before have left it.
                let recalled = self.cache.recall(tables, keys).whole()?;
                turn.is_at(&recalled.keys()).then(|| recalled.in_turn(Some(turn)))
            }
        }
    }

    /// The turn of who loads the rows of those keys, where others of this process are after the same. To be waited for without a connection.
    pub(crate) async fn turn(&self, tables: &'static [Table], keys: &Keys) -> Option<Turn> {
        let recalled = self.cache.recall(tables, keys);
        self.contention.calls_for(&recalled.tables, Instant::now())?;
        Some(self.turn_at(&recalled).await)
    }

    async fn turn_at(&self, recalled: &Recalled) -> Turn {
        let turn = self.turns.take(recalled.keys()).await;
        if turn.has_waited() {
            self.contention.lasts(&recalled.tables, Instant::now());
        }
        turn
    }

    /// Writes what was decided from what is remembered, in one statement of its own, and tells of it. Answers whether it is written; if not, it is
    /// to be decided anew from a load.
    async fn write_recalled(
        &self,
        statement: Statement,
        recalled: Loaded,
        writes: Writes,
        now: Timestamp,
    ) -> Result<bool, JournalError> {
        match self.write_alone(statement, recalled, writes, now).await {
            Ok(stored) => {
                self.committed(stored);
                Ok(true)
            }
            Err(JournalError::Unlearnt(_)) => Ok(false),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The same as [`Journal::write`] in a transaction of its own, over a connection that is at hand: what it answers is committed.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn write_alone(
        &self,
        statement: Statement,
        loaded: Loaded,
        writes: Writes,
        at: Timestamp,
    ) -> Result<Stored, JournalError> {
        let mut connection = self.warm.take().await?;
        let outcome = self.write(statement, loaded, writes, at, &mut *connection).await;
        let is_well =
            outcome.as_ref().err().is_none_or(|error| error.is_conflict() || error.is_about_standing());
        if is_well {
            self.warm.give_back(connection);
        }
        outcome
    }

    /// Closes the connections, at once for whoever waits for one; done once all have come back.
    pub fn close(&self) -> impl Future<Output = ()> {
        let (reading, deciding) = (self.pool.close(), self.warm.close());
        async move {
            reading.await;
            deciding.await;
        }
    }

    /// Adds what was decided from `loaded` to a statement, and sends it. Once it is committed it is to be told by [`Journal::committed`].
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn write(
        &self,
        mut statement: Statement,
        loaded: Loaded,
        writes: Writes,
        at: Timestamp,
        executor: impl PgExecutor<'_>,
    ) -> Result<Stored, JournalError> {
        let unknown = self.words.unknown(log::words(&writes.entries));
        if !unknown.is_empty() {
            return Err(JournalError::Unlearnt(unknown));
        }
        // Documents first, as loads lock them first.
        statement.before(|statement| write::add_changes(statement, &loaded, &writes.changes));
        log::add(&mut statement, &self.words, &writes.entries, at);
        writes.projections.iter().for_each(|projection| projection.add(&mut statement));
        match statement.execute(executor).await {
            Ok(answer) => Ok(Stored { loaded, writes, at, answer }),
            Err(error) => {
                if error.is_conflict() {
                    self.contention.met(&loaded, &error, Instant::now());
                    self.cache.forget(&loaded);
                }
                Err(error.into())
            }
        }
    }

    /// Gives codes to words that will be written. Whoever starts tells of all that it knows; a word that nobody has told of is
    /// learnt when it is met, but never while a transaction is open: who waits for a second connection while it holds one
    /// may wait for ever.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn learn<'a>(&self, words: impl Iterator<Item = &'a str>) -> Result<(), sqlx::Error> {
        self.words.read_all(&self.pool).await?;
        self.words.learn(&self.pool, words).await
    }

    /// The same for the words of entries that will be written.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn learn_words_of(&self, entries: &[Entry]) -> Result<(), sqlx::Error> {
        self.words.learn(&self.pool, log::words(entries)).await
    }

    /// Where this process hears of commits.
    #[must_use]
    pub fn wake(&self) -> Wake {
        self.wake.clone()
    }

    /// Begins a transaction in which something is decided.
    ///
    /// # Errors
    /// Where no connection can be had.
    pub async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, JournalError> {
        Ok(self.warm.begin().await?)
    }

    /// What was stored is committed: a relay in this process is handed the events, whoever waits for the documents hears of them, and they are
    /// remembered.
    pub fn committed(&self, stored: Stored) {
        let Stored { loaded, writes: Writes { changes, entries, .. }, at, answer } = stored;
        if let Some(number) = answer.number {
            self.wake.appended(Appended { number, at, entries });
        }
        self.wake.changed(self.cache.remember(loaded, changes, answer.places));
    }
}

impl JournalError {
    /// Whether the request has been answered before, and nothing was written.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        matches!(self, JournalError::Unwritten(Unwritten::Short { shortfall: Shortfall::Repeated, .. }))
    }

    /// Whether somebody else was there first, so that the same may be decided anew.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, JournalError::Unwritten(error) if error.is_conflict())
    }

    /// Whether a group does not stand as it was taken to.
    pub(crate) fn is_about_standing(&self) -> bool {
        matches!(self, JournalError::Unwritten(Unwritten::Short { shortfall: Shortfall::Standing, .. }))
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> Next {
        match self {
            error if error.is_conflict() => Next::Retry,
            JournalError::Unlearnt(_) => Next::Retry,
            JournalError::Unwritten(Unwritten::Short { .. }) => Next::Bug,
            JournalError::Unwritten(Unwritten::Database(error)) | JournalError::Database(error) => {
                database::next_after(error)
            }
            JournalError::Rule(_) => Next::Reject,
            JournalError::Corrupt(_) | JournalError::Encode(_) | JournalError::Panic(_) => Next::Bug,
        }
    }
}
