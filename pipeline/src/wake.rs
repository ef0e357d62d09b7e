//! A wake-up from whoever writes to the log to a relay in the same process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

/// Tells the relay that there may be something new. Only saves waiting: a lost wake-up delays, no more.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Something was committed to the log.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits for a wake-up, `at_most` that long.
    pub async fn wait(&self, at_most: Duration) {
        // Elapsed is as good as woken: the caller looks in both cases.
        let _ = tokio::time::timeout(at_most, self.0.notified()).await;
    }
}
