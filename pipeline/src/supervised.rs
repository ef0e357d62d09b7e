//! Loops that must not end because of a bug.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::journal::JournalError;

/// How soon what has panicked begins anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs what `start` starts until it ends by itself, and begins anew where it panics.
pub async fn run(what: &str, shutdown: &CancellationToken, mut start: impl FnMut() -> JoinHandle<()>) {
    while start().await.is_err() {
        tracing::error!(what, "panicked; it begins anew");
        if shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
            return;
        }
    }
}

/// Has something decided. A panic is an error like others: it must not end the loop that decides.
///
/// # Errors
/// Those of `decide`, or [`JournalError::Panic`].
pub fn without_panic<T>(decide: impl FnOnce() -> Result<T, JournalError>) -> Result<T, JournalError> {
    catch_unwind(AssertUnwindSafe(decide))
        .unwrap_or_else(|panic| Err(JournalError::Panic(message_of(panic.as_ref()))))
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_what_decides_is_an_error_that_tells_its_message() {
        let decided =
            without_panic(|| if Vec::from([1]).is_empty() { Ok(()) } else { panic!("a {}", "bug") });
        assert!(matches!(decided, Err(JournalError::Panic(message)) if message == "a bug"));
        assert!(without_panic(|| Ok(())).is_ok());
    }

    #[tokio::test]
    async fn what_panics_begins_anew_until_it_ends_or_is_to_end() {
        let shutdown = CancellationToken::new();
        let mut starts = 0;
        run("a loop", &shutdown, || {
            starts += 1;
            let ends = starts == 3;
            tokio::spawn(async move { assert!(ends, "a bug") })
        })
        .await;
        assert_eq!(starts, 3);
        shutdown.cancel();
        let mut starts = 0;
        run("a loop", &shutdown, || {
            starts += 1;
            tokio::spawn(async { panic!("a bug") })
        })
        .await;
        assert_eq!(starts, 1);
    }
}
