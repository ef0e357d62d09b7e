//! One attempt at applying a message from its row: all of it, or nothing.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};

use super::record::{Received, Record};
use super::{Batch, Handled, Handler, HandlerError, Runtime};
use crate::dead_letters::Code;

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

/// What came of an attempt.
pub(super) enum Attempt {
    /// It was applied, in the caller's transaction.
    Applied(Handled),
    /// It can't be applied; nothing of it is left in the transaction.
    Failed(Code, String),
}

/// Tries to apply one message inside the caller's transaction.
///
/// # Errors
/// Where the same may work later.
pub(super) async fn attempt<H: Handler>(
    runtime: &Runtime,
    handler: &H,
    connection: &mut PgConnection,
    record: &Record,
    now: Timestamp,
) -> Result<Attempt, HandlerError> {
    let received: Received = match record.receive() {
        Ok(received) => received,
        Err((code, error)) => return Ok(Attempt::Failed(code, error)),
    };
    let mut savepoint = connection.begin().await?;
    let batch = Batch { events: std::slice::from_ref(&received), now, partitions: runtime.partitions };
    match handle(handler, &mut savepoint, &batch).await {
        Ok(handled) => {
            savepoint.commit().await?;
            Ok(Attempt::Applied(handled))
        }
        Err(error) => match error.rejection() {
            Some(code) => {
                savepoint.rollback().await?;
                Ok(Attempt::Failed(code, error.to_string()))
            }
            None => Err(error),
        },
    }
}
