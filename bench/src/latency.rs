//! Latencies, and what is told of them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longer ones count as this long, in microseconds: no request waits longer than that.
const LONGEST_US: u64 = 120_000_000;
/// Three digits are kept of each.
const DIGITS: u8 = 3;

/// Latencies, recorded to the microsecond.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

/// What is told of latencies, in milliseconds. Without any, all are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// Half of them were no longer than this.
    pub p50_ms: f64,
    /// Nine in ten.
    pub p90_ms: f64,
    /// 99 in 100.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// None in practice: the bounds are constants that the histogram takes.
    pub(crate) fn new() -> Result<Latencies> {
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, DIGITS).context("no room for latencies")?;
        Ok(Latencies(histogram))
    }

    /// Records one.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is told of them.
    #[must_use]
    pub(crate) fn percentiles(&self) -> Percentiles {
        let ms = |us: u64| us as f64 / 1_000.0;
        let at = |quantile| ms(self.0.value_at_quantile(quantile));
        Percentiles {
            count: self.0.len(),
            p50_ms: at(0.50),
            p90_ms: at(0.90),
            p99_ms: at(0.99),
            max_ms: ms(self.0.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::new().unwrap();
        for ms in 1..=1_000 {
            latencies.record(Duration::from_millis(ms));
        }
        let told = latencies.percentiles();
        assert_eq!(told.count, 1_000);
        for (told, expected) in
            [(told.p50_ms, 500.0), (told.p90_ms, 900.0), (told.p99_ms, 990.0), (told.max_ms, 1_000.0)]
        {
            assert!((told / expected - 1.0).abs() < 0.002, "{told} is not {expected}");
        }
    }

    #[test]
    fn one_slow_request_in_a_hundred_shows_in_the_longest_and_not_in_the_median() {
        let mut latencies = Latencies::new().unwrap();
        (0..99).for_each(|_| latencies.record(Duration::from_millis(2)));
        latencies.record(Duration::from_secs(5));
        let told = latencies.percentiles();
        assert!(told.p50_ms < 2.1 && told.p99_ms < 2.1 && told.max_ms > 4_990.0, "{told:?}");
    }

    #[test]
    fn what_is_out_of_range_counts_as_the_nearest() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_secs(3_600));
        let told = latencies.percentiles();
        assert_eq!(told.count, 2);
        assert!(told.max_ms >= 120_000.0, "{told:?}");
    }

    #[test]
    fn of_nothing_nothing_is_told() {
        assert_eq!(Latencies::new().unwrap().percentiles(), Percentiles::default());
    }
}
