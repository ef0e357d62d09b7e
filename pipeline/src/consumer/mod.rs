//! The consumer runtime: brings the records of a group's topics to its handler, in batches, each batch one
//! transaction with its offsets.
//!
//! Offsets live in PostgreSQL, beside the effects, and every owner of a partition has an epoch: a batch
//! whose epoch has passed is rolled back, so a process that was taken for dead can't apply anything.

mod assignment;
mod attempt;
mod batch;
mod dry_run;
mod feed;
mod foreign_cap;
mod gathered;
mod mark;
mod membership;
mod offsets;
mod reader;
mod reading;
mod replayer;
mod runtime;
mod search;
mod sequence_check;
mod taking;
mod unassigned;
mod watchdog;
mod watching;

use jiff::Timestamp;
use ordermill_wire::Event;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::{self, Next};
use crate::dead_letters::Code;
use crate::heartbeat::Signs;
use crate::journal::{Journal, JournalError, Keys, Loaded, Stored, Table, Unwritten, Writes};
use crate::kafka::KafkaConfig;
use crate::log::Entry;
use crate::metrics::PipelineMetrics;

pub use crate::dead_letters::flood::FloodLimit;
pub use crate::record::{Received, Record};
pub use runtime::run;
pub(crate) use sequence_check::{Verdict, judge};

/// What a consumer needs besides its handler.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Where Kafka is.
    pub kafka: KafkaConfig,
    /// At most this many records in a batch.
    pub batch_records_max: usize,
    /// How long Kafka waits for a silent member before it gives its partitions to others.
    pub session_timeout_ms: u32,
    /// When the member stops because too much of what it reads can't be applied.
    pub flood_limit: FloodLimit,
}

/// What the runtime works with, shared by all consumers of a process.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Where state is changed.
    pub journal: Journal,
    /// The figures.
    pub metrics: PipelineMetrics,
    /// What readiness is told of the loops.
    pub signs: Signs,
    /// Ends all loops.
    pub shutdown: CancellationToken,
}

/// A batch for a handler: events in order, each key's in the order of its changes.
pub struct Batch<'a, E> {
    /// The events.
    pub events: &'a [&'a Received<E>],
    /// The time of the batch.
    pub now: Timestamp,
    /// How many partitions every topic has.
    pub partitions: i16,
    /// Whether [`Handled::effects`] is wanted.
    pub tells_effects: bool,
}

/// What a worker is to the runtime: it says which rows a batch needs, and decides.
///
/// It does no I/O. A batch may be rolled back and come again, or be decided and not written.
pub trait Handler: Send + Sync + 'static {
    /// The group's name, without prefix.
    const GROUP: &'static str;
    /// What it reads.
    type Event: Event;
    /// The topics it reads.
    const TOPICS: &'static [<Self::Event as Event>::Topic];

    /// Whether its events may wait half a second for others, to be read and applied with them. Nobody waits for such a group, and it costs
    /// less.
    const IS_PATIENT: bool = false;

    /// The tables that it decides by, in the order in which they are locked.
    fn tables() -> &'static [Table] {
        &[]
    }

    /// Adds the keys of the rows that an event is about.
    fn keys(&self, _event: &Self::Event, _keys: &mut Keys) {}

    /// Whether anything may follow from an event. Those of no interest are passed over without a transaction, unless they may
    /// have to wait behind a letter of their key.
    fn is_of_interest(&self, _event: &Self::Event) -> bool {
        true
    }

    /// What follows from a batch.
    ///
    /// # Errors
    /// Where what was loaded can't be read, or what was decided may not be.
    fn decide(&self, loaded: &Loaded, batch: &Batch<'_, Self::Event>) -> Result<Handled, JournalError>;

    /// Called when a batch has been committed, with the events that were appended. What is done here may be lost
    /// when the process dies, so it must be found again from the tables.
    fn committed(&self, _appended: Vec<Entry>) {}

    /// Which of its own new events the handler wants to see after the commit.
    fn follows_up(_entry: &Entry) -> bool {
        false
    }
}

/// What came of a batch.
#[derive(Default)]
pub struct Handled {
    /// What is to be written.
    pub writes: Writes,
    /// For each event whether it changed anything or anything is appended because of it; if not, what it asks for had
    /// been done before. Empty unless the batch wants it.
    pub effects: Vec<bool>,
}

impl Runtime {
    /// Tells who waits for it what has been committed, the handler of those events that it follows up.
    fn committed<H: Handler>(&self, handler: &H, stored: Stored) {
        let appended: Vec<Entry> =
            stored.entries().iter().filter(|entry| H::follows_up(entry)).cloned().collect();
        self.journal.committed(stored);
        if !appended.is_empty() {
            handler.committed(appended);
        }
    }
}

/// Why a message that this happens with is put aside; none where the same may work later.
///
/// What is wrong with the set-up, like a missing table, is wrong with every message: nothing is put aside for it. The
/// worker stays where it is, says so, and goes on once it is mended.
fn rejection(error: &JournalError) -> Option<Code> {
    match error {
        JournalError::Encode(_) | JournalError::Corrupt(_) | JournalError::Panic(_) => Some(Code::Bug),
        JournalError::Rule(_) => Some(Code::Rule),
        JournalError::Unlearnt(_) | JournalError::Unwritten(Unwritten::Short { .. }) => None,
        error if error.is_conflict() => None,
        JournalError::Unwritten(Unwritten::Database(error)) | JournalError::Database(error) => match error {
            // A row that the program can't read.
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Some(Code::Bug),
            error => (database::next_after(error) == Next::Reject).then_some(Code::Rule),
        },
    }
}

/// Whether the same fails again, whatever happens meanwhile, because of what it is about.
#[must_use]
pub fn is_rejected(error: &JournalError) -> bool {
    rejection(error).is_some()
}

/// The id of the `index`-th event that `group` appends because of `cause`: derived, so that a batch that is
/// repeated writes the same events.
#[must_use]
pub fn derived_event_id(group: &str, cause: Uuid, index: usize) -> Uuid {
    Uuid::new_v5(&cause, format!("{group}:{index}").as_bytes())
}
