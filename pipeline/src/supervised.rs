//! Loops that must not end because of a bug.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How soon what has panicked begins anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs what `start` starts until it ends by itself, and begins anew where it panics.
pub(crate) async fn run(what: &str, shutdown: &CancellationToken, mut start: impl FnMut() -> JoinHandle<()>) {
    while start().await.is_err() {
        tracing::error!(what, "panicked; it begins anew");
        if shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
