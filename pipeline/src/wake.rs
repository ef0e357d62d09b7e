//! What is told of commits in the same process: the relay is handed what was appended to the log, and whoever waits for documents
//! hears which have changed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use crate::log::Appended;
use crate::loopback::Loopback;

/// So many commits may be untold to whoever is slow; then some are not told.
const UNTOLD_MAX: usize = 256;
/// So many events may wait for a relay that is slow, and about so many bytes; then segments are dropped.
const EVENTS_MAX: usize = 20_000;
const BYTES_MAX: usize = 16 * 1024 * 1024;

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
    relay: Arc<Relay>,
    loopback: Loopback,
    changed: broadcast::Sender<Changed>,
}

/// What waits for the relay of this process.
#[derive(Debug, Default)]
struct Relay {
    inbox: Mutex<Inbox>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Inbox {
    /// Counts those who have listened.
    listeners: u64,
    /// Whether the last of them still does.
    is_heard: bool,
    heard: Heard,
    events: usize,
    bytes: usize,
}

/// What was appended since the relay last asked.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Segments of the log, in the order in which their commits came to an end, which is not that of their numbers.
    pub(crate) segments: Vec<Appended>,
    /// The highest number of the segments that were dropped.
    pub(crate) dropped: Option<i64>,
}

/// The ear of a relay that leads. While there is none, nothing is kept. A later one takes the place of an earlier one.
#[derive(Debug)]
pub(crate) struct Ear {
    relay: Arc<Relay>,
    listener: u64,
}

impl Default for Wake {
    fn default() -> Wake {
        Wake {
            relay: Arc::default(),
            loopback: Loopback::default(),
            changed: broadcast::Sender::new(UNTOLD_MAX),
        }
    }
}

impl Wake {
    /// That was committed to the log.
    pub fn appended(&self, segment: Appended) {
        let is_first = {
            let mut inbox = self.relay.lock();
            if !inbox.is_heard {
                return;
            }
            inbox.take_in(segment)
        };
        if is_first {
            self.relay.arrived.notify_one();
        }
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

    /// By which this process's workers are handed what its relay has published.
    pub(crate) fn loopback(&self) -> Loopback {
        self.loopback.clone()
    }

    /// Hears what is appended from now on.
    pub(crate) fn ear(&self) -> Ear {
        let mut inbox = self.relay.lock();
        *inbox = Inbox { listeners: inbox.listeners + 1, is_heard: true, ..Inbox::default() };
        Ear { relay: self.relay.clone(), listener: inbox.listeners }
    }
}

impl Relay {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    /// Answers whether nothing waited before.
    fn take_in(&mut self, segment: Appended) -> bool {
        let is_first = self.heard.segments.is_empty() && self.heard.dropped.is_none();
        if self.events >= EVENTS_MAX || self.bytes >= BYTES_MAX {
            self.heard.dropped = self.heard.dropped.max(Some(segment.number));
        } else {
            self.events += segment.entries.len();
            self.bytes += segment.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
            self.heard.segments.push(segment);
        }
        is_first
    }
}

impl Ear {
    /// What was appended since this was last asked.
    pub(crate) fn heard(&self) -> Heard {
        let mut inbox = self.relay.lock();
        if inbox.listeners != self.listener {
            return Heard::default();
        }
        (inbox.events, inbox.bytes) = (0, 0);
        std::mem::take(&mut inbox.heard)
    }

    /// Waits until something is appended.
    pub(crate) async fn wait(&self) {
        self.relay.arrived.notified().await;
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut inbox = self.relay.lock();
        if inbox.listeners == self.listener {
            *inbox = Inbox { listeners: self.listener, ..Inbox::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn append(wake: &Wake, number: i64) {
        wake.appended(Appended { number, at: Timestamp::UNIX_EPOCH, entries: Vec::new() });
    }

    fn numbers(ear: &Ear) -> Vec<i64> {
        ear.heard().segments.iter().map(|segment| segment.number).collect()
    }

    #[tokio::test]
    async fn a_relay_hears_what_is_appended_while_it_leads_and_nothing_is_kept_for_one_that_does_not() {
        let wake = Wake::default();
        append(&wake, 1);
        let ear = wake.ear();
        append(&wake, 3);
        append(&wake, 2);
        ear.wait().await;
        assert_eq!(numbers(&ear), [3, 2]);
        drop(ear);
        append(&wake, 4);
        assert!(wake.relay.lock().heard.segments.is_empty());
        assert!(numbers(&wake.ear()).is_empty());
    }

    #[test]
    fn a_later_leader_hears_and_an_earlier_one_does_not() {
        let wake = Wake::default();
        let (earlier, later) = (wake.ear(), wake.ear());
        append(&wake, 1);
        assert_eq!((numbers(&earlier), numbers(&later)), (vec![], vec![1]));
        drop(earlier);
        append(&wake, 2);
        assert_eq!(numbers(&later), [2]);
    }
}
