//! The loopback: records that the relay of this process has published, for the workers of this process, without a fetch.
//!
//! A worker is handed a record once Kafka has acknowledged it, with the offset at which it lies: what a fetch would bring a
//! moment later, for a request to the broker, a copy of the headers and a MAC. It only saves fetching. What does not loop back, for
//! whatever reason, is fetched; and what can't be applied is fetched as well, so dead letters are made of what lies in Kafka.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;

use crate::label::Label;
use crate::log::Entry;
use crate::partition::Slot;

/// So many records may wait for a group, with about so many bytes; then the oldest of a partition are let go.
const RECORDS_MAX: usize = 20_000;
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a record takes besides its payload, about: the entry, and the event that it was made of.
const BYTES_BESIDE: usize = 1_500;

/// A record that Kafka has acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) entry: Arc<Entry>,
    /// When the event happened.
    pub(crate) at: Timestamp,
    pub(crate) label: Label,
    /// The label of the record before it in its partition; [`Label::START`] on the first.
    pub(crate) previous: Label,
    pub(crate) offset: i64,
}

impl Acknowledged {
    fn bytes(&self) -> usize {
        self.entry.data.len() + BYTES_BESIDE
    }
}

/// Who listens in this process. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loopback {
    listeners: Arc<Mutex<Vec<Weak<Inbox>>>>,
}

/// What waits for a member of a group.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// The topics that it wants, without prefix.
    topics: Vec<&'static str>,
    /// Whether it is called for each record, or looks by itself now and then.
    is_called: bool,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    queues: BTreeMap<Slot, VecDeque<Acknowledged>>,
    records: usize,
    bytes: usize,
    /// There is something to do, here or elsewhere.
    is_called: bool,
    is_closed: bool,
}

/// What becomes of a record that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// It is taken.
    Take,
    /// It is of no use any more.
    LetGo,
    /// It waits on, and what comes behind it.
    Leave,
}

impl Loopback {
    /// The inbox of somebody who is handed the records of these topics from now on, for as long as it is kept. Whoever is patient is not
    /// called for each record.
    pub(crate) fn listen(&self, topics: Vec<&'static str>, is_patient: bool) -> Arc<Inbox> {
        let waiting = Mutex::default();
        let inbox = Arc::new(Inbox { topics, is_called: !is_patient, waiting, arrived: Condvar::new() });
        let mut listeners = lock(&self.listeners);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&inbox));
        inbox
    }

    /// Kafka has acknowledged a record.
    pub(crate) fn acknowledged(&self, record: &Acknowledged) {
        for inbox in lock(&self.listeners).iter().filter_map(Weak::upgrade) {
            inbox.put(record);
        }
    }
}

impl Inbox {
    fn put(&self, record: &Acknowledged) {
        let entry = &record.entry;
        let Some(topic) = self.topics.iter().copied().find(|topic| *topic == entry.topic) else { return };
        let mut waiting = lock(&self.waiting);
        if waiting.is_closed {
            return;
        }
        waiting.put(Slot { topic, partition: entry.partition }, record.clone());
        if self.is_called {
            self.call(waiting);
        }
    }

    /// Takes at most so many of those that wait, each partition's in the order of its offsets.
    pub(crate) fn take(
        &self,
        at_most: usize,
        mut pick: impl FnMut(Slot, &Acknowledged) -> Pick,
    ) -> Vec<(Slot, Acknowledged)> {
        lock(&self.waiting).take(at_most, &mut pick)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        lock(&self.waiting).records
    }

    /// How many wait of a partition.
    pub(crate) fn len_of(&self, slot: Slot) -> usize {
        lock(&self.waiting).queues.get(&slot).map_or(0, VecDeque::len)
    }

    /// Nothing waits any more, and nothing more is kept.
    pub(crate) fn close(&self) {
        *lock(&self.waiting) = Waiting { is_closed: true, ..Waiting::default() };
    }

    /// There is something to do elsewhere.
    pub(crate) fn wake(&self) {
        self.call(lock(&self.waiting));
    }

    fn call(&self, mut waiting: MutexGuard<'_, Waiting>) {
        if !std::mem::replace(&mut waiting.is_called, true) {
            drop(waiting);
            self.arrived.notify_one();
        }
    }

    /// Waits until there may be something to do, at most so long.
    pub(crate) fn wait(&self, at_most: Duration) {
        let waiting = lock(&self.waiting);
        let waited = self.arrived.wait_timeout_while(waiting, at_most, |waiting| !waiting.is_called);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_called = false;
    }
}

impl Waiting {
    fn put(&mut self, slot: Slot, record: Acknowledged) {
        self.records += 1;
        self.bytes += record.bytes();
        let queue = self.queues.entry(slot).or_default();
        queue.push_back(record);
        while self.records > RECORDS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = queue.pop_front() else { break };
            self.records -= 1;
            self.bytes -= oldest.bytes();
        }
    }

    fn take(
        &mut self,
        at_most: usize,
        pick: &mut impl FnMut(Slot, &Acknowledged) -> Pick,
    ) -> Vec<(Slot, Acknowledged)> {
        let mut taken = Vec::new();
        for (slot, queue) in &mut self.queues {
            while taken.len() < at_most
                && let Some(first) = queue.front()
            {
                let picked = pick(*slot, first);
                if picked == Pick::Leave {
                    break;
                }
                let Some(record) = queue.pop_front() else { break };
                self.records -= 1;
                self.bytes -= record.bytes();
                if picked == Pick::Take {
                    taken.push((*slot, record));
                }
            }
        }
        taken
    }
}

/// A poisoned lock means that somebody else panicked; what it guards is plain data and still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::entry;

    /// The record at that offset of a partition of cups, with so many bytes.
    fn record(partition: i16, offset: i64, bytes: usize) -> Acknowledged {
        let entry = Arc::new(entry("cups", partition, bytes));
        let label = Label { era: 1, position: offset + 1 };
        Acknowledged { entry, at: Timestamp::UNIX_EPOCH, label, previous: Label::START, offset }
    }

    fn offsets(taken: &[(Slot, Acknowledged)]) -> Vec<(i16, i64)> {
        taken.iter().map(|(slot, record)| (slot.partition, record.offset)).collect()
    }

    #[test]
    fn whoever_listens_is_handed_its_topics_for_as_long_as_it_does() {
        let loopback = Loopback::default();
        let (inbox, other) = (loopback.listen(vec!["cups"], false), loopback.listen(vec!["pots"], false));
        loopback.acknowledged(&record(0, 4, 1));
        assert_eq!((inbox.len(), other.len()), (1, 0));
        // It is called once, and waits then.
        inbox.wait(Duration::from_secs(60));
        inbox.wait(Duration::ZERO);
        let len_of = |partition| inbox.len_of(Slot { topic: "cups", partition });
        assert_eq!((len_of(0), len_of(1)), (1, 0));
        assert_eq!(offsets(&inbox.take(9, |_, _| Pick::Take)), [(0, 4)]);
        inbox.close();
        loopback.acknowledged(&record(0, 4, 1));
        assert_eq!(inbox.len(), 0, "nobody takes it");
        drop(inbox);
        loopback.acknowledged(&record(0, 5, 1));
        drop(loopback.listen(vec!["cups"], false));
        assert_eq!(lock(&loopback.listeners).len(), 2, "the one that is gone is forgotten by the next");
    }

    #[test]
    fn what_is_let_go_makes_room_and_what_is_left_holds_what_is_behind_it() {
        let loopback = Loopback::default();
        let inbox = loopback.listen(vec!["cups"], true);
        for (partition, offset) in [(0, 1), (0, 2), (0, 3), (1, 7), (1, 8)] {
            loopback.acknowledged(&record(partition, offset, 1));
        }
        let pick = |_, record: &Acknowledged| match record.offset {
            1 => Pick::LetGo,
            7 => Pick::Leave,
            _ => Pick::Take,
        };
        assert_eq!(offsets(&inbox.take(1, pick)), [(0, 2)]);
        assert_eq!(offsets(&inbox.take(9, pick)), [(0, 3)]);
        assert_eq!(inbox.len(), 2);
    }

    #[test]
    fn the_oldest_of_a_partition_are_let_go_where_there_are_too_many() {
        let loopback = Loopback::default();
        let inbox = loopback.listen(vec!["cups"], false);
        for offset in 0..5 {
            loopback.acknowledged(&record(0, offset, BYTES_MAX / 3 - BYTES_BESIDE));
        }
        assert_eq!(offsets(&inbox.take(9, |_, _| Pick::Take)), [(0, 2), (0, 3), (0, 4)]);
        let waiting = lock(&inbox.waiting);
        assert_eq!((waiting.records, waiting.bytes), (0, 0));
    }
}
