//! How much the log tells of what strangers can cause: a few of each kind in a minute, so that they can't fill it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many of a kind does the log tell of in a minute.
const TOLD_MAX: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// What was told of in a minute.
#[derive(Clone, Copy, Debug)]
struct Minute {
    began: Instant,
    told: u32,
    untold: u64,
}

/// What was told lately, by its kind, of which there are a few.
#[derive(Debug)]
pub(crate) struct Telling<K>(Mutex<BTreeMap<K, Minute>>);

impl<K> Default for Telling<K> {
    fn default() -> Telling<K> {
        Telling(Mutex::default())
    }
}

impl<K: Ord> Telling<K> {
    /// Whether the log tells of this one, and of how many of the kind it has not told since the last one.
    pub(crate) fn tell(&self, kind: K, now: Instant) -> Option<u64> {
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = minutes.entry(kind).or_insert(Minute { began: now, told: 0, untold: 0 });
        if now.saturating_duration_since(minute.began) >= MINUTE {
            *minute = Minute { began: now, told: 0, ..*minute };
        }
        if minute.told == TOLD_MAX {
            minute.untold += 1;
            return None;
        }
        minute.told += 1;
        Some(std::mem::take(&mut minute.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_kind_ten_a_minute_are_told_and_the_others_are_counted() {
        let telling = Telling::default();
        let start = Instant::now();
        for _ in 0..TOLD_MAX {
            assert_eq!(telling.tell("unknown", start), Some(0));
        }
        let within = start + MINUTE - Duration::from_millis(1);
        for _ in 0..3 {
            assert_eq!(telling.tell("unknown", within), None);
        }
        assert_eq!(telling.tell("revoked", within), Some(0), "each has its own");
        assert_eq!(telling.tell("unknown", start + MINUTE), Some(3));
        assert_eq!(telling.tell("unknown", start + MINUTE), Some(0));
    }
}
