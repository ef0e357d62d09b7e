//! Whether a process that is a member of a group stays one, or joins it again and again. A state machine: it is told what happens.

use std::time::{Duration, Instant};

/// Who has been a member for so long has not joined in vain.
const JOINED_FOR_GOOD: Duration = Duration::from_secs(10);

/// How a process fares as a member of a group.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// Since when it has had its part of the group's work.
    since: Option<Instant>,
    /// It has had to join anew, and has neither stayed nor applied anything since.
    has_failed: bool,
}

impl Membership {
    /// It has to join anew. Answers whether it had to before, and has neither stayed nor applied anything since.
    pub(super) fn ends(&mut self) -> bool {
        self.since = None;
        std::mem::replace(&mut self.has_failed, true)
    }

    /// It has its part of the group's work. Answers whether it has joined for good.
    pub(super) fn is_for_good(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let lasts = now.saturating_duration_since(since) >= JOINED_FOR_GOOD;
        self.has_failed &= !lasts;
        lasts
    }

    /// It has applied something.
    pub(super) fn works(&mut self) {
        self.has_failed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_joins_anew_again_and_again_is_told_apart_from_who_does_so_once() {
        let (mut membership, mut now) = (Membership::default(), Instant::now());
        assert!(!membership.is_for_good(now) && !membership.ends(), "once is nothing");
        for _ in 0..5 {
            assert!(!membership.is_for_good(now));
            now += JOINED_FOR_GOOD - SECOND;
            assert!(!membership.is_for_good(now) && membership.ends());
            now += SECOND;
        }
        assert!(!membership.is_for_good(now));
        now += JOINED_FOR_GOOD;
        assert!(membership.is_for_good(now) && !membership.ends(), "it had stayed");
    }

    #[test]
    fn who_applies_something_has_not_joined_in_vain() {
        let mut membership = Membership::default();
        assert!(!membership.ends() && membership.ends());
        membership.works();
        assert!(!membership.ends());
    }
}
