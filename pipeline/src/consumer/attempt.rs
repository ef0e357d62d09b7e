//! An attempt at applying messages from their rows: all of one, or nothing of it.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};

use super::record::{Received, Record};
use super::{Batch, Handled, Handler, HandlerError, Runtime};
use crate::dead_letters::Code;
use crate::log::Entry;

/// Has the handler apply a batch. A panic is an error like others: it must not end the consumer.
pub(super) async fn handle<H: Handler>(
    handler: &H,
    connection: &mut PgConnection,
    batch: &Batch<'_>,
) -> Result<Handled, HandlerError> {
    match AssertUnwindSafe(handler.handle(connection, batch)).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => Err(HandlerError::Panic(message_of(panic.as_ref()))),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

/// What came of an attempt at one message.
#[derive(Clone, Debug)]
pub(super) enum Attempt {
    /// It was applied, in the caller's transaction; whether that changed anything.
    Applied { had_effect: bool },
    /// It can't be applied, and nothing of it is left in the transaction.
    Failed(Code, String),
}

/// What came of an attempt at several messages.
pub(super) enum Attempted {
    /// Of each message, with what is to be appended because of all.
    Each(Vec<Attempt>, Vec<Entry>),
    /// One of several can't be applied, and nothing of any is left in the transaction: try them one by one.
    OneByOne,
}

/// Tries to apply messages inside the caller's transaction, as one batch.
///
/// # Errors
/// Where the same may work later.
pub(super) async fn attempt<H: Handler>(
    runtime: &Runtime,
    handler: &H,
    connection: &mut PgConnection,
    records: &[&Record],
    now: Timestamp,
) -> Result<Attempted, HandlerError> {
    let mut attempts = Vec::with_capacity(records.len());
    let mut events: Vec<Received> = Vec::with_capacity(records.len());
    for record in records {
        attempts.push(match record.receive() {
            Ok(received) => {
                events.push(received);
                Attempt::Applied { had_effect: false }
            }
            Err((code, error)) => Attempt::Failed(code, error),
        });
    }
    if events.is_empty() {
        return Ok(Attempted::Each(attempts, Vec::new()));
    }
    let mut savepoint = connection.begin().await?;
    let batch = Batch { events: &events, now, partitions: runtime.partitions, tells_effects: true };
    match handle(handler, &mut savepoint, &batch).await {
        Ok(Handled { entries, effects }) => {
            savepoint.commit().await?;
            let applied = attempts.iter_mut().filter(|attempt| matches!(attempt, Attempt::Applied { .. }));
            for (attempt, had_effect) in applied.zip(effects) {
                *attempt = Attempt::Applied { had_effect };
            }
            Ok(Attempted::Each(attempts, entries))
        }
        Err(error) => {
            let Some(code) = error.rejection() else { return Err(error) };
            savepoint.rollback().await?;
            if events.len() > 1 {
                return Ok(Attempted::OneByOne);
            }
            for attempt in attempts.iter_mut().filter(|attempt| matches!(attempt, Attempt::Applied { .. })) {
                *attempt = Attempt::Failed(code, error.to_string());
            }
            Ok(Attempted::Each(attempts, Vec::new()))
        }
    }
}
