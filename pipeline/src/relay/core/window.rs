//! What was handed over to be sent and is not acknowledged yet, and the cursor behind it.

use std::collections::VecDeque;
use std::time::Instant;

use super::super::places::Places;
use super::super::published::Last;
use super::slots::{Lasts, Slot};

/// A partition whose next record came to lie before others that Kafka had acknowledged: it has lost those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetBack {
    pub(super) slot: Slot,
    /// Where the first record lies that was published since.
    pub(super) offset: i64,
}

/// What the cursor passes, in the order of the log.
#[derive(Debug)]
enum Step {
    /// A record that was handed over.
    Record { slot: Slot, position: i64, bytes: usize, acknowledged: Option<Acknowledged> },
    /// A record that is not published again, since its topic has it.
    LeftOut { slot: Slot, last: Last },
    /// The end of a segment.
    End { position: i64 },
}

/// Where Kafka has put a record; the offset of one that was sent twice may not be known.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    offset: Option<i64>,
}

/// The steps between the cursor and what was handed over last.
#[derive(Debug)]
pub(super) struct Window {
    steps: VecDeque<Step>,
    /// The ticket of the first of them.
    first: u64,
    records: usize,
    bytes: usize,
    /// Everything up to here is acknowledged,
    position: i64,
    /// and of that, these are the last records.
    lasts: Lasts,
    /// Where the next record of each partition must come to lie at least.
    ends: Vec<i64>,
    set_back: Vec<SetBack>,
    /// Where the records lie that the cursor has passed since this was last asked.
    places: Places,
    /// When something was acknowledged, or handed over while nothing was under way.
    moved_at: Instant,
}

impl Window {
    /// Nothing is under way, and everything up to `position` is published.
    pub(super) fn new(position: i64, lasts: Lasts, now: Instant) -> Window {
        Window {
            steps: VecDeque::new(),
            first: 0,
            records: 0,
            bytes: 0,
            position,
            lasts,
            ends: Vec::new(),
            set_back: Vec::new(),
            places: Places::default(),
            moved_at: now,
        }
    }

    /// Goes back, while nothing is under way.
    pub(super) fn begin_again_at(&mut self, position: i64, lasts: Lasts) {
        self.first += self.steps.len() as u64;
        self.steps.clear();
        (self.records, self.bytes) = (0, 0);
        (self.position, self.lasts) = (position, lasts);
    }

    /// Records of that partition lie below that offset.
    pub(super) fn ends_at(&mut self, slot: Slot, offset: i64) {
        if self.ends.len() <= slot {
            self.ends.resize(slot + 1, 0);
        }
        if let Some(end) = self.ends.get_mut(slot) {
            *end = offset;
        }
    }

    /// How many steps the cursor is behind.
    pub(super) fn steps(&self) -> usize {
        self.steps.len()
    }

    /// A record is handed over; answers its ticket.
    pub(super) fn hand_over(&mut self, slot: Slot, position: i64, bytes: usize, now: Instant) -> u64 {
        if self.records == 0 {
            self.moved_at = now;
        }
        self.records += 1;
        self.bytes += bytes;
        self.steps.push_back(Step::Record { slot, position, bytes, acknowledged: None });
        self.first + self.steps.len() as u64 - 1
    }

    /// A record is left out, which lies there.
    pub(super) fn leave_out(&mut self, slot: Slot, last: Last) {
        self.steps.push_back(Step::LeftOut { slot, last });
    }

    /// A segment has ended.
    pub(super) fn end(&mut self, position: i64) {
        self.steps.push_back(Step::End { position });
        self.advance();
    }

    /// Kafka has acknowledged a record.
    pub(super) fn acknowledged(&mut self, ticket: u64, offset: Option<i64>, now: Instant) {
        self.moved_at = now;
        let index = ticket.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let step = index.and_then(|index| self.steps.get_mut(index));
        let Some(Step::Record { slot, bytes, acknowledged: here @ None, .. }) = step else { return };
        *here = Some(Acknowledged { offset });
        self.records -= 1;
        self.bytes -= *bytes;
        let slot = *slot;
        if let Some(offset) = offset {
            if offset < self.ends.get(slot).copied().unwrap_or(0) {
                self.set_back.push(SetBack { slot, offset });
            }
            self.ends_at(slot, offset + 1);
        }
        self.advance();
    }

    /// Moves the cursor over what is acknowledged.
    fn advance(&mut self) {
        loop {
            match self.steps.front() {
                Some(Step::Record {
                    slot, position, acknowledged: Some(Acknowledged { offset }), ..
                }) => {
                    self.lasts.put(*slot, Last { position: *position, offset: *offset });
                    if let Some(offset) = *offset {
                        self.places.put(*position, offset);
                    }
                    self.position = *position;
                }
                Some(Step::LeftOut { slot, last }) => {
                    self.lasts.put(*slot, *last);
                    self.position = last.position;
                }
                Some(Step::End { position }) => self.position = *position,
                Some(Step::Record { acknowledged: None, .. }) | None => return,
            }
            self.steps.pop_front();
            self.first += 1;
        }
    }

    /// Everything up to here is acknowledged.
    pub(super) fn position(&self) -> i64 {
        self.position
    }

    /// The last records of that.
    pub(super) fn lasts(&self) -> &Lasts {
        &self.lasts
    }

    /// How many records are under way, and how many bytes.
    pub(super) fn under_way(&self) -> (usize, usize) {
        (self.records, self.bytes)
    }

    /// Since when nothing has moved of what is under way; none where nothing is.
    pub(super) fn stands_since(&self) -> Option<Instant> {
        (self.records > 0).then_some(self.moved_at)
    }

    /// Where the records lie that the cursor has passed since this was last asked.
    pub(super) fn take_places(&mut self) -> Places {
        std::mem::take(&mut self.places)
    }

    /// The partitions in which Kafka has lost records since this was last asked.
    pub(super) fn set_back(&mut self) -> Vec<SetBack> {
        std::mem::take(&mut self.set_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        Window::new(0, Lasts::default(), Instant::now())
    }

    #[test]
    fn the_cursor_passes_what_is_acknowledged_from_the_front_and_knows_the_last_records_there() {
        let (mut window, now) = (window(), Instant::now());
        let tickets =
            [(0, 1), (1, 2), (0, 3)].map(|(slot, position)| window.hand_over(slot, position, 10, now));
        window.end(9);
        window.acknowledged(tickets[1], Some(70), now);
        assert_eq!((window.position(), window.under_way()), (0, (2, 20)));
        window.acknowledged(tickets[0], Some(40), now);
        assert_eq!(window.position(), 2);
        assert_eq!(window.lasts().of(0), Last { position: 1, offset: Some(40) });
        assert_eq!(window.lasts().of(1), Last { position: 2, offset: Some(70) });
        window.acknowledged(tickets[2], None, now);
        assert_eq!((window.position(), window.under_way()), (9, (0, 0)));
        assert_eq!(window.lasts().of(0), Last { position: 3, offset: None });
        assert_eq!(window.take_places().columns().offsets, [40, 70]);
        assert_eq!(window.take_places(), Places::default(), "it is told once");
        assert_eq!(window.stands_since(), None);
    }

    #[test]
    fn what_is_left_out_or_told_twice_is_passed_as_well() {
        let (mut window, now) = (window(), Instant::now());
        window.leave_out(0, Last { position: 1, offset: Some(4) });
        let ticket = window.hand_over(1, 2, 10, now);
        window.end(9);
        assert_eq!(window.position(), 1);
        window.acknowledged(ticket, Some(0), now);
        window.acknowledged(ticket, Some(0), now);
        assert_eq!((window.position(), window.lasts().offset_of(0, 1)), (9, Some(4)));
    }

    #[test]
    fn a_record_that_lies_before_one_that_was_there_shows_that_kafka_has_lost_some() {
        let (mut window, now) = (window(), Instant::now());
        window.ends_at(1, 4);
        let publish = |window: &mut Window, offset| {
            let ticket = window.hand_over(1, 1, 1, now);
            window.acknowledged(ticket, offset, now);
        };
        for offset in [4, 5, 9] {
            publish(&mut window, Some(offset));
        }
        assert_eq!(window.set_back(), []);
        publish(&mut window, Some(2));
        assert_eq!(window.set_back(), [SetBack { slot: 1, offset: 2 }]);
        publish(&mut window, Some(3));
        publish(&mut window, None);
        assert_eq!(window.set_back(), [], "it is told once");
    }
}
