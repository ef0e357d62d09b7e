//! The loopback: records that the relay of this process publishes, for the workers of this process, without a fetch.
//!
//! A worker is handed a record when the relay has it sent: it is committed to the log, and its label is final. Where it lies
//! is told once Kafka has acknowledged it. What does not loop back, for whatever reason, is fetched; and what can't be applied is fetched
//! as well, so dead letters are made of what lies in Kafka.

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
/// So many places may wait of a partition; then the oldest is let go.
const PLACES_MAX: usize = 20_000;

/// A record that the relay has sent.
#[derive(Clone, Debug)]
pub(crate) struct LoopedBack {
    pub(crate) entry: Arc<Entry>,
    /// When the event happened.
    pub(crate) at: Timestamp,
    pub(crate) label: Label,
    /// The label of the record before it in its partition; [`Label::START`] on the first.
    pub(crate) previous: Label,
}

/// Where Kafka has put a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lies {
    pub(crate) label: Label,
    pub(crate) offset: i64,
}

impl LoopedBack {
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
    queues: BTreeMap<Slot, VecDeque<LoopedBack>>,
    records: usize,
    bytes: usize,
    places: BTreeMap<Slot, VecDeque<Lies>>,
    /// There is something to do, here or elsewhere.
    is_called: bool,
    is_closed: bool,
}

/// What becomes of a record that waits, or of a place.
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

    /// The relay has these records sent. They arrive together, so that whoever is called finds all of them.
    pub(crate) fn handed_over(&self, records: &[LoopedBack]) {
        for inbox in lock(&self.listeners).iter().filter_map(Weak::upgrade) {
            inbox.put(records);
        }
    }

    /// Kafka has put these records there.
    pub(crate) fn acknowledged(&self, places: &[(Arc<Entry>, Lies)]) {
        for inbox in lock(&self.listeners).iter().filter_map(Weak::upgrade) {
            inbox.put_places(places);
        }
    }
}

impl Inbox {
    fn slot(&self, entry: &Entry) -> Option<Slot> {
        let topic = self.topics.iter().copied().find(|topic| *topic == entry.topic)?;
        Some(Slot { topic, partition: entry.partition })
    }

    fn put(&self, records: &[LoopedBack]) {
        let mut wanted =
            records.iter().filter_map(|record| Some((self.slot(&record.entry)?, record))).peekable();
        if wanted.peek().is_none() {
            return;
        }
        let mut waiting = lock(&self.waiting);
        if waiting.is_closed {
            return;
        }
        wanted.for_each(|(slot, record)| waiting.put(slot, record.clone()));
        if self.is_called {
            self.call(waiting);
        }
    }

    /// Nobody is called for it.
    fn put_places(&self, places: &[(Arc<Entry>, Lies)]) {
        let mut wanted =
            places.iter().filter_map(|(entry, lies)| Some((self.slot(entry)?, *lies))).peekable();
        if wanted.peek().is_none() {
            return;
        }
        let mut waiting = lock(&self.waiting);
        if waiting.is_closed {
            return;
        }
        for (slot, lies) in wanted {
            let places = waiting.places.entry(slot).or_default();
            places.push_back(lies);
            if places.len() > PLACES_MAX {
                places.pop_front();
            }
        }
    }

    /// Takes at most so many of those that wait, each partition's in order.
    pub(crate) fn take(
        &self,
        at_most: usize,
        mut pick: impl FnMut(Slot, &LoopedBack) -> Pick,
    ) -> Vec<(Slot, LoopedBack)> {
        lock(&self.waiting).take(at_most, &mut pick)
    }

    /// Takes places of records, each partition's in order.
    pub(crate) fn take_places(&self, mut pick: impl FnMut(Slot, &Lies) -> Pick) {
        for (slot, places) in &mut lock(&self.waiting).places {
            while places.front().is_some_and(|lies| pick(*slot, lies) != Pick::Leave) {
                places.pop_front();
            }
        }
    }

    /// Whether half of what may wait does.
    pub(crate) fn is_half_full(&self) -> bool {
        let waiting = lock(&self.waiting);
        waiting.records >= RECORDS_MAX / 2 || waiting.bytes >= BYTES_MAX / 2
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
    fn put(&mut self, slot: Slot, record: LoopedBack) {
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
        pick: &mut impl FnMut(Slot, &LoopedBack) -> Pick,
    ) -> Vec<(Slot, LoopedBack)> {
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

    fn label(position: i64) -> Label {
        Label { era: 1, position }
    }

    /// The record of that position in a partition of cups, with so many bytes.
    fn record(partition: i16, position: i64, bytes: usize) -> LoopedBack {
        let entry = Arc::new(entry("cups", partition, bytes));
        LoopedBack { entry, at: Timestamp::UNIX_EPOCH, label: label(position), previous: Label::START }
    }

    fn positions(taken: &[(Slot, LoopedBack)]) -> Vec<(i16, i64)> {
        taken.iter().map(|(slot, record)| (slot.partition, record.label.position)).collect()
    }

    #[test]
    fn whoever_listens_is_handed_its_topics_for_as_long_as_it_does() {
        let loopback = Loopback::default();
        let (inbox, other) = (loopback.listen(vec!["cups"], false), loopback.listen(vec!["pots"], false));
        loopback.handed_over(&[record(0, 4, 1)]);
        let len_of = |inbox: &Inbox, partition| inbox.len_of(Slot { topic: "cups", partition });
        assert_eq!((len_of(&inbox, 0), len_of(&inbox, 1), len_of(&other, 0)), (1, 0, 0));
        // It is called once, and waits then.
        inbox.wait(Duration::from_secs(60));
        inbox.wait(Duration::ZERO);
        assert_eq!(positions(&inbox.take(9, |_, _| Pick::Take)), [(0, 4)]);
        inbox.close();
        loopback.handed_over(&[record(0, 4, 1)]);
        assert_eq!(len_of(&inbox, 0), 0, "nobody takes it");
        drop(inbox);
        loopback.handed_over(&[record(0, 5, 1)]);
        drop(loopback.listen(vec!["cups"], false));
        assert_eq!(lock(&loopback.listeners).len(), 2, "the one that is gone is forgotten by the next");
    }

    #[test]
    fn whoever_listens_is_told_where_records_lie_and_is_not_called_for_it() {
        let loopback = Loopback::default();
        let inbox = loopback.listen(vec!["cups"], false);
        let lies = |position| Lies { label: label(position), offset: position * 2 };
        let place = |topic, position| (Arc::new(entry(topic, 1, 1)), lies(position));
        for position in 1..4 {
            loopback.acknowledged(&[place("cups", position)]);
        }
        loopback.acknowledged(&[place("pots", 9)]);
        assert!(!lock(&inbox.waiting).is_called);
        let mut told = Vec::new();
        let mut take = |leave: i64| {
            inbox.take_places(|slot, lies| {
                assert_eq!(slot, Slot { topic: "cups", partition: 1 });
                if lies.label.position == leave {
                    return Pick::Leave;
                }
                told.push(*lies);
                Pick::Take
            });
        };
        take(2);
        take(0);
        assert_eq!(told, [1, 2, 3].map(lies));
        let many = (0..=i64::try_from(PLACES_MAX).unwrap()).map(|position| place("cups", position));
        loopback.acknowledged(&many.collect::<Vec<_>>());
        let waiting = lock(&inbox.waiting);
        let places = waiting.places.values().next().unwrap();
        assert_eq!((places.len(), places.front()), (PLACES_MAX, Some(&lies(1))), "the oldest is let go");
    }

    #[test]
    fn what_is_let_go_makes_room_and_what_is_left_holds_what_is_behind_it() {
        let loopback = Loopback::default();
        let inbox = loopback.listen(vec!["cups"], true);
        for (partition, position) in [(0, 1), (0, 2), (0, 3), (1, 7), (1, 8)] {
            loopback.handed_over(&[record(partition, position, 1)]);
        }
        let pick = |_, record: &LoopedBack| match record.label.position {
            1 => Pick::LetGo,
            7 => Pick::Leave,
            _ => Pick::Take,
        };
        assert_eq!(positions(&inbox.take(1, pick)), [(0, 2)]);
        assert_eq!(positions(&inbox.take(9, pick)), [(0, 3)]);
        assert_eq!(inbox.len_of(Slot { topic: "cups", partition: 1 }), 2);
    }

    #[test]
    fn the_oldest_of_a_partition_are_let_go_where_there_are_too_many() {
        let loopback = Loopback::default();
        let inbox = loopback.listen(vec!["cups"], false);
        for position in 0..5 {
            loopback.handed_over(&[record(0, position, BYTES_MAX / 3 - BYTES_BESIDE)]);
        }
        assert_eq!(positions(&inbox.take(9, |_, _| Pick::Take)), [(0, 2), (0, 3), (0, 4)]);
        let waiting = lock(&inbox.waiting);
        assert_eq!((waiting.records, waiting.bytes), (0, 0));
    }
}
