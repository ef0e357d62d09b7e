//! When the leader sends canaries: where nothing else was acknowledged for a while, and then as often. A state machine: told what was
//! acknowledged, it says what is to be sent.

use std::time::{Duration, Instant};

/// After so long without an acknowledged record a canary is sent, and then as often.
const QUIET: Duration = Duration::from_secs(5);
/// How long none is sent after Kafka has refused several, one after the other: after each, the leader begins anew.
const REFUSED: Duration = Duration::from_secs(60);
/// So many canaries a leader may send before it would repeat the numbers of another.
const OF_A_LEADER: i64 = 1_000_000_000;

/// Canaries that Kafka has refused in a row, of all leaders of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    count: u32,
    since: Option<Instant>,
}

impl Refusals {
    /// One more.
    pub(super) fn refused(&mut self, now: Instant) {
        self.count += 1;
        self.since.get_or_insert(now);
    }

    /// Since when Kafka takes none. What was refused once may have lacked its topic, which the next leader makes anew.
    fn lasting_since(self) -> Option<Instant> {
        self.since.filter(|_| self.count > 1)
    }
}

/// The canaries of a leader.
#[derive(Debug)]
pub(super) struct Canaries {
    /// The number of the next one, which is above those of all leaders before.
    next: i64,
    /// When it is due, unless something moves.
    due_at: Instant,
    /// Since when they are sent, as nothing else moves.
    quiet_since: Option<Instant>,
    /// Since when one is under way and Kafka has acknowledged nothing.
    sent_at: Option<Instant>,
    /// Since when Kafka refuses them.
    refused_since: Option<Instant>,
}

impl Canaries {
    /// Those of the leader of that epoch.
    pub(super) fn new(epoch: i64, refusals: Refusals, now: Instant) -> Canaries {
        let refused_since = refusals.lasting_since();
        let pause = if refused_since.is_some() { REFUSED } else { QUIET };
        Canaries {
            next: epoch.saturating_mul(OF_A_LEADER).saturating_add(1),
            due_at: now + pause,
            quiet_since: None,
            sent_at: None,
            refused_since,
        }
    }

    /// Kafka has acknowledged records: whatever is wrong with canaries, it holds nothing up.
    pub(super) fn moved(&mut self, now: Instant) {
        self.quiet_since = None;
        self.refused_since = None;
        self.sent_at = self.sent_at.map(|_| now);
        self.due_at = self.due_at.max(now + QUIET);
    }

    /// The number of a canary that is to be sent now, if one is.
    pub(super) fn next(&mut self, now: Instant) -> Option<i64> {
        if self.sent_at.is_some() || now < self.due_at {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.due_at = now + QUIET;
        self.sent_at = Some(now);
        self.quiet_since.get_or_insert(now);
        Some(number)
    }

    /// Kafka has acknowledged the one that was sent last.
    pub(super) fn acknowledged(&mut self) {
        (self.sent_at, self.refused_since) = (None, None);
    }

    /// When the next one is due, unless something happens.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.sent_at.is_none().then_some(self.due_at)
    }

    /// Since when members may expect one every now and then.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        self.quiet_since
    }

    /// Since when Kafka has acknowledged nothing, where one is under way.
    pub(super) fn sent_at(&self) -> Option<Instant> {
        self.sent_at
    }

    /// Since when Kafka takes none, as far as is known.
    pub(super) fn refused_since(&self) -> Option<Instant> {
        self.refused_since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_canary_is_sent_once_nothing_has_moved_for_a_while_and_then_as_often() {
        let begin = Instant::now();
        let mut canaries = Canaries::new(3, Refusals::default(), begin);
        assert_eq!((canaries.next(begin + QUIET - SECOND), canaries.quiet_since()), (None, None));
        let first = canaries.next(begin + QUIET).unwrap();
        assert_eq!(canaries.quiet_since(), Some(begin + QUIET));
        canaries.acknowledged();
        assert_eq!(canaries.due_at(), Some(begin + 2 * QUIET));
        assert_eq!(canaries.next(begin + 2 * QUIET - SECOND), None);
        assert_eq!(canaries.next(begin + 2 * QUIET), Some(first + 1));
        assert_eq!(canaries.quiet_since(), Some(begin + QUIET), "it is the same quiet time");
    }

    #[test]
    fn while_something_moves_none_is_sent_and_none_is_expected() {
        let (begin, mut now) = (Instant::now(), Instant::now());
        let mut canaries = Canaries::new(1, Refusals::default(), begin);
        while now < begin + 4 * QUIET {
            now += SECOND;
            canaries.moved(now);
            assert_eq!((canaries.next(now), canaries.quiet_since()), (None, None));
        }
        assert!(canaries.next(now + QUIET).is_some());
        canaries.moved(now + QUIET);
        assert_eq!(canaries.quiet_since(), None);
    }

    #[test]
    fn while_one_is_under_way_no_other_is_sent() {
        let begin = Instant::now();
        let mut canaries = Canaries::new(1, Refusals::default(), begin);
        let sent_at = begin + QUIET;
        assert!(canaries.next(sent_at).is_some());
        assert_eq!((canaries.next(sent_at + 9 * QUIET), canaries.due_at()), (None, None));
        assert_eq!(canaries.sent_at(), Some(sent_at));
        canaries.acknowledged();
        assert_eq!(canaries.sent_at(), None);
        assert!(canaries.next(sent_at + 9 * QUIET).is_some());
    }

    #[test]
    fn while_records_are_acknowledged_no_canary_holds_anything_up() {
        let begin = Instant::now();
        let mut canaries = Canaries::new(1, Refusals::default(), begin);
        assert!(canaries.next(begin + QUIET).is_some());
        let later = begin + 9 * QUIET;
        canaries.moved(later);
        assert_eq!(canaries.sent_at(), Some(later), "it is waited for anew");
        assert_eq!(canaries.next(later + QUIET), None, "it is still under way");
        canaries.acknowledged();
        canaries.moved(later + QUIET);
        assert_eq!(canaries.sent_at(), None);
        let mut refusals = Refusals::default();
        [begin, begin + QUIET].into_iter().for_each(|at| refusals.refused(at));
        let mut canaries = Canaries::new(1, refusals, begin);
        assert_eq!(canaries.refused_since(), Some(begin));
        canaries.moved(begin + QUIET);
        assert_eq!(canaries.refused_since(), None);
    }

    #[test]
    fn after_several_that_were_refused_it_is_waited_for_longer() {
        let (begin, mut refusals) = (Instant::now(), Refusals::default());
        refusals.refused(begin);
        let mut canaries = Canaries::new(1, refusals, begin);
        assert!(canaries.refused_since().is_none() && canaries.next(begin + QUIET).is_some());
        refusals.refused(begin + QUIET);
        let mut canaries = Canaries::new(1, refusals, begin);
        assert_eq!((canaries.next(begin + QUIET), canaries.refused_since()), (None, Some(begin)));
        canaries.moved(begin + QUIET);
        assert_eq!(canaries.due_at(), Some(begin + REFUSED), "also while records are taken");
        assert!(canaries.next(begin + REFUSED).is_some());
        canaries.acknowledged();
        assert_eq!(canaries.refused_since(), None);
    }

    #[test]
    fn a_later_leader_counts_on_above_all_before() {
        let now = Instant::now();
        let first = |epoch| Canaries::new(epoch, Refusals::default(), now).next(now + QUIET).unwrap();
        assert!(first(2) > first(1) && first(1) > 0);
        assert_eq!(first(2) - first(1), OF_A_LEADER);
    }
}
