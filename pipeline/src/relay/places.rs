//! Where Kafka has put the events of the log, as it is written down: by segment, the offset of each event.

use crate::log::SEGMENT_POSITIONS;

/// Stands where it is not known where an event lies.
const UNKNOWN: i64 = -1;

/// The offsets of events, by segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
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
    /// The event of a position lies there. Positions come in their order.
    pub(super) fn put(&mut self, position: i64, offset: i64) {
        let (number, ordinal) = (position / SEGMENT_POSITIONS, position % SEGMENT_POSITIONS);
        let begins = self.offsets.len();
        if self.numbers.last() != Some(&number) {
            self.numbers.push(number);
            self.firsts.push(count(begins + 1));
            self.lasts.push(count(begins));
        }
        let (Some(first), Some(last)) = (self.firsts.last(), self.lasts.last_mut()) else { return };
        for _ in i64::from(*last - *first + 2)..ordinal {
            self.offsets.push(UNKNOWN);
        }
        self.offsets.push(offset);
        *last = count(self.offsets.len());
    }
}

fn count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_stand_by_segment_and_ordinal() {
        let mut places = Places::default();
        for (position, offset) in [(300_001, 7), (300_002, 4), (300_005, 9), (900_003, 0)] {
            places.put(position, offset);
        }
        let Places { numbers, firsts, lasts, offsets } = places;
        assert_eq!(numbers, [3, 9]);
        let of = |index: usize| &offsets[firsts[index] as usize - 1..lasts[index] as usize];
        assert_eq!((of(0), of(1)), ([7, 4, -1, -1, 9].as_slice(), [-1, -1, 0].as_slice()));
    }
}
