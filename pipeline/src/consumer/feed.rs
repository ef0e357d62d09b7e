//! Which partitions loop back from the relay of this process, and which are fetched. A state machine: told what is awaited, it
//! says what is taken, and which partitions are to be fetched no more, or again.
//!
//! A partition is fetched until its next record loops back, and loops back until a record is not the next one, or none has
//! come for a while. What others write does not loop back, so a partition is fetched where Kafka has put a record behind theirs, up
//! to there, and where it is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reader::Reader;
use super::reading::Placed;
use super::sequence_check::{Verdict, judge};
use crate::label::Label;
use crate::loopback::{Inbox, LoopedBack, Pick};
use crate::partition::Slot;

/// A partition of which nothing has looped back for so long is fetched.
const QUIET_MAX: Duration = Duration::from_secs(1);
/// How long a group that is patient waits for more.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a member has by the loopback.
#[derive(Debug)]
pub(super) struct Feed {
    inbox: Arc<Inbox>,
    is_patient: bool,
    taken_at: Option<Instant>,
    /// The partitions that loop back, and when the last record of each was.
    looped_back: BTreeMap<Slot, Instant>,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Fed {
    /// The next records of their partitions.
    pub(super) records: Vec<(Slot, LoopedBack)>,
    /// These are fetched no more.
    pub(super) pause: Vec<Slot>,
    /// These are fetched again.
    pub(super) fetch: Vec<Slot>,
}

impl Feed {
    pub(super) fn new(inbox: Arc<Inbox>, is_patient: bool) -> Feed {
        Feed { inbox, is_patient, taken_at: None, looped_back: BTreeMap::new() }
    }

    pub(super) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Whether a partition loops back.
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.looped_back.contains_key(&slot)
    }

    /// The partitions that loop back.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.looped_back.keys().copied()
    }

    /// These are fetched.
    pub(super) fn ends(&mut self, slots: &[Slot]) {
        slots.iter().for_each(|slot| _ = self.looped_back.remove(slot));
    }

    /// All are fetched; answers those that were not.
    pub(super) fn ends_all(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.looped_back).into_keys().collect()
    }

    /// Lets go what waits.
    pub(super) fn clear(&self) {
        self.inbox.take(usize::MAX, |_, _| Pick::LetGo);
        self.inbox.take_places(|_, _| Pick::LetGo);
    }

    /// Tells the reader where records lie that were taken before, and takes at most so many that are the next of their partitions; who is
    /// patient takes as much as there is.
    pub(super) fn take(&mut self, at_most: usize, reader: &mut Reader, now: Instant) -> Fed {
        let is_soon = |at: Instant| now.saturating_duration_since(at) < PATIENCE;
        if self.is_patient && self.taken_at.is_some_and(is_soon) && !self.inbox.is_half_full() {
            return Fed::default();
        }
        let at_most = if self.is_patient { usize::MAX } else { at_most };
        self.taken_at = Some(now);
        let mut to_fetch = BTreeSet::new();
        self.inbox.take_places(|slot, lies| match reader.lies(slot, *lies, now) {
            Placed::Next => Pick::Take,
            Placed::Known => Pick::LetGo,
            Placed::NotRead => Pick::Leave,
            Placed::Beyond => {
                to_fetch.insert(slot);
                Pick::Leave
            }
        });
        let mut labels: BTreeMap<Slot, Option<Label>> = BTreeMap::new();
        let records = self.inbox.take(at_most, |slot, record| {
            let Some(label) = labels.entry(slot).or_insert_with(|| reader.awaited(slot)) else {
                return Pick::LetGo;
            };
            match judge(*label, record.label, record.previous) {
                Verdict::Skip => Pick::LetGo,
                Verdict::Gap => {
                    to_fetch.insert(slot);
                    Pick::Leave
                }
                Verdict::Apply => {
                    *label = record.label;
                    Pick::Take
                }
            }
        });
        let mut pause = Vec::new();
        for (slot, _) in &records {
            if !to_fetch.contains(slot) && self.looped_back.insert(*slot, now).is_none() {
                pause.push(*slot);
            }
        }
        let is_over = |slot: &Slot, at: Instant| {
            to_fetch.contains(slot) || now.saturating_duration_since(at) >= QUIET_MAX
        };
        let fetch: Vec<Slot> =
            self.looped_back.iter().filter(|(slot, at)| is_over(slot, **at)).map(|(slot, _)| *slot).collect();
        self.ends(&fetch);
        Fed { records, pause, fetch }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mark::Mark;
    use super::super::reading::{Fate, Met, Own, Reading};
    use super::*;
    use crate::loopback::{Lies, Loopback};
    use crate::testing::entry;
    use uuid::Uuid;

    const CUPS: Slot = Slot { topic: "cups", partition: 0 };

    /// A member that reads cups.
    struct Member {
        loopback: Loopback,
        feed: Feed,
        reader: Reader,
        now: Instant,
    }

    fn label(position: i64) -> Label {
        if position == 0 { Label::START } else { Label { era: 1, position } }
    }

    impl Member {
        fn new(is_patient: bool) -> Member {
            let loopback = Loopback::default();
            let feed = Feed::new(loopback.listen(vec!["cups"], is_patient), is_patient);
            let nothing = Mark { label: Label::START, event_id: None, tip: None, next_offset: 0 };
            let now = Instant::now();
            let mut reader = Reader::new(now);
            reader.assigned([(CUPS, Reading::new(1, nothing))].into());
            Member { loopback, feed, reader, now }
        }

        /// The relay publishes a record with that position behind another.
        fn publish(&self, position: i64, previous: i64) {
            let (entry, at) = (Arc::new(entry("cups", 0, 1)), jiff::Timestamp::UNIX_EPOCH);
            let (label, previous) = (label(position), label(previous));
            self.loopback.handed_over(&[LoopedBack { entry, at, label, previous }]);
        }

        /// Kafka puts it there.
        fn put(&self, position: i64, offset: i64) {
            self.loopback
                .acknowledged(&[(Arc::new(entry("cups", 0, 1)), Lies { label: label(position), offset })]);
        }

        /// The member reads the record at that offset, one of the relay's or a foreign one.
        fn fetch(&mut self, offset: i64, own: Option<(i64, i64)>) -> Fate {
            let own = own.map(|(position, previous)| Own {
                label: label(position),
                previous: label(previous),
                event_id: Uuid::nil(),
            });
            self.reader.meet(CUPS, &Met { offset, own }, || true, || false, self.now).unwrap()
        }

        fn next_offset(&self) -> i64 {
            self.reader.next_offset(CUPS).unwrap()
        }

        /// The positions that are taken, whether the partition is paused, and whether it is fetched again.
        fn take(&mut self) -> (Vec<i64>, bool, bool) {
            let fed = self.feed.take(3, &mut self.reader, self.now);
            for (_, LoopedBack { label, previous, .. }) in &fed.records {
                let own = Own { label: *label, previous: *previous, event_id: Uuid::nil() };
                let fate = self.reader.meet_looped_back(CUPS, &own, || true, self.now);
                assert!(matches!(fate, Some(Fate::Apply(_))));
            }
            let positions = fed.records.iter().map(|(_, record)| record.label.position).collect();
            (positions, fed.pause == [CUPS], fed.fetch == [CUPS])
        }
    }

    #[test]
    fn a_partition_loops_back_from_its_next_record_on_and_is_fetched_once_it_is_quiet() {
        let mut member = Member::new(false);
        member.publish(5, 0);
        assert_eq!(member.take(), (vec![5], true, false));
        member.publish(7, 5);
        member.publish(8, 7);
        assert_eq!(member.take(), (vec![7, 8], false, false));
        assert_eq!(member.next_offset(), 0, "nobody knows yet where they lie");
        for (offset, position) in [(0, 5), (1, 7), (2, 8)] {
            member.put(position, offset);
        }
        member.now += QUIET_MAX;
        assert_eq!(member.take(), (vec![], false, true));
        assert_eq!(member.next_offset(), 3);
        assert!(!member.feed.has(CUPS));
        member.publish(9, 8);
        assert_eq!(member.take(), (vec![9], true, false));
    }

    #[test]
    fn where_somebody_else_wrote_between_it_is_fetched_up_to_there() {
        let mut member = Member::new(false);
        member.publish(5, 0);
        member.publish(7, 5);
        member.put(5, 0);
        assert_eq!(member.take(), (vec![5, 7], true, false));
        member.put(7, 2);
        assert_eq!(member.take(), (vec![], false, true));
        // What follows is taken all the same.
        member.publish(8, 7);
        assert_eq!(member.take(), (vec![8], false, false), "what lies between is still to be read");
        member.put(8, 3);
        assert_eq!(member.fetch(1, None), Fate::Count);
        member.publish(9, 8);
        assert_eq!(member.take(), (vec![9], true, false));
        assert_eq!(member.next_offset(), 4);
        assert_eq!(member.fetch(2, Some((7, 5))), Fate::Leave, "it was on its way");
        assert_eq!(member.next_offset(), 4);
    }

    #[test]
    fn a_place_that_is_told_before_its_record_arrives_waits_for_it() {
        let mut member = Member::new(false);
        member.put(5, 0);
        assert_eq!((member.take(), member.next_offset()), ((vec![], false, false), 0));
        member.publish(5, 0);
        assert_eq!(member.take(), (vec![5], true, false));
        assert_eq!((member.take(), member.next_offset()), ((vec![], false, false), 1));
    }

    #[test]
    fn what_was_fetched_or_repeated_is_let_go_and_what_misses_a_record_is_not_taken() {
        let mut member = Member::new(false);
        member.publish(5, 0);
        member.publish(7, 5);
        assert!(matches!(member.fetch(0, Some((5, 0))), Fate::Apply(_)));
        member.put(5, 0);
        assert_eq!(member.take(), (vec![7], true, false));
        member.publish(7, 5);
        member.put(7, 1);
        member.put(7, 2);
        assert_eq!(member.take(), (vec![], false, false), "repeated");
        assert_eq!(member.next_offset(), 3);
        member.publish(9, 8);
        assert_eq!(member.take(), (vec![], false, true), "a record is missing");
        member.put(9, 4);
        assert!(matches!(member.fetch(3, Some((8, 7))), Fate::Apply(_)));
        assert_eq!(member.take(), (vec![9], true, false));
        assert!(matches!(member.fetch(9, Some((12, 11))), Fate::AskFor(_)));
        member.publish(10, 9);
        assert_eq!(member.take(), (vec![], false, false));
        assert_eq!(member.feed.inbox().len_of(CUPS), 0, "not kept while nobody can say what is next");
    }

    #[test]
    fn what_does_not_fit_into_a_batch_is_taken_with_the_next() {
        let mut member = Member::new(false);
        (1..5).for_each(|n| member.publish(n, n - 1));
        assert_eq!(member.take(), (vec![1, 2, 3], true, false));
        assert_eq!(member.take(), (vec![4], false, false));
    }

    #[test]
    fn a_group_that_is_patient_takes_now_and_then_or_when_much_waits() {
        let mut member = Member::new(true);
        member.publish(1, 0);
        assert_eq!(member.take(), (vec![1], true, false));
        member.publish(2, 1);
        assert_eq!(member.take(), (vec![], false, false));
        let mut last = 2;
        while !member.feed.inbox().is_half_full() {
            assert_eq!(member.take(), (vec![], false, false));
            last += 1;
            member.publish(last, last - 1);
        }
        assert_eq!(member.take(), ((2..=last).collect(), false, false));
        member.publish(last + 1, last);
        member.now += PATIENCE;
        assert_eq!(member.take(), (vec![last + 1], false, false));
    }
}
