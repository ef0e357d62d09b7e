//! One phase of a run: a process places orders, and it is waited until they rest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use ordermill_stack::{Child, Program, write_private};
use ordermill_store::orders;
use sqlx::PgPool;
use uuid::Uuid;

use crate::cost::{Meter, Reading, Spent};
use crate::figures::Batches;
use crate::latency::{Latencies, Percentiles};
use crate::load::HELD_EVERY;
use crate::load::report::{Lateness, LoadReport};
use crate::machine::{Usage, Work};
use crate::server::checkpoint;
use crate::shop::Shop;
use crate::stack::finish;

/// How often it is looked whether orders are still under way.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a load may send.
const SEND_WITHIN: Duration = Duration::from_secs(1_200);
/// How long after the last 202 the last order may take to come to rest.
pub(crate) const REST_WITHIN: Duration = Duration::from_secs(600);

/// How a phase places its orders.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    /// Names the phase, its idempotency keys and its log.
    pub(crate) label: String,
    pub(crate) orders: usize,
    pub(crate) connections: usize,
    /// Orders a second in the open loop; none in the closed one.
    pub(crate) rate: Option<f64>,
    /// Lines of every order; none for the usual mix.
    pub(crate) lines: Option<usize>,
    /// Who orders what.
    pub(crate) shop: &'static str,
    /// Whether anybody settles the orders.
    pub(crate) settles: bool,
}

/// The shop of which everybody orders everything.
pub(crate) const WHOLE_SHOP: &str = "shop.json";

/// A phase that is over.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) phase: Phase,
    pub(crate) load: LoadReport,
    pub(crate) lateness: Lateness,
    /// When no order was under way any more, in microseconds since 1970; none where that never was.
    pub(crate) rested_at_us: Option<i64>,
    /// From acceptance to the last visible change, as the database has it, of every order.
    pub(crate) settled_in_database: Percentiles,
    /// From the start of the load to the last CONFIRMED.
    pub(crate) work: Work,
    /// From before the load until everything was told.
    pub(crate) spent: Spent,
    /// In the same time, by who made them.
    pub(crate) batches: BTreeMap<String, Batches>,
}

/// An API with its database, on which orders are placed.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) api_url: String,
    pub(crate) pool: PgPool,
    pub(crate) meter: Meter,
    /// Where shops and logs are.
    pub(crate) directory: PathBuf,
    /// Chooses who orders what.
    pub(crate) seed: u64,
}

impl Phase {
    /// A closed loop.
    pub(crate) fn closed(label: impl Into<String>, orders: usize, connections: usize) -> Phase {
        let (label, shop) = (label.into(), WHOLE_SHOP);
        Phase { label, orders, connections, rate: None, lines: None, shop, settles: true }
    }

    pub(crate) fn title(&self) -> String {
        let Phase { orders, rate, connections, .. } = self;
        match rate {
            None => format!("{orders} orders over {connections} connections"),
            Some(rate) => format!("{orders} orders, {rate:.0} a second"),
        }
    }
}

impl Placed {
    /// Orders accepted a second, from the first send to the last 202.
    pub(crate) fn accepted_per_s(&self) -> f64 {
        self.accepted() / seconds(self.load.first_sent_us, self.load.last_accepted_us)
    }

    /// Orders settled a second, from the first 202 to when the last order was seen CONFIRMED; 0 where nobody settles them.
    pub(crate) fn settled_per_s(&self) -> f64 {
        self.settled_in_s().map_or(0.0, |seconds| self.accepted() / seconds)
    }

    /// From the first 202 to when the last order was seen CONFIRMED, in seconds.
    pub(crate) fn settled_in_s(&self) -> Option<f64> {
        self.rested_at_us.map(|rest| seconds(self.load.first_accepted_us, rest))
    }

    /// Orders that were accepted.
    pub(crate) fn accepted(&self) -> f64 {
        self.load.accepted as f64
    }
}

impl Ground {
    /// Writes down who orders what, for phases to name.
    pub(crate) fn keep(&self, name: &str, shop: &Shop) -> Result<()> {
        // It holds keys.
        Ok(write_private(&self.directory.join(name), &serde_json::to_string(shop)?)?)
    }

    /// Has a load process place orders, and waits until they rest.
    pub(crate) async fn place(&self, phase: Phase) -> Result<Placed> {
        checkpoint(&self.pool).await?;
        let before = self.meter.read().await?;
        let then = Usage::now()?;
        let (load, lateness) = self.load(&phase, &flags(&phase)).await?;
        let rested_at_us = if phase.settles { until_rest(&self.pool).await? } else { None };
        let work = Usage::now()?.since(&then);
        let after = self.meter.read().await?;
        let settled_in_database = self.settled_since(load.first_sent_us).await?;
        let (spent, batches) = between(&before, &after);
        Ok(Placed { phase, load, lateness, rested_at_us, settled_in_database, work, spent, batches })
    }

    /// What the pipeline does while nobody orders.
    pub(crate) async fn at_rest(&self, time: Duration) -> Result<(Spent, Work)> {
        let before = self.meter.read().await?;
        let then = Usage::now()?;
        tokio::time::sleep(time).await;
        let work = Usage::now()?.since(&then);
        Ok((self.meter.read().await?.since(&before), work))
    }

    /// Has a load process send what `flags` say, and waits until it ends.
    pub(crate) async fn load(&self, phase: &Phase, flags: &[String]) -> Result<(LoadReport, Lateness)> {
        let address = self.api_url.strip_prefix("http://").context("the API has no address")?;
        let this_program = std::env::current_exe().context("can't find this program's own path")?;
        let log = self.directory.join(format!("{}.log", phase.label));
        let load: Child = Program::new("the load", this_program, log)
            .args(["load", "--address", address, "--label", &phase.label, "--shop"])
            .arg(self.directory.join(phase.shop))
            .args(["--orders", &phase.orders.to_string()])
            .args(["--connections", &phase.connections.to_string()])
            .args(["--seed", &self.seed.to_string()])
            .args(["--within-s", &SEND_WITHIN.as_secs().to_string()])
            .args(flags)
            .start()?;
        read(&finish(load, "the load", SEND_WITHIN + REST_WITHIN).await?)
    }

    /// How long the orders took in the database that were placed since then. Ids begin with the time of their making.
    async fn settled_since(&self, since_us: i64) -> Result<Percentiles> {
        let since_ms = u128::try_from(since_us / 1_000).unwrap_or_default();
        let mut latencies = Latencies::new()?;
        for took_us in orders::settling_times(&self.pool, Uuid::from_u128(since_ms << 80)).await? {
            latencies.record(Duration::from_micros(took_us.unsigned_abs()));
        }
        Ok(latencies.percentiles())
    }
}

/// What was counted between two readings.
fn between(before: &Reading, after: &Reading) -> (Spent, BTreeMap<String, Batches>) {
    (after.since(before), after.figures.batches_since(&before.figures))
}

/// What the load is told beyond what every load is.
fn flags(phase: &Phase) -> Vec<String> {
    let held_every = if phase.settles { HELD_EVERY } else { 0 };
    let rate = phase.rate.map(|rate| format!("--rate={rate}"));
    let lines = phase.lines.map(|lines| format!("--lines={lines}"));
    [Some(format!("--held-every={held_every}")), rate, lines].into_iter().flatten().collect()
}

/// The last two lines that a load prints.
fn read(output: &str) -> Result<(LoadReport, Lateness)> {
    const MISSING: &str = "the load process did not report";
    let mut lines = output.lines().rev().filter(|line| line.starts_with('{'));
    let load = serde_json::from_str(lines.next().unwrap_or_default()).context(MISSING)?;
    Ok((load, serde_json::from_str(lines.next().unwrap_or_default()).context(MISSING)?))
}

/// Waits until no order is under way; when that was, or none where it takes too long.
async fn until_rest(pool: &PgPool) -> Result<Option<i64>> {
    let rest = async {
        let mut oldest = Uuid::nil();
        while let Some(order_id) = orders::oldest_unsettled(pool, oldest).await? {
            oldest = order_id;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(Timestamp::now().as_microsecond())
    };
    tokio::time::timeout(REST_WITHIN, rest).await.ok().transpose()
}

/// Between two moments in microseconds, at least one of them.
pub(crate) fn seconds(from_us: i64, to_us: i64) -> f64 {
    (to_us - from_us).max(1) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_read_by_its_last_two_lines() {
        let load = LoadReport { sent: 3, ..LoadReport::default() };
        let (delay, report) = (Lateness::default(), serde_json::to_string(&load).unwrap());
        let output = format!("a warning\n{}\n{report}\n", serde_json::to_string(&delay).unwrap());
        assert_eq!(read(&output).unwrap(), (load, delay));
        assert!(read(&report).is_err());
    }

    #[test]
    fn no_order_is_held_where_nobody_settles_it() {
        let closed = Phase::closed("x", 1, 1);
        assert_eq!(flags(&closed), ["--held-every=10"]);
        assert_eq!(flags(&Phase { settles: false, ..closed }), ["--held-every=0"]);
    }
}
