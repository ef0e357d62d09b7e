//! Attempts at messages: all of one, or nothing of it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};

use super::record::{Received, Record};
use super::{Batch, Handled, Handler, HandlerError, Runtime};
use crate::dead_letters::Code;
use crate::journal::{Keys, Lock, Statement, Writes, load};

/// Has the handler decide. A panic is an error like others: it must not end the consumer.
pub(super) fn decide<H: Handler>(
    handler: &H,
    loaded: &crate::journal::Loaded,
    batch: &Batch<'_>,
) -> Result<Handled, HandlerError> {
    catch_unwind(AssertUnwindSafe(|| handler.decide(loaded, batch)))
        .unwrap_or_else(|panic| Err(HandlerError::Panic(message_of(panic.as_ref()))))
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

/// What came of attempts at several messages.
pub(super) enum Attempted {
    /// Of each message, with what was written because of all.
    Each(Vec<Attempt>, Writes),
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
    let (mut attempts, events) = receive(records);
    if events.is_empty() {
        return Ok(Attempted::Each(attempts, Writes::default()));
    }
    let mut savepoint = connection.begin().await?;
    match write(runtime, handler, &mut savepoint, &events, now).await {
        Ok(Handled { writes, effects }) => {
            savepoint.commit().await?;
            tell(&mut attempts, &effects);
            Ok(Attempted::Each(attempts, writes))
        }
        Err(error) => {
            let Some(code) = error.rejection() else { return Err(error) };
            savepoint.rollback().await?;
            if events.len() > 1 {
                return Ok(Attempted::OneByOne);
            }
            fail(&mut attempts, code, &error);
            Ok(Attempted::Each(attempts, Writes::default()))
        }
    }
}

async fn write<H: Handler>(
    runtime: &Runtime,
    handler: &H,
    connection: &mut PgConnection,
    events: &[Received],
    now: Timestamp,
) -> Result<Handled, HandlerError> {
    let loaded = load(&mut *connection, H::tables(), &keys(handler, events), Lock::ForUpdate).await?;
    let batch = Batch { events, now, partitions: runtime.journal.partitions, tells_effects: true };
    let handled = decide(handler, &loaded, &batch)?;
    let mut statement = Statement::default();
    runtime.journal.add(&mut statement, &handled.writes, now).await?;
    statement.execute(connection).await?;
    Ok(handled)
}

/// What would come of messages that are applied one after the other, up to the first that can't be. Nothing is locked or
/// written, so what only the database refuses is not foreseen.
///
/// # Errors
/// Where the database fails.
pub(super) async fn foresee<H: Handler>(
    runtime: &Runtime,
    handler: &H,
    connection: &mut PgConnection,
    records: &[&Record],
    now: Timestamp,
) -> Result<Vec<Attempt>, HandlerError> {
    let (mut attempts, events) = receive(records);
    let loaded = load(connection, H::tables(), &keys(handler, &events), Lock::None).await?;
    let decide = |events: &[Received]| {
        let batch = Batch { events, now, partitions: runtime.journal.partitions, tells_effects: true };
        decide(handler, &loaded, &batch)
    };
    match decide(&events) {
        Ok(handled) => tell(&mut attempts, &handled.effects),
        Err(error) => {
            if error.rejection().is_none() {
                return Err(error);
            }
            // Each together with those before it, that can be applied.
            let (mut applied, mut events) = (Vec::new(), events.into_iter());
            for attempt in attempts.iter_mut().filter(|attempt| matches!(attempt, Attempt::Applied { .. })) {
                applied.extend(events.next());
                match decide(&applied) {
                    Ok(handled) => {
                        *attempt = Attempt::Applied { had_effect: handled.effects.last() == Some(&true) }
                    }
                    Err(error) => {
                        applied.pop();
                        let code = error.rejection().unwrap_or(Code::Bug);
                        *attempt = Attempt::Failed(code, error.to_string());
                    }
                }
            }
        }
    }
    Ok(attempts)
}

fn keys<H: Handler>(handler: &H, events: &[Received]) -> Keys {
    let mut keys = Keys::default();
    events.iter().for_each(|received| handler.keys(&received.event, &mut keys));
    keys
}

/// The events in messages, and what came of those that have none.
fn receive(records: &[&Record]) -> (Vec<Attempt>, Vec<Received>) {
    let mut events = Vec::with_capacity(records.len());
    let attempt = |record: &&Record| match record.receive() {
        Ok(received) => {
            events.push(received);
            Attempt::Applied { had_effect: false }
        }
        Err((code, error)) => Attempt::Failed(code, error),
    };
    (records.iter().map(attempt).collect(), events)
}

fn tell(attempts: &mut [Attempt], effects: &[bool]) {
    let applied = attempts.iter_mut().filter(|attempt| matches!(attempt, Attempt::Applied { .. }));
    for (attempt, had_effect) in applied.zip(effects) {
        *attempt = Attempt::Applied { had_effect: *had_effect };
    }
}

fn fail(attempts: &mut [Attempt], code: Code, error: &HandlerError) {
    for attempt in attempts.iter_mut().filter(|attempt| matches!(attempt, Attempt::Applied { .. })) {
        *attempt = Attempt::Failed(code, error.to_string());
    }
}
