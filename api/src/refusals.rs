//! Requests that carry no valid API key: all are counted by what was wrong, and of some the log tells.

use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::keys::mark;
use crate::metrics::ReasonLabel;
use crate::problem::{Code, Problem};
use crate::telling::Telling;

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

/// Counts the requests that are refused, and tells of some.
#[derive(Debug)]
pub(crate) struct Refusals {
    counts: Family<ReasonLabel, Counter>,
    telling: Telling<Reason>,
}

impl Refusals {
    /// None yet.
    pub(crate) fn new(counts: Family<ReasonLabel, Counter>) -> Refusals {
        Refusals { counts, telling: Telling::default() }
    }

    /// The answer to a request without a valid key. Of the key that it carries, the log has no more than the first digits of
    /// the hash.
    pub(crate) fn refuse(&self, reason: Reason, key: Option<&str>) -> Problem {
        self.counts.get_or_create(&ReasonLabel { reason: reason.word() }).inc();
        if let Some(untold) = self.telling.tell(reason, Instant::now()) {
            let key_hash = key.map(mark).unwrap_or_default();
            let reason = reason.word();
            tracing::warn!(reason, %key_hash, untold, "a request without a valid API key was refused");
        }
        Problem::new(Code::Unauthenticated, reason.detail())
    }
}
