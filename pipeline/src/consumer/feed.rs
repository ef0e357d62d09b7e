//! Which partitions loop back from the relay of this process, and which are fetched. A state machine: told what is awaited, it
//! says what is taken, and which partitions are to be fetched no more, or again.
//!
//! A partition is fetched until its next record loops back, and loops back until a record is not the next one, or none has
//! come for a while. What others write does not loop back, so a partition that is quiet is fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sequence_check::{Verdict, judge};
use crate::label::Label;
use crate::loopback::{Acknowledged, Inbox, Pick};
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
    pub(super) records: Vec<(Slot, Acknowledged)>,
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
    }

    /// Takes at most so many records that are the next of their partitions, of which `awaited` says where they must lie and
    /// behind which label.
    pub(super) fn take(
        &mut self,
        at_most: usize,
        awaited: impl Fn(Slot) -> Option<(i64, Label)>,
        now: Instant,
    ) -> Fed {
        let is_soon = |at: Instant| now.saturating_duration_since(at) < PATIENCE;
        if self.is_patient && self.taken_at.is_some_and(is_soon) && self.inbox.len() < at_most {
            return Fed::default();
        }
        self.taken_at = Some(now);
        let mut marks: BTreeMap<Slot, Option<(i64, Label)>> = BTreeMap::new();
        let mut not_next = BTreeSet::new();
        let records = self.inbox.take(at_most, |slot, record| {
            let mark = marks.entry(slot).or_insert_with(|| awaited(slot));
            let Some((offset, label)) = mark else { return Pick::LetGo };
            if record.offset < *offset {
                return Pick::LetGo;
            }
            if record.offset > *offset || judge(*label, record.label, record.previous) != Verdict::Apply {
                not_next.insert(slot);
                return Pick::Leave;
            }
            (*offset, *label) = (record.offset + 1, record.label);
            Pick::Take
        });
        let mut pause = Vec::new();
        for (slot, _) in &records {
            if self.looped_back.insert(*slot, now).is_none() {
                pause.push(*slot);
            }
        }
        let is_over = |slot: &Slot, at: Instant| {
            not_next.contains(slot) || now.saturating_duration_since(at) >= QUIET_MAX
        };
        let fetch: Vec<Slot> =
            self.looped_back.iter().filter(|(slot, at)| is_over(slot, **at)).map(|(slot, _)| *slot).collect();
        self.ends(&fetch);
        pause.retain(|slot| !fetch.contains(slot));
        Fed { records, pause, fetch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopback::Loopback;
    use crate::testing::entry;

    const CUPS: Slot = Slot { topic: "cups", partition: 0 };

    /// A member that reads cups, and how far it is.
    struct Member {
        loopback: Loopback,
        feed: Feed,
        awaited: Option<(i64, i64)>,
        now: Instant,
    }

    fn label(position: i64) -> Label {
        if position == 0 { Label::START } else { Label { era: 1, position } }
    }

    impl Member {
        fn new(is_patient: bool) -> Member {
            let loopback = Loopback::default();
            let feed = Feed::new(loopback.listen(vec!["cups"], is_patient), is_patient);
            Member { loopback, feed, awaited: Some((0, 0)), now: Instant::now() }
        }

        /// The relay publishes a record with that position behind another; it comes to lie at that offset.
        fn publish(&self, offset: i64, position: i64, previous: i64) {
            let (entry, at) = (Arc::new(entry("cups", 0, 1)), jiff::Timestamp::UNIX_EPOCH);
            let (label, previous) = (label(position), label(previous));
            self.loopback.acknowledged(&Acknowledged { entry, at, label, previous, offset });
        }

        /// The offsets that are taken, whether the partition is paused, and whether it is fetched again.
        fn take(&mut self) -> (Vec<i64>, bool, bool) {
            let awaited = self.awaited.map(|(offset, position)| (offset, label(position)));
            let fed = self.feed.take(3, |_| awaited, self.now);
            if let Some((_, last)) = fed.records.last() {
                self.awaited = Some((last.offset + 1, last.label.position));
            }
            let offsets = fed.records.iter().map(|(_, record)| record.offset).collect();
            (offsets, fed.pause == [CUPS], fed.fetch == [CUPS])
        }
    }

    #[test]
    fn a_partition_loops_back_from_its_next_record_on_and_is_fetched_once_it_is_quiet() {
        let mut member = Member::new(false);
        member.publish(0, 5, 0);
        assert_eq!(member.take(), (vec![0], true, false));
        member.publish(1, 7, 5);
        member.publish(2, 8, 7);
        assert_eq!(member.take(), (vec![1, 2], false, false));
        member.now += QUIET_MAX;
        assert_eq!(member.take(), (vec![], false, true));
        assert!(!member.feed.has(CUPS));
        member.publish(3, 9, 8);
        assert_eq!(member.take(), (vec![3], true, false));
    }

    #[test]
    fn where_somebody_else_wrote_between_it_is_fetched_up_to_there() {
        let mut member = Member::new(false);
        member.publish(0, 5, 0);
        member.publish(2, 7, 5);
        assert_eq!(member.take(), (vec![0], false, true));
        assert_eq!(member.take(), (vec![], false, false), "not before what lies between was read");
        member.awaited = Some((2, 5));
        assert_eq!(member.take(), (vec![2], true, false));
    }

    #[test]
    fn what_was_fetched_or_repeated_is_let_go_and_what_misses_a_record_is_not_taken() {
        let mut member = Member::new(false);
        member.publish(0, 5, 0);
        member.publish(1, 7, 5);
        member.awaited = Some((1, 5));
        assert_eq!(member.take(), (vec![1], true, false));
        member.publish(2, 7, 5);
        assert_eq!(member.take(), (vec![], false, true), "repeated");
        member.awaited = Some((3, 7));
        member.publish(3, 9, 8);
        assert_eq!(member.take(), (vec![], false, false), "a record is missing");
        member.awaited = None;
        member.take();
        member.awaited = Some((3, 8));
        assert_eq!(member.take(), (vec![], false, false), "not kept while nobody can say what is next");
    }

    #[test]
    fn what_does_not_fit_into_a_batch_is_taken_with_the_next() {
        let mut member = Member::new(false);
        (0..4).for_each(|n| member.publish(n, n + 1, n));
        assert_eq!(member.take(), (vec![0, 1, 2], true, false));
        assert_eq!(member.take(), (vec![3], false, false));
    }

    #[test]
    fn a_group_that_is_patient_takes_now_and_then_or_a_whole_batch() {
        let mut member = Member::new(true);
        member.publish(0, 1, 0);
        assert_eq!(member.take(), (vec![0], true, false));
        member.publish(1, 2, 1);
        assert_eq!(member.take(), (vec![], false, false));
        member.publish(2, 3, 2);
        member.publish(3, 4, 3);
        assert_eq!(member.take(), (vec![1, 2, 3], false, false));
        member.publish(4, 5, 4);
        member.now += PATIENCE;
        assert_eq!(member.take(), (vec![4], false, false));
    }
}
