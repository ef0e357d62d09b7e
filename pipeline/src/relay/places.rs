//! Where Kafka has put the events of the log, as it is written down: by segment, the offset of each event.

use crate::log::SEGMENT_POSITIONS;

/// Stands where it is not known where an event lies.
const UNKNOWN: i64 = -1;

/// Positions of events and their offsets, in the order in which they became known. After a step back a position may come again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places(Vec<(i64, i64)>);

/// The offsets of events by segment, each segment once.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// The numbers of the segments, in their order.
    pub(super) numbers: Vec<i64>,
    /// Where the events of each segment begin in `offsets`, counted from 1,
    pub(super) firsts: Vec<i32>,
    /// and where they end.
    pub(super) lasts: Vec<i32>,
    /// The offsets of the events, from the first of each segment; -1 where it is not known.
    pub(super) offsets: Vec<i64>,
}

impl Places {
    /// The event of a position lies there now.
    pub(super) fn put(&mut self, position: i64, offset: i64) {
        self.0.push((position, offset));
    }

    /// As columns, with the latest place of each event.
    pub(super) fn columns(&self) -> Columns {
        let mut places = self.0.clone();
        // It keeps the order of those of one position.
        places.sort_by_key(|(position, _)| *position);
        let mut columns = Columns::default();
        for (position, offset) in places {
            columns.put(position / SEGMENT_POSITIONS, position % SEGMENT_POSITIONS, offset);
        }
        columns
    }
}

impl Columns {
    /// Puts the offset of an event in place of an earlier one.
    fn put(&mut self, number: i64, ordinal: i64, offset: i64) {
        if self.numbers.last() != Some(&number) {
            self.numbers.push(number);
            self.firsts.push(count(self.offsets.len() + 1));
            self.lasts.push(count(self.offsets.len()));
        }
        let (Some(first), Some(last)) = (self.firsts.last(), self.lasts.last_mut()) else { return };
        let at = usize::try_from(i64::from(*first) + ordinal - 2).unwrap_or_default();
        if self.offsets.len() <= at {
            self.offsets.resize(at + 1, UNKNOWN);
        }
        if let Some(here) = self.offsets.get_mut(at) {
            *here = offset;
        }
        *last = count(self.offsets.len());
    }
}

fn count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(all: &[(i64, i64)]) -> Vec<(i64, Vec<i64>)> {
        let mut places = Places::default();
        all.iter().for_each(|(position, offset)| places.put(*position, *offset));
        let Columns { numbers, firsts, lasts, offsets } = places.columns();
        let of = |index: usize| offsets[firsts[index] as usize - 1..lasts[index] as usize].to_vec();
        numbers.iter().enumerate().map(|(index, number)| (*number, of(index))).collect()
    }

    #[test]
    fn offsets_stand_by_segment_and_ordinal() {
        assert_eq!(columns(&[]), []);
        assert_eq!(
            columns(&[(300_001, 7), (300_002, 4), (300_005, 9), (900_003, 0)]),
            [(3, vec![7, 4, -1, -1, 9]), (9, vec![-1, -1, 0])]
        );
    }

    #[test]
    fn what_is_published_again_lies_where_it_came_to_lie_last_and_its_segment_comes_once() {
        assert_eq!(
            columns(&[(300_001, 7), (300_002, 8), (400_001, 9), (300_002, 10), (400_001, 11)]),
            [(3, vec![7, 10]), (4, vec![11])]
        );
    }
}
