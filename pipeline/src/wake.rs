//! What is told of commits in the same process: the relay is woken, and whoever waits for documents hears which have changed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use crate::log::Appended;

/// So many commits may be untold to whoever is slow; then some are not told.
const UNTOLD_MAX: usize = 256;

/// A document that a commit has written.
#[derive(Clone, Debug)]
pub struct ChangedDocument {
    /// The table.
    pub table: &'static str,
    /// The key.
    pub key: Uuid,
    /// The document as JSON.
    pub state: Arc<str>,
    /// What of it stands apart.
    pub bulk: Option<Arc<str>>,
}

/// The documents that one commit has written.
pub type Changed = Arc<[ChangedDocument]>;

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

    /// These documents were written.
    pub fn changed(&self, documents: Vec<ChangedDocument>) {
        if !documents.is_empty() && self.changed.receiver_count() > 0 {
            // Who has just left needs no word.
            let _ = self.changed.send(documents.into());
        }
    }

    /// Hears of the documents that are written from now on.
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
