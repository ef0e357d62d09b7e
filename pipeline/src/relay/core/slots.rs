//! The partitions that are published to, each by a number that is theirs as long as a relay leads.

use std::collections::{BTreeMap, HashMap};

use super::super::published::{Last, Tails};

/// The number of a partition among all.
pub(super) type Slot = usize;

/// Topics and their partitions.
#[derive(Debug)]
pub(super) struct Slots {
    partitions: usize,
    topics: Vec<String>,
    first: HashMap<String, Slot>,
}

impl Slots {
    pub(super) fn new(partitions: i16) -> Slots {
        let partitions = usize::from(partitions.unsigned_abs()).max(1);
        Slots { partitions, topics: Vec::new(), first: HashMap::new() }
    }

    /// The number of a partition. The log has no partition that its topics don't have.
    pub(super) fn slot(&mut self, topic: &str, partition: i16) -> Slot {
        let partition = usize::from(partition.unsigned_abs()).min(self.partitions - 1);
        if let Some(first) = self.first.get(topic) {
            return first + partition;
        }
        let first = self.topics.len() * self.partitions;
        self.topics.push(topic.to_owned());
        self.first.insert(topic.to_owned(), first);
        first + partition
    }

    /// The topic and the partition of that number.
    pub(super) fn place(&self, slot: Slot) -> (&str, i16) {
        let topic = self.topics.get(slot / self.partitions).map_or("", String::as_str);
        (topic, i16::try_from(slot % self.partitions).unwrap_or(i16::MAX))
    }

    /// Last records by number.
    pub(super) fn lasts(&mut self, tails: &Tails) -> Lasts {
        let mut lasts = Lasts::default();
        for (topic, of_topic) in &tails.0 {
            for (partition, last) in (0..).zip(of_topic) {
                lasts.put(self.slot(topic, partition), *last);
            }
        }
        lasts
    }

    /// The same by topic.
    pub(super) fn tails(&self, lasts: &Lasts) -> Tails {
        let of_topic =
            |first| (first..first + self.partitions).map(|slot| lasts.of(slot)).collect::<Vec<_>>();
        let topics = self.topics.iter().zip((0..).step_by(self.partitions));
        let topics = topics.map(|(topic, first)| (topic.clone(), of_topic(first)));
        let is_any = |of_topic: &Vec<Last>| of_topic.iter().any(|last| last.position > 0);
        Tails(topics.filter(|(_, of_topic)| is_any(of_topic)).collect::<BTreeMap<_, _>>())
    }
}

/// The last record of each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lasts(Vec<Last>);

impl Lasts {
    /// The last record of a partition.
    pub(super) fn of(&self, slot: Slot) -> Last {
        self.0.get(slot).copied().unwrap_or_default()
    }

    /// Puts a record at the end of a partition and answers what stood there.
    pub(super) fn put(&mut self, slot: Slot, last: Last) -> Last {
        if self.0.len() <= slot {
            self.0.resize(slot + 1, Last::default());
        }
        self.0.get_mut(slot).map_or(Last::default(), |here| std::mem::replace(here, last))
    }

    /// Puts those records in place of earlier ones.
    pub(super) fn keep_latest(&mut self, others: &Lasts) {
        for (slot, other) in others.0.iter().enumerate() {
            if other.position >= self.of(slot).position {
                self.put(slot, *other);
            }
        }
    }

    /// Adds the offsets that are known of the same records.
    pub(super) fn complete(&mut self, known: &Lasts) {
        for (slot, last) in self.0.iter_mut().enumerate() {
            last.offset = last.offset.or(known.offset_of(slot, last.position));
        }
    }

    /// The offset of a record, where it is the last of its partition.
    pub(super) fn offset_of(&self, slot: Slot, position: i64) -> Option<i64> {
        let last = self.of(slot);
        (last.position == position).then_some(last.offset)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_a_number_and_last_records_read_back() {
        let mut slots = Slots::new(2);
        let (cups, pots) = (slots.slot("cups", 1), slots.slot("pots", 0));
        assert_ne!(cups, pots);
        assert_eq!(
            (slots.slot("cups", 1), slots.place(cups), slots.place(pots)),
            (cups, ("cups", 1), ("pots", 0))
        );
        let mut lasts = Lasts::default();
        let last = Last { position: 7, offset: Some(3) };
        assert_eq!(lasts.put(cups, last), Last::default());
        let tails = slots.tails(&lasts);
        assert_eq!(tails.0.keys().collect::<Vec<_>>(), ["cups"]);
        assert_eq!(slots.lasts(&tails), lasts);
        assert_eq!((lasts.offset_of(cups, 7), lasts.offset_of(cups, 6)), (Some(3), None));
    }
}
