//! Allowances of requests: each who asks has one, and it fills again by itself.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use jiff::SignedDuration;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use uuid::Uuid;

/// How many requests a rate has at most.
const COUNT_MAX: u32 = 1_000_000;
/// In how long, at least and at most.
const PER_MIN: Duration = Duration::from_secs(1);
const PER_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How many are remembered at once, of each kind of allowance.
const REMEMBERED_MAX: u64 = 100_000;

/// How many requests in how long: so many at once, and each of them again once its part of that time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(Quota);

/// A text that is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give how many requests in how long, like 600/30s: 1 to {} in 1s to 24h; or none", COUNT_MAX)]
pub struct NotARate;

impl Rate {
    /// So many in that time; `None` where it is out of range.
    #[must_use]
    pub fn new(count: u32, per: Duration) -> Option<Rate> {
        let count = NonZeroU32::new(count).filter(|count| count.get() <= COUNT_MAX)?;
        if !(PER_MIN..=PER_MAX).contains(&per) {
            return None;
        }
        Quota::with_period(per / count.get()).map(|quota| Rate(quota.allow_burst(count)))
    }
}

impl FromStr for Rate {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Rate, NotARate> {
        let (count, per) = text.split_once('/').ok_or(NotARate)?;
        let per: SignedDuration = per.parse().map_err(|_| NotARate)?;
        let per = Duration::try_from(per).map_err(|_| NotARate)?;
        Rate::new(count.parse().map_err(|_| NotARate)?, per).ok_or(NotARate)
    }
}

/// Whose allowance it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Payer {
    /// All who come from an address.
    Address(IpAddr),
    /// A customer, whichever key is shown.
    Customer(Uuid),
}

/// The allowances of those who asked lately. Whoever has asked for nothing for as long as an allowance takes to fill is forgotten and misses nothing.
/// Where there are too many, those are forgotten first who have asked for nothing for the longest: they begin anew with a full
/// allowance, and whoever goes on asking is remembered. So nobody is refused since there are many others.
#[derive(Clone)]
struct Recent(Cache<Payer, Arc<InMemoryState>>);

impl Recent {
    fn new(remembered_max: u64, rate: Rate) -> Recent {
        let states = Cache::builder().max_capacity(remembered_max).eviction_policy(EvictionPolicy::lru());
        Recent(states.time_to_idle(rate.0.burst_size_replenished_in()).build())
    }
}

impl StateStore for Recent {
    type Key = Payer;

    fn measure_and_replace<T, F, E>(&self, payer: &Payer, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let state = self.0.get_with_by_ref(payer, Arc::default);
        state.measure_and_replace(&NotKeyed::NonKey, measure)
    }
}

/// An allowance for each payer, all of one rate.
pub(super) struct Allowance<C: Clock>(RateLimiter<Payer, Recent, C, NoOpMiddleware<C::Instant>>);

impl<C: Clock> Allowance<C> {
    /// Full ones.
    pub(super) fn new(rate: Rate, clock: C) -> Allowance<C> {
        Allowance::of(Recent::new(REMEMBERED_MAX, rate), rate, clock)
    }

    fn of(recent: Recent, rate: Rate, clock: C) -> Allowance<C> {
        Allowance(RateLimiter::new(rate.0, recent, clock))
    }

    /// Takes one request from a payer's allowance.
    ///
    /// # Errors
    /// Where there is none left: how long until there is one again.
    pub(super) fn draw(&self, payer: Payer) -> Result<(), Duration> {
        let drawn = self.0.check_key(&payer);
        drawn.map_err(|not_until| not_until.wait_time_from(self.0.clock().now()))
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const MOMENT: Duration = Duration::from_nanos(1);

    fn customer(number: u128) -> Payer {
        Payer::Customer(Uuid::from_u128(number))
    }

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    /// So many an hour.
    fn allowance(count: u32) -> (Allowance<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Allowance::new(Rate::new(count, HOUR).unwrap(), clock.clone()), clock)
    }

    #[test]
    fn an_allowance_is_spent_at_once_or_bit_by_bit_and_whoever_waits_as_told_is_served() {
        let (allowance, clock) = allowance(3);
        for _ in 0..3 {
            assert_eq!(allowance.draw(customer(1)), Ok(()));
        }
        assert_eq!(allowance.draw(customer(1)), Err(HOUR / 3));
        clock.advance(HOUR / 3 - MOMENT);
        assert_eq!(allowance.draw(customer(1)), Err(MOMENT), "asking too early costs nothing");
        clock.advance(MOMENT);
        assert_eq!(allowance.draw(customer(1)), Ok(()));
        assert_eq!(allowance.draw(customer(1)), Err(HOUR / 3));
    }

    #[test]
    fn an_allowance_that_was_left_alone_is_full_and_no_fuller() {
        let (allowance, clock) = allowance(2);
        assert_eq!(allowance.draw(customer(1)), Ok(()));
        clock.advance(24 * HOUR);
        for _ in 0..2 {
            assert_eq!(allowance.draw(customer(1)), Ok(()));
        }
        assert!(allowance.draw(customer(1)).is_err());
    }

    #[test]
    fn nobody_pays_for_another() {
        let (allowance, _) = allowance(1);
        let address = |last| Payer::Address(IpAddr::from([192, 0, 2, last]));
        for payer in [customer(1), customer(2), address(1), address(2)] {
            assert_eq!(allowance.draw(payer), Ok(()));
            assert!(allowance.draw(payer).is_err());
        }
    }

    #[test]
    fn of_many_who_ask_only_some_are_remembered_and_among_them_whoever_goes_on_asking() {
        const REMEMBERED: u64 = 10;
        let rate = Rate::new(1, HOUR).unwrap();
        let recent = Recent::new(REMEMBERED, rate);
        let allowance = Allowance::of(recent.clone(), rate, FakeRelativeClock::default());
        let persistent = customer(0);
        assert_eq!(allowance.draw(persistent), Ok(()));
        for number in 1..=1_000 {
            assert_eq!(allowance.draw(customer(number)), Ok(()), "whoever is new is served");
            assert!(allowance.draw(persistent).is_err());
            recent.0.run_pending_tasks();
            assert!(recent.0.entry_count() <= REMEMBERED, "{}", recent.0.entry_count());
        }
        assert_eq!(allowance.draw(customer(1)), Ok(()), "forgotten, so it begins anew");
    }

    #[test]
    fn a_rate_is_a_number_of_requests_in_a_time() {
        for (text, count, seconds) in
            [("600/30s", 600, 30), ("1/1s", 1, 1), ("1000000/24h", 1_000_000, 86_400)]
        {
            assert_eq!(
                Ok(rate(text)),
                Rate::new(count, Duration::from_secs(seconds)).ok_or(NotARate),
                "{text}"
            );
        }
        assert_eq!(rate("60/1m"), rate("60/60s"));
        for wrong in [
            "",
            "600",
            "600/",
            "/30s",
            "0/1s",
            "-1/1s",
            "1.5/1s",
            "1000001/1s",
            "1/0s",
            "1/999ms",
            "1/-1s",
            "1/24h 1s",
            "1/30",
            "1/1s/1s",
            "none",
        ] {
            assert_eq!(wrong.parse::<Rate>(), Err(NotARate), "{wrong:?}");
        }
        assert!(NotARate.to_string().contains("600/30s: 1 to 1000000 in 1s to 24h"));
    }
}
