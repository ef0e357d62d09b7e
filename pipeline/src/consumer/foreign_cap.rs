//! How many foreign records become dead letters. Who writes junk to a topic must not fill the database with it.

use std::time::{Duration, Instant};

/// So many foreign records become dead letters in a minute, for each member of a group. The others are only counted.
const LETTERS_MAX: u32 = 100;
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
    /// One more.
    pub(super) fn take(&mut self, now: Instant) -> Room {
        let minute = self.minute.take().filter(|m| now.saturating_duration_since(m.began) < MINUTE);
        let minute = self.minute.insert(minute.unwrap_or(Minute { began: now, letters: 0, is_told: false }));
        if minute.letters < LETTERS_MAX {
            minute.letters += 1;
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
            let took: Vec<Room> = (0..LETTERS_MAX + 3).map(|_| cap.take(now)).collect();
            let (letters, others) = took.split_at(LETTERS_MAX as usize);
            assert!(letters.iter().all(|room| *room == Room::Letter));
            assert_eq!(others, [Room::Told, Room::Counted, Room::Counted]);
            assert_eq!(cap.take(now + MINUTE - Duration::from_millis(1)), Room::Counted);
        }
    }
}
