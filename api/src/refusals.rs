//! Requests that carry no valid API key: all are counted by what was wrong, and of some the log tells.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::keys::mark;
use crate::metrics::ReasonLabel;
use crate::problem::{Code, Problem};

/// So many requests in a minute does the log tell of for each reason; whoever guesses keys must not fill it.
const TOLD_MAX: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// There is no `Authorization`.
    Missing,
    /// It holds nothing that could be a key.
    Malformed,
    /// The key is nobody's.
    Unknown,
    /// The key's time is over.
    Expired,
    /// The key was revoked or replaced, or its user erased.
    Revoked,
}

impl Reason {
    /// The word for it in metrics and in the log.
    fn word(self) -> &'static str {
        match self {
            Reason::Missing => "missing",
            Reason::Malformed => "malformed",
            Reason::Unknown => "unknown",
            Reason::Expired => "expired",
            Reason::Revoked => "revoked",
        }
    }

    /// What the client is told. What became of a key is for operators.
    fn detail(self) -> &'static str {
        match self {
            Reason::Missing | Reason::Malformed => {
                "send your API key in the header: Authorization: Bearer <api key>"
            }
            Reason::Unknown | Reason::Expired | Reason::Revoked => {
                "this API key is unknown, expired or revoked"
            }
        }
    }
}

/// What was told of in a minute.
#[derive(Clone, Copy, Debug)]
struct Minute {
    began: Instant,
    told: u32,
    untold: u64,
}

/// Counts the requests that are refused, and tells of some.
#[derive(Debug)]
pub(crate) struct Refusals {
    counts: Family<ReasonLabel, Counter>,
    minutes: Mutex<BTreeMap<Reason, Minute>>,
}

impl Refusals {
    /// None yet.
    pub(crate) fn new(counts: Family<ReasonLabel, Counter>) -> Refusals {
        Refusals { counts, minutes: Mutex::default() }
    }

    /// The answer to a request without a valid key. Of the key that it carries, the log has no more than the first digits of
    /// the hash.
    pub(crate) fn refuse(&self, reason: Reason, key: Option<&str>) -> Problem {
        self.counts.get_or_create(&ReasonLabel { reason: reason.word() }).inc();
        if let Some(untold) = self.tell(reason, Instant::now()) {
            let key_hash = key.map(mark).unwrap_or_default();
            let reason = reason.word();
            tracing::warn!(reason, %key_hash, untold, "a request without a valid API key was refused");
        }
        Problem::new(Code::Unauthenticated, reason.detail())
    }

    /// Whether the log tells of this one, and of how many it has not told since the last one.
    fn tell(&self, reason: Reason, now: Instant) -> Option<u64> {
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = minutes.entry(reason).or_insert(Minute { began: now, told: 0, untold: 0 });
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
    fn of_each_reason_ten_a_minute_are_told_and_the_others_are_counted() {
        let refusals = Refusals::new(Family::default());
        let start = Instant::now();
        for _ in 0..TOLD_MAX {
            assert_eq!(refusals.tell(Reason::Unknown, start), Some(0));
        }
        let within = start + MINUTE - Duration::from_millis(1);
        for _ in 0..3 {
            assert_eq!(refusals.tell(Reason::Unknown, within), None);
        }
        assert_eq!(refusals.tell(Reason::Revoked, within), Some(0), "each has its own");
        assert_eq!(refusals.tell(Reason::Unknown, start + MINUTE), Some(3));
        assert_eq!(refusals.tell(Reason::Unknown, start + MINUTE), Some(0));
    }
}
