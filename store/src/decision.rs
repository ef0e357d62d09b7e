//! Deciding on capabilities: what was loaded as state in memory, what was decided as what is to be written.

use jiff::Timestamp;
use ordermill_domain::aggregate::{Document, DocumentError};
use ordermill_domain::capability::{Capability, Decided};
use ordermill_pipeline::journal::{Journal, JournalError, Keys, Loaded, Projection, Writes};
use ordermill_pipeline::log::{Entry, Origin};
use ordermill_schemas::Event;
use uuid::Uuid;

use crate::tables;

/// An event that was decided upon, with its id and where it comes from.
#[derive(Clone, Debug)]
pub struct Written {
    /// The event's id.
    pub event_id: Uuid,
    /// The event.
    pub event: Event,
    /// Its ordinal in its aggregate's history.
    pub sequence: i32,
    /// What caused it, who, and in which span.
    pub origin: Origin,
}

impl Written {
    /// The event that was decided upon, under that id.
    #[must_use]
    pub fn new(event_id: Uuid, decided: Decided, origin: Origin) -> Written {
        Written { event_id, event: decided.event, sequence: decided.sequence, origin }
    }

    /// Events that somebody outside has asked for; they have ids of their own.
    #[must_use]
    pub fn asked_for(decided: Vec<Decided>, origin: &Origin) -> Vec<Written> {
        decided.into_iter().map(|decided| Written::new(Uuid::now_v7(), decided, origin.clone())).collect()
    }
}

/// What was decided, and what is to be said about it.
pub struct Decision<T> {
    /// The events.
    pub written: Vec<Written>,
    /// What is to be written beside them.
    pub beside: Vec<Box<dyn Projection>>,
    /// The answer to whoever asked.
    pub answer: T,
}

impl<T> Decision<T> {
    /// Events alone.
    #[must_use]
    pub fn of(written: Vec<Written>, answer: T) -> Decision<T> {
        Decision { written, beside: Vec::new(), answer }
    }
}

/// Loads and locks what `keys` say, has `decide` decide on it, and writes documents, events and projections; all of it or
/// nothing. `decide` may be called more than once.
///
/// # Errors
/// Those of `decide`, or [`JournalError`].
pub async fn decide<C: Capability, T, E: From<JournalError>>(
    journal: &Journal,
    keys: &Keys,
    mut decide: impl FnMut(&mut C) -> Result<Decision<T>, E>,
) -> Result<T, E> {
    journal
        .decide(tables(), keys, |loaded, now| {
            let before: C = state(loaded, now)?;
            let mut after = before.clone();
            let Decision { written, beside, answer } = decide(&mut after)?;
            let mut writes = writes(loaded, &before, &after, written, journal.partitions)?;
            writes.projections.extend(beside);
            Ok((writes, answer))
        })
        .await
}

/// What was loaded, as a capability's state at that time.
///
/// # Errors
/// [`JournalError::Corrupt`] where a document is not what the program writes.
pub fn state<C: Capability>(loaded: &Loaded, now: Timestamp) -> Result<C, JournalError> {
    let mut state = C::default();
    *state.now() = now;
    for row in &loaded.documents {
        state.put(row.table, row.key, &row.state, row.bulk.as_deref()).map_err(refused)?;
    }
    Ok(state)
}

/// What is to be written where `before` has become `after` by those events.
///
/// # Errors
/// [`JournalError::Rule`] where that may not be.
pub fn writes<C: Capability>(
    loaded: &Loaded,
    before: &C,
    after: &C,
    written: Vec<Written>,
    partitions: i16,
) -> Result<Writes, JournalError> {
    let change = |Document { kind, key, state, bulk }| loaded.change(kind.noun, key, state, bulk);
    after.check(before).map_err(refused)?;
    let changes = after.changes(before).map_err(refused)?.into_iter().map(change).collect();
    let entry = |written: Written| {
        Entry::of_event(written.event_id, written.event, written.sequence, written.origin, partitions)
    };
    let entries = written.into_iter().map(entry).collect::<Result<_, _>>()?;
    Ok(Writes { changes, entries, projections: Vec::new() })
}

fn refused(error: DocumentError) -> JournalError {
    match error {
        DocumentError::Forbidden { .. } => JournalError::Rule(error.to_string()),
        DocumentError::Unreadable { .. } | DocumentError::Unwritable { .. } => {
            JournalError::Corrupt(error.to_string())
        }
    }
}
