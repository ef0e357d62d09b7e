//! What can be measured, by name, in which order, and how long it takes.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use crate::args::RunArgs;

/// Connections of the second closed loop.
pub(crate) const CONNECTIONS_MANY: usize = 256;
/// What every loop takes beside its orders, in seconds: a checkpoint, and two readings of all counts.
pub(crate) const READINGS_S: f64 = 7.0;
/// What a machine of two processors does in a second, about: only for saying how long is left.
pub(crate) const SETTLED_PER_S: f64 = 1_800.0;
const ACCEPTED_PER_S: f64 = 7_000.0;
pub(crate) const MADE_PER_S: f64 = 1_500.0;
const REPLAYED_PER_S: f64 = 60_000.0;
const VERIFIED_PER_S: f64 = 10_000.0;
const EVENTS_PER_ORDER: f64 = 9.0;

/// Something that can be measured. They are measured in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measurement {
    /// T: what PostgreSQL itself does, before and after all others.
    Pgbench,
    /// What the pipeline does while nobody orders.
    Rest,
    /// 20 orders a second.
    #[value(name = "rate-20")]
    #[serde(rename = "rate-20")]
    Rate20,
    /// 100 orders a second.
    #[value(name = "rate-100")]
    #[serde(rename = "rate-100")]
    Rate100,
    /// 300 orders a second.
    #[value(name = "rate-300")]
    #[serde(rename = "rate-300")]
    Rate300,
    /// As fast as it goes over 64 connections.
    #[value(name = "closed-64")]
    #[serde(rename = "closed-64")]
    Closed64,
    /// As fast as it goes over 256 connections.
    #[value(name = "closed-256")]
    #[serde(rename = "closed-256")]
    Closed256,
    /// Half of what the closed loop has settled.
    HalfRate,
    /// All orders on one product.
    HotProduct,
    /// All orders of one user.
    HotUser,
    /// Orders of 50 lines.
    LongOrders,
    /// Claims of a coupon of which there are too few, to the last decision.
    Claims,
    /// Kafka alone: from sending a record to having read it.
    RoundTrip,
    /// An API without relay and workers, over 64 and over 256 connections.
    AcceptAlone,
    /// The relay on the orders that were accepted alone, against a bare producer with the same records.
    Relay,
    /// The log of all this, read and replayed.
    Replay,
}

use Measurement::{
    AcceptAlone, Claims, Closed64, Closed256, HalfRate, HotProduct, HotUser, LongOrders, Pgbench, Rate20,
    Rate100, Rate300, Relay, Replay, Rest, RoundTrip,
};

impl Measurement {
    /// Its name, as `--only` takes it.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Orders a second, of the open loops whose rate is fixed.
    pub(crate) fn rate(self) -> Option<f64> {
        match self {
            Rate20 => Some(20.0),
            Rate100 => Some(100.0),
            Rate300 => Some(300.0),
            _ => None,
        }
    }

    /// Whether it places orders in the shop.
    pub(crate) fn places_orders(self) -> bool {
        matches!(
            self,
            Rate20 | Rate100 | Rate300 | Closed64 | Closed256 | HalfRate | HotProduct | HotUser | LongOrders
        )
    }

    /// How long each of its steps takes, in seconds, about.
    fn estimates(self, args: &RunArgs) -> Vec<f64> {
        let closed = |orders: usize| READINGS_S + orders as f64 / SETTLED_PER_S;
        let open = |rate: f64| READINGS_S + open_orders(args, rate) as f64 / rate;
        let one = match self {
            // Filling, before, after.
            Pgbench => return vec![4.0, args.seconds as f64, args.seconds as f64],
            AcceptAlone => {
                let made = (args.users * 2 + args.products) as f64 / MADE_PER_S;
                let accepted = READINGS_S + args.alone_orders as f64 / ACCEPTED_PER_S;
                return vec![4.0 + made, accepted, accepted];
            }
            Rest => READINGS_S + args.rest_seconds as f64,
            Rate20 | Rate100 | Rate300 => open(self.rate().unwrap_or(1.0)),
            Closed64 | Closed256 => closed(args.orders),
            HalfRate => open(args.rate.unwrap_or(SETTLED_PER_S / 2.0)),
            HotProduct | HotUser => closed(args.hot_orders),
            LongOrders => READINGS_S + args.long_orders as f64 / SETTLED_PER_S * 5.0,
            Claims => args.claimants as f64 * (1.0 / MADE_PER_S + 1.0 / SETTLED_PER_S),
            RoundTrip => 2.0 + args.round_trips as f64 / 400.0,
            Relay => 4.0 + args.alone_orders as f64 / ACCEPTED_PER_S,
            Replay => 2.0 + (2.0 * args.orders as f64) * EVENTS_PER_ORDER / REPLAYED_PER_S,
        };
        vec![one]
    }
}

/// How many orders an open loop sends: enough for its time, and for percentiles that mean something.
pub(crate) fn open_orders(args: &RunArgs, rate: f64) -> usize {
    // Rate and time are bounded.
    let of_time = (args.open_seconds as f64 * rate).clamp(1.0, 1e7) as usize;
    of_time.max(args.open_orders)
}

/// What is measured in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan(BTreeSet<Measurement>);

impl Plan {
    /// Everything, or what was named and what that needs: what an order costs at a rate is told less what the same time
    /// costs at rest, half of a rate takes the rate, and the relay finds what was accepted alone.
    ///
    /// # Errors
    /// Where a rate is out of range.
    pub(crate) fn of(args: &RunArgs) -> Result<Plan> {
        if args.rate.is_some_and(|rate| !(0.1..=100_000.0).contains(&rate)) {
            bail!("--rate must be between 0.1 and 100000 orders a second");
        }
        let mut plan: BTreeSet<Measurement> = if args.only.is_empty() {
            Measurement::value_variants().iter().copied().collect()
        } else {
            args.only.iter().copied().collect()
        };
        if plan.contains(&HalfRate) && args.rate.is_none() {
            plan.insert(Closed64);
        }
        if plan.contains(&Relay) {
            plan.insert(AcceptAlone);
        }
        if [Rate20, Rate100, Rate300, HalfRate].iter().any(|open| plan.contains(open)) {
            plan.insert(Rest);
        }
        Ok(Plan(plan))
    }

    /// Whether it is measured.
    pub(crate) fn has(&self, measurement: Measurement) -> bool {
        self.0.contains(&measurement)
    }

    /// Whether anybody orders in the shop.
    pub(crate) fn places_orders(&self) -> bool {
        self.0.iter().any(|measurement| measurement.places_orders())
    }

    /// The names of what is done, with the seconds that each takes; what is done in several steps is there several times.
    pub(crate) fn steps(&self, args: &RunArgs) -> Vec<(String, f64)> {
        let made = (args.users * 2 + args.products) as f64 / MADE_PER_S;
        let warm_up = READINGS_S + args.warm_up as f64 / SETTLED_PER_S;
        let first = [("start", 12.0), ("shop", made), ("warm-up", warm_up)];
        let needed = |name: &str| name == "start" || self.places_orders();
        let first = first.into_iter().filter(|(name, _)| needed(name)).map(|(name, s)| (name.to_owned(), s));
        let measured = self.0.iter().flat_map(|measurement| {
            measurement.estimates(args).into_iter().map(move |seconds| (measurement.name(), seconds))
        });
        let placed: f64 = if self.places_orders() { 3.0 * args.orders as f64 } else { 0.0 };
        let alone = self.has(AcceptAlone).then_some(3.0 + 2.0 * args.alone_orders as f64 / VERIFIED_PER_S);
        let verified = alone.into_iter().chain([3.0 + placed / VERIFIED_PER_S]);
        let last = verified.map(|seconds| ("verify".to_owned(), seconds)).chain([("stop".to_owned(), 3.0)]);
        first.chain(measured).chain(last).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: RunArgs,
    }

    fn args(flags: &[&str]) -> RunArgs {
        Cli::parse_from(["run"].iter().chain(flags)).args
    }

    fn plan(flags: &[&str]) -> Vec<Measurement> {
        Plan::of(&args(flags)).unwrap().0.into_iter().collect()
    }

    #[test]
    fn everything_is_measured_unless_something_is_named() {
        assert_eq!(plan(&[]), Measurement::value_variants());
        assert_eq!(plan(&["--only", "closed-64,claims"]), [Closed64, Claims]);
    }

    #[test]
    fn what_is_named_brings_what_it_needs() {
        assert_eq!(plan(&["--only", "relay"]), [AcceptAlone, Relay]);
        assert_eq!(plan(&["--only", "rate-20"]), [Rest, Rate20]);
        assert_eq!(plan(&["--only", "half-rate"]), [Rest, Closed64, HalfRate]);
        assert_eq!(plan(&["--only", "half-rate", "--rate", "500"]), [Rest, HalfRate]);
    }

    #[test]
    fn a_rate_that_can_not_be_sent_is_refused() {
        for rate in ["0", "-1", "1e9", "NaN"] {
            assert!(Plan::of(&args(&[&format!("--rate={rate}")])).is_err(), "{rate}");
        }
    }

    #[test]
    fn names_are_the_same_as_flag_and_in_json() {
        for measurement in Measurement::value_variants() {
            assert_eq!(serde_json::to_value(measurement).unwrap(), measurement.name());
        }
    }

    #[test]
    fn the_whole_run_fits_in_ten_minutes() {
        let args = args(&[]);
        let seconds: f64 = Plan::of(&args).unwrap().steps(&args).iter().map(|(_, seconds)| seconds).sum();
        assert!(seconds < 540.0, "{seconds}");
    }

    #[test]
    fn an_open_loop_sends_for_its_time_and_at_least_so_many_orders() {
        let args = args(&["--open-seconds", "20", "--open-orders", "1000"]);
        assert_eq!(open_orders(&args, 20.0), 1_000);
        assert_eq!(open_orders(&args, 300.0), 6_000);
    }
}
