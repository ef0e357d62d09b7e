//! What becomes of the orders, counted while they are placed.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;

use crate::latency::Latencies;
use crate::load::outcome::Failure;
use crate::load::report::{Lateness, LoadReport};

/// The kind of error of an order that was not sent at all.
const NOT_SENT: &str = "not sent in time";

/// What has become of the orders so far; shared by the tasks of one thread.
#[derive(Debug)]
pub(super) struct Tally(RefCell<Counts>);

#[derive(Debug)]
struct Counts {
    /// The steady clock measures; what the report says of this moment, in microseconds since 1970, compares with other
    /// processes.
    origin: Instant,
    origin_us: i64,
    /// Without the latencies.
    report: LoadReport,
    accept: Latencies,
    settle: Latencies,
    delay: Latencies,
}

impl Tally {
    pub(super) fn new() -> Result<Tally> {
        let (origin, us) = (Instant::now(), Timestamp::now().as_microsecond());
        let times = LoadReport {
            first_sent_us: us,
            first_accepted_us: us,
            last_accepted_us: us,
            ..Default::default()
        };
        let (accept, settle, delay) = (Latencies::new()?, Latencies::new()?, Latencies::new()?);
        Ok(Tally(RefCell::new(Counts { origin, origin_us: us, report: times, accept, settle, delay })))
    }

    /// An order is being sent that was due at that moment.
    pub(super) fn sent(&self, due: Instant, now: Instant) {
        let mut counts = self.0.borrow_mut();
        if counts.report.sent == 0 {
            counts.report.first_sent_us = counts.on_the_wall(now);
        }
        counts.report.sent += 1;
        counts.delay.record(now.saturating_duration_since(due));
    }

    /// An order is not sent any more.
    pub(super) fn not_sent(&self) {
        self.0.borrow_mut().error(NOT_SENT);
    }

    /// The answer to an order that was due at that moment is there, or will never be.
    pub(super) fn answered(&self, due: Instant, held: bool, outcome: Result<(), Failure>) {
        let mut counts = self.0.borrow_mut();
        let now = Instant::now();
        let accepted = outcome.as_ref().map_or_else(|failure| failure.accepted, |()| true);
        counts.report.accepted += u64::from(accepted);
        match outcome {
            // An answer that was held says nothing about when the order was accepted.
            Ok(()) if held => counts.settle.record(now - due),
            Ok(()) => {
                counts.report.last_accepted_us = counts.on_the_wall(now);
                if counts.accept.is_empty() {
                    counts.report.first_accepted_us = counts.report.last_accepted_us;
                }
                counts.accept.record(now - due);
            }
            Err(failure) => counts.error(&failure.kind),
        }
    }

    /// What became of the orders, and how late they were sent.
    pub(super) fn told(&self) -> (LoadReport, Lateness) {
        let counts = self.0.borrow();
        let (accept, settle) = (counts.accept.percentiles(), counts.settle.percentiles());
        let report = LoadReport { accept, settle, ..counts.report.clone() };
        (report, Lateness { delay: counts.delay.percentiles() })
    }
}

impl Counts {
    fn error(&mut self, kind: &str) {
        *self.report.errors.entry(kind.to_owned()).or_default() += 1;
    }

    fn on_the_wall(&self, moment: Instant) -> i64 {
        let since = moment.saturating_duration_since(self.origin).as_micros();
        self.origin_us + i64::try_from(since).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failure(kind: &str, accepted: bool) -> Result<(), Failure> {
        Err(Failure { kind: kind.to_owned(), answered: true, accepted })
    }

    #[test]
    fn latency_counts_from_when_the_order_was_due_not_from_when_it_was_sent() {
        let tally = Tally::new().unwrap();
        let due = Instant::now().checked_sub(Duration::from_millis(500)).unwrap();
        tally.sent(due, Instant::now());
        tally.answered(due, false, Ok(()));
        let (report, lateness) = tally.told();
        assert!(report.accept.p50_ms >= 499.0, "{report:?}");
        assert!(lateness.delay.p50_ms >= 499.0, "{lateness:?}");
    }

    #[test]
    fn what_fails_is_counted_by_kind_and_has_no_latency() {
        let tally = Tally::new().unwrap();
        let due = Instant::now();
        tally.answered(due, false, failure("503 OVERLOADED", false));
        tally.answered(due, false, failure("503 OVERLOADED", false));
        tally.answered(due, true, failure("REJECTED after waiting", true));
        tally.not_sent();
        let report = tally.told().0;
        let errors: Vec<_> = report.errors.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        assert_eq!(errors, [("503 OVERLOADED", 2), ("REJECTED after waiting", 1), ("not sent in time", 1)]);
        assert_eq!((report.accepted, report.accept.count, report.settle.count), (1, 0, 0));
    }

    #[test]
    fn an_answer_that_was_held_counts_as_settled_and_not_as_the_time_of_acceptance() {
        let tally = Tally::new().unwrap();
        tally.answered(Instant::now(), false, Ok(()));
        let before = tally.told().0;
        std::thread::sleep(Duration::from_millis(2));
        tally.answered(Instant::now(), true, Ok(()));
        let report = tally.told().0;
        assert_eq!((report.accepted, report.accept.count, report.settle.count), (2, 1, 1));
        assert_eq!(report.last_accepted_us, before.last_accepted_us);
    }
}
