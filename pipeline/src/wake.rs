//! What is told of commits in the same process: the relay is woken, and whoever waits for documents hears which have changed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use crate::log::Appended;

/// So many commits may be untold to whoever is slow; then some are not told.
const UNTOLD_MAX: usize = 256;

/// The documents that one commit has written, by table and key.
pub type Changed = Arc<[(&'static str, Uuid)]>;

/// Tells that there is something new. Only saves waiting: what is not told delays, no more. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Wake {
    relay: Arc<Notify>,
    changed: broadcast::Sender<Changed>,
}

impl Default for Wake {
    fn default() -> Wake {
        Wake { relay: Arc::default(), changed: broadcast::Sender::new(UNTOLD_MAX) }
    }
}

impl Wake {
    /// Something was committed to the log.
    pub fn wake(&self) {
        self.relay.notify_one();
    }

    /// That was committed to the log.
    pub fn appended(&self, _segment: Appended) {
        self.wake();
    }

    /// These documents were written, by table and key.
    pub fn changed(&self, documents: impl Iterator<Item = (&'static str, Uuid)>) {
        if self.changed.receiver_count() > 0 {
            // Who has just left needs no word.
            let _ = self.changed.send(documents.collect());
        }
    }

    /// Hears which documents change from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Changed> {
        self.changed.subscribe()
    }

    /// Waits for a wake-up, `at_most` that long.
    pub async fn wait(&self, at_most: Duration) {
        // Elapsed is as good as woken: the caller looks in both cases.
        let _ = tokio::time::timeout(at_most, self.relay.notified()).await;
    }
}
