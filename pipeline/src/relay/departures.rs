//! Which records leave for Kafka, and when.
//!
//! A record waits for others, for a short time. Of a partition one batch is in flight; what comes meanwhile waits for its
//! acknowledgement, too, and leaves together. An idempotent client would send it no sooner: while something of a partition is in flight
//! it sends nothing more of it, and until then it asks itself again and again whether it may, without a pause. Only of a backlog it is given
//! more ahead, so that it need not wait for us.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// About how many bytes leave together: less than a request may have, so that nothing of a batch stays behind.
const BATCH_BYTES_MAX: usize = 800_000;
/// While fewer records than that are in flight, a batch that is full leaves as well.
const AHEAD_MAX: usize = 2_000;

/// What waits of each partition, and how much is in flight.
#[derive(Debug)]
pub(super) struct Departures<R> {
    linger: Duration,
    /// By the number of the partition.
    lines: Vec<Line<R>>,
    in_flight: usize,
}

/// The records of a partition.
#[derive(Debug)]
struct Line<R> {
    waiting: VecDeque<Waiting<R>>,
    bytes: usize,
    in_flight: usize,
}

#[derive(Debug)]
struct Waiting<R> {
    record: R,
    bytes: usize,
    since: Instant,
}

impl<R> Line<R> {
    fn new() -> Line<R> {
        Line { waiting: VecDeque::new(), bytes: 0, in_flight: 0 }
    }

    fn put(&mut self, next: Waiting<R>) {
        self.bytes += next.bytes;
        self.waiting.push_back(next);
    }

    /// When the next batch leaves, if nothing is acknowledged before.
    fn leaves_at(&self, linger: Duration) -> Option<Instant> {
        let since = self.waiting.front()?.since;
        if self.bytes >= BATCH_BYTES_MAX && self.in_flight < AHEAD_MAX {
            Some(since)
        } else {
            (self.in_flight == 0).then(|| since + linger)
        }
    }

    fn leave(&mut self) -> Vec<R> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut fits = |next: &mut Waiting<R>| {
            bytes += next.bytes;
            bytes == next.bytes || bytes <= BATCH_BYTES_MAX
        };
        while let Some(next) = self.waiting.pop_front_if(&mut fits) {
            self.bytes -= next.bytes;
            batch.push(next.record);
        }
        self.in_flight += batch.len();
        batch
    }
}

impl<R> Departures<R> {
    /// Nothing waits. Every record is to wait so long for others.
    pub(super) fn new(linger: Duration) -> Departures<R> {
        Departures { linger, lines: Vec::new(), in_flight: 0 }
    }

    /// A record of that partition is to leave.
    pub(super) fn put(&mut self, slot: usize, bytes: usize, record: R, now: Instant) {
        if self.lines.len() <= slot {
            self.lines.resize_with(slot + 1, Line::new);
        }
        if let Some(line) = self.lines.get_mut(slot) {
            line.put(Waiting { record, bytes, since: now });
        }
    }

    /// The next batch that leaves now, all of one partition and in order. It is in flight then.
    pub(super) fn leave(&mut self, now: Instant) -> Option<Vec<R>> {
        let linger = self.linger;
        let is_due = |line: &&mut Line<R>| line.leaves_at(linger).is_some_and(|at| at <= now);
        let batch = self.lines.iter_mut().find(is_due)?.leave();
        self.in_flight += batch.len();
        Some(batch)
    }

    /// A record of that partition is not in flight any more.
    pub(super) fn arrived(&mut self, slot: usize) {
        if let Some(line) = self.lines.get_mut(slot) {
            line.in_flight = line.in_flight.saturating_sub(1);
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    /// When the next batch leaves, as long as nothing arrives; `None` where none does.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.lines.iter().filter_map(|line| line.leaves_at(self.linger)).min()
    }

    /// How long a record waits for others.
    pub(super) fn linger(&self) -> Duration {
        self.linger
    }

    pub(super) fn is_any_in_flight(&self) -> bool {
        self.in_flight > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(20);
    const MS: Duration = Duration::from_millis(1);

    fn departures() -> (Departures<u32>, Instant) {
        (Departures::new(LINGER), Instant::now())
    }

    #[test]
    fn a_record_waits_for_others_and_leaves_with_them() {
        let (mut departures, now) = departures();
        assert_eq!(departures.next_at(), None);
        departures.put(3, 10, 1, now);
        departures.put(3, 10, 2, now + 19 * MS);
        assert_eq!((departures.next_at(), departures.leave(now + 19 * MS)), (Some(now + LINGER), None));
        assert!(!departures.is_any_in_flight());
        assert_eq!(departures.leave(now + LINGER), Some(vec![1, 2]));
        assert!(departures.is_any_in_flight());
        assert_eq!((departures.leave(now + 60 * MS), departures.next_at()), (None, None));
    }

    #[test]
    fn what_comes_while_a_batch_is_in_flight_leaves_together_once_all_of_that_has_arrived() {
        let (mut departures, now) = departures();
        let late = now + 60 * MS;
        (1..=2).for_each(|record| departures.put(0, 10, record, now));
        assert_eq!(departures.leave(now + LINGER), Some(vec![1, 2]));
        (3..=4).for_each(|record| departures.put(0, 10, record, now + LINGER));
        departures.put(1, 10, 9, now + LINGER);
        assert_eq!(departures.leave(late), Some(vec![9]), "another partition does not wait for it");
        departures.arrived(0);
        assert_eq!((departures.leave(late), departures.next_at()), (None, None));
        departures.arrived(0);
        assert_eq!(departures.next_at(), Some(now + 2 * LINGER), "it has waited long enough by then");
        assert_eq!(departures.leave(late), Some(vec![3, 4]));
        [0, 0, 1].iter().for_each(|slot| departures.arrived(*slot));
        assert!(!departures.is_any_in_flight());
    }

    #[test]
    fn what_is_too_much_for_a_request_leaves_in_several_batches_and_a_large_record_alone() {
        let (mut departures, now) = departures();
        for (record, bytes) in [(1, BATCH_BYTES_MAX + 1), (2, 1), (3, BATCH_BYTES_MAX - 1), (4, 1)] {
            departures.put(0, bytes, record, now);
        }
        for batch in [vec![1], vec![2, 3], vec![4]] {
            assert_eq!(departures.leave(now + LINGER).as_ref(), Some(&batch));
            batch.iter().for_each(|_| departures.arrived(0));
        }
        assert_eq!(departures.next_at(), None);
    }

    #[test]
    fn of_a_backlog_full_batches_leave_at_once_and_ahead_but_not_all_of_it() {
        let (mut departures, now) = departures();
        let bytes = BATCH_BYTES_MAX / 500;
        for record in 0..5_100 {
            departures.put(0, bytes, record, now);
        }
        let mut left = Vec::new();
        while let Some(batch) = departures.leave(now) {
            left.extend(batch);
        }
        assert_eq!((left.len(), departures.next_at()), (AHEAD_MAX, None));
        (0..500).for_each(|_| departures.arrived(0));
        assert_eq!(departures.leave(now).map(|batch| batch.len()), Some(500));
        (0..2_000).for_each(|_| departures.arrived(0));
        while let Some(batch) = departures.leave(now) {
            left.extend(batch);
        }
        (0..2_000).for_each(|_| departures.arrived(0));
        assert_eq!(departures.leave(now).map(|batch| batch.len()), Some(500));
        assert_eq!(
            departures.next_at(),
            None,
            "what is left of it is no full batch, and waits for the others"
        );
        (0..500).for_each(|_| departures.arrived(0));
        assert_eq!(departures.next_at(), Some(now + LINGER));
    }
}
