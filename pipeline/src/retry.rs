//! When to try again: exponential backoff with full jitter. The only place that knows the backoff crate.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff as _;
use backoff::exponential::ExponentialBackoff;

/// The waits between attempts at one thing.
#[derive(Debug)]
pub struct Retry {
    schedule: ExponentialBackoff<backoff::SystemClock>,
    delay_max: Duration,
    attempts: u32,
}

impl Retry {
    /// Waits that double from `delay_first` to `delay_max`, each drawn between 0 and twice the nominal one,
    /// so that many who failed together do not come back together.
    #[must_use]
    pub fn forever(delay_first: Duration, delay_max: Duration) -> Retry {
        let schedule = ExponentialBackoffBuilder::new()
            .with_initial_interval(delay_first)
            .with_max_interval(delay_max)
            .with_multiplier(2.0)
            .with_randomization_factor(1.0)
            .with_max_elapsed_time(None)
            .build();
        Retry { schedule, delay_max, attempts: 0 }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        self.schedule.next_backoff().unwrap_or(self.delay_max).min(self.delay_max)
    }

    /// How many attempts have failed.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Starts over: an attempt has succeeded.
    pub fn succeeded(&mut self) {
        self.schedule.reset();
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_but_stay_below_the_cap_and_start_over_after_success() {
        let cap = Duration::from_millis(400);
        let mut retry = Retry::forever(Duration::from_millis(10), cap);
        assert!(retry.next_delay() <= Duration::from_millis(20));
        for _ in 0..50 {
            assert!(retry.next_delay() <= cap);
        }
        assert_eq!(retry.attempts(), 51);
        retry.succeeded();
        assert!(retry.next_delay() <= Duration::from_millis(20));
    }
}
