//! How often the database is asked for what nobody has told of.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The pause between two looks while other processes commit.
const PAUSE: Duration = Duration::from_millis(20);
/// The same while only this process does, which tells of it.
const PAUSE_IF_TOLD: Duration = Duration::from_millis(250);
/// How long after other processes have committed something they may do so again at any time.
const OTHERS_FOR: Duration = Duration::from_secs(10);

/// Who commits, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// This process has told of something.
    is_told: bool,
    /// What the last look has found before this process told of it. The word may be on its way.
    untold: BTreeSet<i64>,
    /// When something was found of which it never told.
    others_at: Option<Instant>,
    looked_at: Option<Instant>,
}

impl Pace {
    /// This process tells of that number.
    pub(super) fn told(&mut self, number: i64) {
        self.is_told = true;
        self.untold.remove(&number);
    }

    /// A look begins: what the last one has found has been told since, or never is.
    pub(super) fn looks(&mut self, now: Instant) {
        if !std::mem::take(&mut self.untold).is_empty() {
            self.others_at = Some(now);
        }
        self.looked_at = Some(now);
    }

    /// A look has found numbers that were not told.
    pub(super) fn found(&mut self, untold: Vec<i64>) {
        self.untold.extend(untold);
    }

    /// When the next look is due.
    pub(super) fn due(&self, now: Instant) -> Instant {
        let is_enough = self.is_told
            && self.untold.is_empty()
            && self.others_at.is_none_or(|at| now.saturating_duration_since(at) > OTHERS_FOR);
        let pause = if is_enough { PAUSE_IF_TOLD } else { PAUSE };
        self.looked_at.map_or(now, |at| at + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_enough_to_look_seldom_while_all_that_is_committed_is_told() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.due(now), now, "at once");
        pace.looks(now);
        assert_eq!(pace.due(now), now + PAUSE, "before anything was told");
        pace.told(1);
        assert_eq!(pace.due(now), now + PAUSE_IF_TOLD);
        // A look was faster than the word.
        pace.found(vec![2]);
        pace.told(2);
        pace.looks(now);
        assert_eq!(pace.due(now), now + PAUSE_IF_TOLD);
        // The word never came.
        pace.found(vec![3]);
        pace.looks(now);
        assert_eq!(pace.due(now), now + PAUSE);
        assert_eq!(pace.due(now + OTHERS_FOR * 2), now + PAUSE_IF_TOLD);
    }
}
