//! The partitions that a member owns, and what of them is to be stored when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::mark::{Mark, Progress};
use super::reading::{Fate, Met, Own, Placed, Reading, View};
use crate::label::Label;
use crate::loopback::Lies;
use crate::partition::Slot;

/// How long the offset may stay before records that were passed over: who looks at offsets sees what a group is done with
/// within a second. A look at the clock may come a tenth of one late.
const STORE_AFTER: Duration = Duration::from_millis(900);

/// The partitions that a member owns.
#[derive(Debug)]
pub(super) struct Reader {
    partitions: BTreeMap<Slot, Reading>,
    /// Counts rebalances: what was read under another number is dropped.
    generation: u64,
    /// Since when the group has not told this member its partitions; of those that it tells there may be none.
    unassigned_since: Option<Instant>,
    /// How many records were passed over since this was last asked.
    passed_over: u64,
}

impl Reader {
    /// Of a member that joins now.
    pub(super) fn new(now: Instant) -> Reader {
        Reader { partitions: BTreeMap::new(), generation: 0, unassigned_since: Some(now), passed_over: 0 }
    }

    pub(super) fn assigned(&mut self, partitions: BTreeMap<Slot, Reading>) {
        self.partitions = partitions;
        self.generation += 1;
        self.unassigned_since = None;
    }

    pub(super) fn revoked(&mut self, now: Instant) {
        self.partitions.clear();
        self.generation += 1;
        self.unassigned_since = Some(now);
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn unassigned_since(&self) -> Option<Instant> {
        self.unassigned_since
    }

    /// Judges a record of a partition, see [`Reading::meet`]. None where that is not this member's.
    pub(super) fn meet(
        &mut self,
        slot: Slot,
        met: &Met,
        is_of_interest: impl FnOnce() -> bool,
        has_room: impl FnOnce() -> bool,
        now: Instant,
    ) -> Option<Fate> {
        let fate = self.partitions.get_mut(&slot)?.meet(met, is_of_interest, has_room, now);
        self.passed_over += u64::from(fate == Fate::PassOver);
        Some(fate)
    }

    /// Judges a record that loops back, see [`Reading::meet_looped_back`]. None where the partition is not this member's.
    pub(super) fn meet_looped_back(
        &mut self,
        slot: Slot,
        own: &Own,
        is_of_interest: impl FnOnce() -> bool,
        now: Instant,
    ) -> Option<Fate> {
        let fate = self.partitions.get_mut(&slot)?.meet_looped_back(own, is_of_interest, now);
        self.passed_over += u64::from(fate == Fate::PassOver);
        Some(fate)
    }

    /// Takes in where a record lies, see [`Reading::lies`].
    pub(super) fn lies(&mut self, slot: Slot, lies: Lies, now: Instant) -> Placed {
        self.partitions.get_mut(&slot).map_or(Placed::Known, |reading| reading.lies(lies, now))
    }

    /// What the next record of a partition must be, see [`Reading::awaited`].
    pub(super) fn awaited(&self, slot: Slot) -> Option<Label> {
        self.partitions.get(&slot)?.awaited()
    }

    /// The offset at which reading a partition goes on.
    pub(super) fn next_offset(&self, slot: Slot) -> Option<i64> {
        Some(self.partitions.get(&slot)?.view().next_offset)
    }

    /// Forgets what was read of all partitions and is not stored: it is read again. Answers which those are.
    pub(super) fn reread(&mut self) -> Vec<Slot> {
        let again =
            self.partitions.iter_mut().filter_map(|(slot, reading)| reading.reread().then_some(*slot));
        again.collect()
    }

    /// How many records were passed over since this was last asked.
    pub(super) fn take_passed_over(&mut self) -> u64 {
        std::mem::take(&mut self.passed_over)
    }

    /// What is to be stored once everything that was read has been applied.
    pub(super) fn progress(&self) -> Vec<Progress> {
        self.partitions.iter().filter_map(|(slot, reading)| reading.progress(*slot)).collect()
    }

    /// What may be stored now.
    pub(super) fn storable(&self) -> Vec<Progress> {
        self.partitions.iter().filter_map(|(slot, reading)| reading.storable(*slot)).collect()
    }

    /// Whether something has waited long enough to be stored.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let mut since = self.partitions.values().filter_map(Reading::unstored_since);
        since.any(|since| now.saturating_duration_since(since) >= STORE_AFTER)
    }

    /// Takes in that partitions were stored up to there.
    pub(super) fn stored(&mut self, upto: impl IntoIterator<Item = (Slot, Mark)>) {
        for (slot, mark) in upto {
            if let Some(reading) = self.partitions.get_mut(&slot) {
                reading.stored(mark);
            }
        }
    }

    /// Takes in that nothing could be stored: it is tried again a while later.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.partitions.values_mut().for_each(|reading| reading.put_off(now));
    }

    /// The offsets that are stored.
    pub(super) fn offsets(&self) -> impl Iterator<Item = (Slot, i64)> {
        self.partitions.iter().map(|(slot, reading)| (*slot, reading.stored_offset()))
    }

    /// What a watch sees.
    pub(super) fn views(&self) -> BTreeMap<Slot, View> {
        self.partitions.iter().map(|(slot, reading)| (*slot, reading.view())).collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::mark::Tip;
    use super::*;
    use crate::label::Label;

    const CUPS: Slot = Slot { topic: "cups", partition: 1 };
    const POTS: Slot = Slot { topic: "pots", partition: 1 };

    fn label(position: i64) -> Label {
        if position == 0 { Label::START } else { Label { era: 1, position } }
    }

    fn reader() -> (Reader, Instant) {
        let begin = Instant::now();
        let mut reader = Reader::new(begin);
        let nothing = Mark { label: Label::START, event_id: None, tip: None, next_offset: 0 };
        reader.assigned([CUPS, POTS].map(|slot| (slot, Reading::new(1, nothing))).into());
        (reader, begin)
    }

    /// Meets the n-th record of a partition, from 1.
    fn meet(reader: &mut Reader, slot: Slot, n: i64, is_of_interest: bool, now: Instant) -> Fate {
        let own = Own { label: label(n), previous: label(n - 1), event_id: Uuid::nil() };
        let met = Met { offset: n - 1, own: Some(own) };
        reader.meet(slot, &met, || is_of_interest, || true, now).unwrap()
    }

    fn mark(n: i64) -> Mark {
        let tip = Some(Tip { label: label(n), offset: n - 1 });
        Mark { label: label(n), event_id: Some(Uuid::nil()), tip, next_offset: n }
    }

    #[test]
    fn what_is_passed_over_is_due_less_than_a_second_after_the_oldest_of_it() {
        let (mut reader, begin) = reader();
        assert!(!reader.is_due(begin + STORE_AFTER * 9));
        assert_eq!(meet(&mut reader, CUPS, 1, false, begin), Fate::PassOver);
        for n in 2..9 {
            let now = begin + STORE_AFTER * u32::try_from(n).unwrap() / 10;
            assert_eq!(meet(&mut reader, CUPS, n, false, now), Fate::PassOver);
            assert!(!reader.is_due(now));
        }
        assert!(reader.is_due(begin + STORE_AFTER));
        assert_eq!((reader.take_passed_over(), reader.take_passed_over()), (8, 0));
        reader.put_off(begin + STORE_AFTER);
        assert!(!reader.is_due(begin + STORE_AFTER) && reader.is_due(begin + STORE_AFTER * 2));
        reader.stored([(CUPS, mark(8))]);
        assert!(!reader.is_due(begin + STORE_AFTER * 9));
        assert_eq!(reader.storable(), []);
    }

    #[test]
    fn a_batch_stores_what_was_passed_over_of_any_partition_and_what_waits_for_it_is_not_stored_without() {
        let (mut reader, now) = reader();
        meet(&mut reader, CUPS, 1, false, now);
        assert_eq!(meet(&mut reader, POTS, 1, true, now), Fate::Apply(mark(1)));
        meet(&mut reader, POTS, 2, false, now);
        let upto = |progress: Vec<Progress>| -> Vec<(Slot, i64)> {
            progress.into_iter().map(|p| (p.slot, p.upto.next_offset)).collect()
        };
        assert_eq!(upto(reader.storable()), [(CUPS, 1)]);
        assert_eq!(upto(reader.progress()), [(CUPS, 1), (POTS, 2)]);
    }

    #[test]
    fn who_has_no_part_meets_nothing() {
        let (mut reader, now) = reader();
        reader.revoked(now);
        let met = Met { offset: 0, own: None };
        assert_eq!(reader.meet(CUPS, &met, || true, || true, now), None);
        assert_eq!((reader.generation(), reader.unassigned_since()), (2, Some(now)));
    }
}
