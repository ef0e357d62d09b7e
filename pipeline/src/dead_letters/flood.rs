//! The brake: where too much of what is read can't be applied, something else is wrong than the messages, and the
//! worker stops before it has put a whole topic aside.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// What comes within so long is counted together.
const TOGETHER: SignedDuration = SignedDuration::from_secs(1);

/// When a worker stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloodLimit {
    /// It stops where more than this share of the messages in the window failed, from 0 to 1; 1 means never.
    pub share_max: f64,
    /// Fewer failures than this in the window never stop it.
    pub failures_min: u64,
    /// How long back is looked.
    pub window: Duration,
}

impl Default for FloodLimit {
    /// More than half, and 100 at least, in a minute.
    fn default() -> FloodLimit {
        FloodLimit { share_max: 0.5, failures_min: 100, window: Duration::from_secs(60) }
    }
}

/// What one member of a group has read lately.
#[derive(Debug)]
pub(crate) struct FloodGuard {
    limit: FloodLimit,
    batches: VecDeque<Counted>,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    at: Timestamp,
    messages: u64,
    failures: u64,
}

impl FloodGuard {
    pub(crate) fn new(limit: FloodLimit) -> FloodGuard {
        FloodGuard { limit, batches: VecDeque::new() }
    }

    /// Why the worker must stop, if this batch would be one too many.
    pub(crate) fn refuses(&mut self, now: Timestamp, messages: u64, failures: u64) -> Option<String> {
        if failures == 0 {
            return None;
        }
        self.forget_before(now);
        let messages = messages + self.batches.iter().map(|batch| batch.messages).sum::<u64>();
        let failures = failures + self.batches.iter().map(|batch| batch.failures).sum::<u64>();
        #[expect(clippy::cast_precision_loss, reason = "a window has far less than 2^52 messages")]
        let share = failures as f64 / messages.max(1) as f64;
        let floods = failures >= self.limit.failures_min.max(1) && share > self.limit.share_max;
        floods.then(|| {
            format!(
                "{failures} of the last {messages} messages in {} s can't be applied, more than {:.0} %",
                self.limit.window.as_secs(),
                self.limit.share_max * 100.0
            )
        })
    }

    /// Counts what was committed.
    pub(crate) fn count(&mut self, at: Timestamp, messages: u64, failures: u64) {
        self.forget_before(at);
        let is_recent = |last: &&mut Counted| at.duration_since(last.at) < TOGETHER;
        match self.batches.back_mut().filter(is_recent) {
            Some(last) => {
                (last.messages, last.failures) = (last.messages + messages, last.failures + failures)
            }
            None => self.batches.push_back(Counted { at, messages, failures }),
        }
    }

    /// Begins anew: somebody has looked at the failures.
    pub(crate) fn reset(&mut self) {
        self.batches.clear();
    }

    fn forget_before(&mut self, now: Timestamp) {
        let window = SignedDuration::try_from(self.limit.window).unwrap_or(SignedDuration::MAX);
        while self.batches.front().is_some_and(|batch| now.duration_since(batch.at) > window) {
            self.batches.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn guard() -> FloodGuard {
        FloodGuard::new(FloodLimit { share_max: 0.5, failures_min: 10, window: Duration::from_secs(60) })
    }

    #[test]
    fn a_few_failures_are_no_flood_whatever_their_share() {
        assert_eq!(guard().refuses(at(0), 9, 9), None);
        assert!(guard().refuses(at(0), 10, 10).is_some());
    }

    #[test]
    fn many_failures_among_many_more_messages_are_no_flood() {
        let mut guard = guard();
        guard.count(at(0), 1_000, 0);
        assert_eq!(guard.refuses(at(1), 500, 500), None);
        guard.count(at(1), 500, 500);
        assert_eq!(guard.refuses(at(2), 500, 500), None, "exactly the share is allowed");
        guard.count(at(2), 500, 500);
        let why = guard.refuses(at(3), 1, 1).unwrap();
        assert_eq!(why, "1001 of the last 2001 messages in 60 s can't be applied, more than 50 %");
    }

    #[test]
    fn what_was_longer_ago_than_the_window_does_not_count() {
        let mut guard = guard();
        guard.count(at(0), 9, 9);
        assert!(guard.refuses(at(60), 1, 1).is_some());
        assert_eq!(guard.refuses(at(61), 1, 1), None);
    }

    #[test]
    fn after_a_look_counting_begins_anew() {
        let mut guard = guard();
        guard.count(at(0), 9, 9);
        guard.reset();
        assert_eq!(guard.refuses(at(1), 1, 1), None);
    }

    #[test]
    fn a_share_of_one_never_stops() {
        let limit = FloodLimit { share_max: 1.0, ..FloodLimit::default() };
        assert_eq!(FloodGuard::new(limit).refuses(at(0), 500, 500), None);
    }
}
