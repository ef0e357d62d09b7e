//! Records that are to be applied together, and how far their partitions are with them.

use std::collections::BTreeMap;

use super::mark::{Mark, Progress};
use crate::dead_letters::Code;
use crate::partition::Slot;
use crate::record::{Received, Record};

/// A record that is to be applied, or put aside.
#[derive(Clone, Debug)]
pub(super) struct Item<E> {
    pub(super) record: Record,
    pub(super) slot: Slot,
    /// Where its partition stands once it is done with.
    pub(super) mark: Mark,
    /// What it says.
    pub(super) received: Result<Received<E>, (Code, String)>,
}

/// Records that are to be applied, in order. They may be applied in parts, each with the progress that it makes; what was passed
/// over around them is part of that.
#[derive(Debug)]
pub(super) struct Gathered<E> {
    items: Vec<Item<E>>,
    /// How many of them are done with.
    done: usize,
    /// How far each partition is once all are done with.
    progress: BTreeMap<Slot, Progress>,
    stored: BTreeMap<Slot, Mark>,
}

impl<E> Gathered<E> {
    pub(super) fn new(items: Vec<Item<E>>, progress: Vec<Progress>) -> Gathered<E> {
        let progress = progress.into_iter().map(|progress| (progress.slot, progress)).collect();
        Gathered { items, done: 0, progress, stored: BTreeMap::new() }
    }

    /// What is still to be done.
    pub(super) fn left(&self) -> &[Item<E>] {
        &self.items[self.done..]
    }

    /// What is to be stored with the next `count` of what is left.
    pub(super) fn progress(&self, count: usize) -> Vec<Progress> {
        let left = self.left();
        if count >= left.len() {
            let is_stored = |progress: &&Progress| self.stored.get(&progress.slot) == Some(&progress.upto);
            return self.progress.values().filter(|progress| !is_stored(progress)).copied().collect();
        }
        let upto: BTreeMap<Slot, Mark> = left[..count].iter().map(|item| (item.slot, item.mark)).collect();
        let progress = |(slot, upto)| Some(Progress { upto, ..*self.progress.get(&slot)? });
        upto.into_iter().filter_map(progress).collect()
    }

    /// Takes in that the next `count` of what is left have been committed.
    pub(super) fn committed(&mut self, count: usize) {
        for Progress { slot, upto, .. } in self.progress(count) {
            self.stored.insert(slot, upto);
            if let Some(progress) = self.progress.get_mut(&slot) {
                progress.before = (upto.label, upto.next_offset);
            }
        }
        self.done = self.items.len().min(self.done + count);
    }

    /// How far the partitions are stored that have been stored.
    pub(super) fn stored(&self) -> impl Iterator<Item = (Slot, Mark)> {
        self.stored.iter().map(|(slot, mark)| (*slot, *mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::Label;
    use crate::log::RecordPlace;

    const CUPS: Slot = Slot { topic: "cups", partition: 1 };
    const POTS: Slot = Slot { topic: "pots", partition: 1 };

    fn mark(position: i64) -> Mark {
        Mark { label: Label { era: 1, position }, event_id: None, tip: None, next_offset: position }
    }

    fn item(slot: Slot, position: i64) -> Item<()> {
        let place = RecordPlace { topic: slot.topic.to_owned(), partition: 1, offset: position };
        let record = Record::stored(place, None, &[], None, true);
        Item { record, slot, mark: mark(position), received: Err((Code::Bug, String::new())) }
    }

    /// What is stored with the next so many: the partition, the label that stands there before, and the new one.
    fn progress(gathered: &Gathered<()>, count: usize) -> Vec<(Slot, i64, i64)> {
        let progress = gathered.progress(count).into_iter();
        progress.map(|p| (p.slot, p.before.0.position, p.upto.label.position)).collect()
    }

    #[test]
    fn each_part_of_a_batch_stores_its_own_progress_and_the_last_what_was_passed_over_as_well() {
        let items = vec![item(CUPS, 1), item(POTS, 1), item(CUPS, 3), item(CUPS, 5)];
        let upto =
            |slot, position| Progress { slot, epoch: 1, before: (Label::START, 0), upto: mark(position) };
        let mut gathered = Gathered::new(items, vec![upto(CUPS, 7), upto(POTS, 1)]);
        assert_eq!(progress(&gathered, 3), [(CUPS, 0, 3), (POTS, 0, 1)]);
        gathered.committed(3);
        assert_eq!(gathered.left().len(), 1);
        // The other one stands where it is.
        assert_eq!(progress(&gathered, 1), [(CUPS, 3, 7)]);
        gathered.committed(1);
        assert_eq!(gathered.left().len(), 0);
        assert_eq!(gathered.stored().collect::<Vec<_>>(), [(CUPS, mark(7)), (POTS, mark(1))]);
    }
}
