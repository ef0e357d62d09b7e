//! How many foreign records become dead letters. Who writes junk to a topic must not fill the database with it.

use std::time::{Duration, Instant};

/// So many foreign records become dead letters in a minute, for each member of a group. The others are only counted.
const LETTERS_MAX: u32 = 100;
/// And so many bytes of them: a letter keeps the whole record.
const BYTES_MAX: usize = 4 << 20;
const MINUTE: Duration = Duration::from_secs(60);

/// Counts foreign records, minute by minute from the first one on.
#[derive(Debug, Default)]
pub(super) struct ForeignCap {
    minute: Option<Minute>,
}

#[derive(Debug)]
struct Minute {
    began: Instant,
    letters: u32,
    bytes: usize,
    /// It has been told that there are more.
    is_told: bool,
}

/// What becomes of a foreign record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It becomes a dead letter.
    Letter,
    /// It is only counted, and it is the first of this minute: that is told.
    Told,
    /// It is only counted.
    Counted,
}

impl ForeignCap {
    /// One more, of so many bytes.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> Room {
        let minute = self.minute.take().filter(|m| now.saturating_duration_since(m.began) < MINUTE);
        let minute =
            self.minute.insert(minute.unwrap_or(Minute { began: now, letters: 0, bytes: 0, is_told: false }));
        if minute.letters < LETTERS_MAX && minute.bytes.saturating_add(bytes) <= BYTES_MAX {
            minute.letters += 1;
            minute.bytes += bytes;
            Room::Letter
        } else if std::mem::replace(&mut minute.is_told, true) {
            Room::Counted
        } else {
            Room::Told
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_minute_become_letters_and_of_the_others_the_first_is_told() {
        let (mut cap, begin) = (ForeignCap::default(), Instant::now());
        for minute in 0..3 {
            let now = begin + MINUTE * minute;
            let took: Vec<Room> = (0..LETTERS_MAX + 3).map(|_| cap.take(1, now)).collect();
            let (letters, others) = took.split_at(LETTERS_MAX as usize);
            assert!(letters.iter().all(|room| *room == Room::Letter));
            assert_eq!(others, [Room::Told, Room::Counted, Room::Counted]);
            assert_eq!(cap.take(1, now + MINUTE - Duration::from_millis(1)), Room::Counted);
        }
    }

    #[test]
    fn large_ones_become_letters_up_to_so_many_bytes_a_minute() {
        let (mut cap, now) = (ForeignCap::default(), Instant::now());
        let took = [BYTES_MAX - 10, 11, 10, 1].map(|bytes| cap.take(bytes, now));
        assert_eq!(took, [Room::Letter, Room::Told, Room::Letter, Room::Counted]);
        assert_eq!(cap.take(BYTES_MAX, now + MINUTE), Room::Letter);
        assert_eq!(cap.take(BYTES_MAX + 1, now + MINUTE * 2), Room::Told, "it never fits");
    }
}
