//! Whether other processes commit what this one is not told of, as far as looks have shown it.
//!
//! What this process commits is told to it. Whoever must hear of what others commit as well looks for it: often where looks find
//! what was never told, seldom where all is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long after others have committed something they may do so again at any time.
const OTHERS_FOR: Duration = Duration::from_secs(10);

/// How long the word of something may be on its way.
const WORD_MAX: Duration = Duration::from_millis(250);
/// How much is remembered of what was not told.
const UNTOLD_MAX: usize = 1_000;

/// Who commits things of that kind, as far as it is known.
#[derive(Debug)]
pub struct Others<K> {
    /// This process has told of something.
    is_told: bool,
    /// What looks have found before this process told of it, and when. The word may be on its way.
    untold: BTreeMap<K, Instant>,
    /// When something was found of which it never told.
    at: Option<Instant>,
}

impl<K> Default for Others<K> {
    fn default() -> Others<K> {
        Others { is_told: false, untold: BTreeMap::new(), at: None }
    }
}

impl<K: Ord> Others<K> {
    /// The word of that has come from this process.
    pub fn word(&mut self, of: &K) {
        self.untold.remove(of);
    }

    /// This process has told of what is looked for.
    pub fn told(&mut self) {
        self.is_told = true;
    }

    /// A look begins: what one has found long ago has been told since, or never is.
    pub fn look(&mut self, now: Instant) {
        let known = self.untold.len();
        self.untold.retain(|_, found_at| now.saturating_duration_since(*found_at) < WORD_MAX);
        if self.untold.len() < known {
            self.at = Some(now);
        }
    }

    /// A look has found what was not told. A few of it say enough.
    pub fn found(&mut self, untold: impl IntoIterator<Item = K>, now: Instant) {
        let room = UNTOLD_MAX.saturating_sub(self.untold.len());
        self.untold.extend(untold.into_iter().take(room).map(|of| (of, now)));
    }

    /// What was told may not have been all.
    pub fn doubt(&mut self) {
        self.is_told = false;
    }

    /// Whether it is enough to look seldom.
    #[must_use]
    pub fn is_all_told(&self, now: Instant) -> bool {
        let is_quiet = self.at.is_none_or(|at| now.saturating_duration_since(at) > OTHERS_FOR);
        self.is_told && self.untold.is_empty() && is_quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_enough_to_look_seldom_while_all_that_is_committed_is_told() {
        let (mut others, now) = (Others::default(), Instant::now());
        assert!(!others.is_all_told(now), "before anything was told");
        others.told();
        assert!(others.is_all_told(now));
        // A look was faster than the word.
        others.found([2], now);
        others.look(now + WORD_MAX / 2);
        assert!(!others.is_all_told(now), "nobody knows yet");
        others.word(&2);
        others.look(now + WORD_MAX);
        assert!(others.is_all_told(now));
        // The word never came.
        others.found([3], now - WORD_MAX);
        others.look(now);
        assert!(!others.is_all_told(now + OTHERS_FOR));
        assert!(others.is_all_told(now + OTHERS_FOR * 2));
        others.doubt();
        assert!(!others.is_all_told(now + OTHERS_FOR * 2));
    }
}
