//! One phase of a run: a process places orders, and it is waited until they rest.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use ordermill_stack::{Child, Program, Progress};
use ordermill_store::orders;
use sqlx::PgPool;
use uuid::Uuid;

use crate::args::RunArgs;
use crate::cost::{Meter, Spent};
use crate::figures::Batches;
use crate::load::report::{Lateness, LoadReport};
use crate::machine::{Usage, Work};
use crate::server::checkpoint;
use crate::stack::{OwnStack, finish};

/// The file in the data directory that tells the load who orders what.
pub(crate) const SHOP_FILE: &str = "shop.json";
/// How often it is looked whether orders are still under way.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a load may send.
const SEND_WITHIN: Duration = Duration::from_secs(1_200);
/// How long after the last 202 the last order may take to come to rest.
const REST_WITHIN: Duration = Duration::from_secs(600);

/// How a phase places its orders.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    /// Names the phase, its idempotency keys and its log.
    pub(crate) label: String,
    pub(crate) orders: usize,
    /// Orders a second in the open loop; none in the closed one.
    pub(crate) rate: Option<f64>,
    /// Lines of every order; none for the usual mix.
    pub(crate) lines: Option<usize>,
}

/// A phase that is over.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) phase: Phase,
    pub(crate) load: LoadReport,
    pub(crate) lateness: Lateness,
    /// When no order was under way any more, in microseconds since 1970; none where that never was.
    pub(crate) rested_at_us: Option<i64>,
    /// From the start of the load to the last CONFIRMED.
    pub(crate) work: Work,
    /// From before the load until everything was told.
    pub(crate) spent: Spent,
    /// In the same time, by who made them.
    pub(crate) batches: BTreeMap<String, Batches>,
}

/// The stack under measurement.
pub(crate) struct Ground<'a> {
    pub(crate) args: &'a RunArgs,
    pub(crate) stack: OwnStack,
    pub(crate) pool: PgPool,
    pub(crate) meter: Meter,
    pub(crate) progress: Progress,
}

impl Phase {
    /// An open loop.
    pub(crate) fn open(label: impl Into<String>, rate: f64, within: Duration) -> Phase {
        // Rate and time are bounded.
        let orders = (within.as_secs_f64() * rate).clamp(1.0, 1e7) as usize;
        Phase { label: label.into(), orders, rate: Some(rate), lines: None }
    }

    /// A closed loop.
    pub(crate) fn closed(label: impl Into<String>, orders: usize) -> Phase {
        Phase { label: label.into(), orders, rate: None, lines: None }
    }

    fn title(&self) -> String {
        let Phase { label, orders, rate, .. } = self;
        match rate {
            None => format!("{label}: {orders} orders"),
            Some(rate) => format!("{label}: {orders} orders, {rate:.0} a second"),
        }
    }
}

impl Placed {
    /// Orders accepted a second, from the first send to the last 202.
    pub(crate) fn accepted_per_s(&self) -> f64 {
        self.accepted() / seconds(self.load.first_sent_us, self.load.last_accepted_us)
    }

    /// Orders settled a second, from the first 202 to when the last order was seen CONFIRMED.
    pub(crate) fn settled_per_s(&self) -> f64 {
        self.accepted() / self.settled_in_s()
    }

    /// From the first 202 to when the last order was seen CONFIRMED, in seconds.
    pub(crate) fn settled_in_s(&self) -> f64 {
        self.rested_at_us.map_or(f64::INFINITY, |rest| seconds(self.load.first_accepted_us, rest))
    }

    /// Orders that were accepted.
    pub(crate) fn accepted(&self) -> f64 {
        self.load.accepted as f64
    }
}

impl Ground<'_> {
    /// Has a load process place orders, and waits until they rest.
    pub(crate) async fn place(&self, phase: Phase) -> Result<Placed> {
        checkpoint(&self.pool).await?;
        let step = self.progress.begin(&phase.title());
        step.end(self.placed(phase).await)
    }

    async fn placed(&self, phase: Phase) -> Result<Placed> {
        let before = self.meter.read().await?;
        let then = Usage::now(self.stack.up.pid())?;
        let output = finish(self.load(&phase)?, "the load", SEND_WITHIN + REST_WITHIN).await?;
        let (load, lateness) = read(&output)?;
        let rested_at_us = until_rest(&self.pool).await?;
        let work = Usage::now(self.stack.up.pid())?.since(&then);
        let after = self.meter.read().await?;
        let (spent, batches) = (after.since(&before), after.figures.batches_since(&before.figures));
        Ok(Placed { phase, load, lateness, rested_at_us, work, spent, batches })
    }

    /// What the pipeline does while nobody orders.
    pub(crate) async fn at_rest(&self) -> Result<(Spent, Work)> {
        let time = Duration::from_secs(self.args.rest_seconds);
        let step = self.progress.begin(&format!("watching the pipeline at rest for {} s", time.as_secs()));
        let watch = async {
            let before = self.meter.read().await?;
            let then = Usage::now(self.stack.up.pid())?;
            tokio::time::sleep(time).await;
            let work = Usage::now(self.stack.up.pid())?.since(&then);
            Ok((self.meter.read().await?.since(&before), work))
        };
        step.end(watch.await)
    }

    fn load(&self, phase: &Phase) -> Result<Child> {
        let address = self.stack.file.api_url.strip_prefix("http://").context("the API has no address")?;
        let this_program = std::env::current_exe().context("can't find this program's own path")?;
        let log = self.stack.path(&format!("{}.log", phase.label));
        Ok(Program::new("the load", this_program, log)
            .args(["load", "--address", address, "--label", &phase.label, "--shop"])
            .arg(self.stack.path(SHOP_FILE))
            .args(["--orders", &phase.orders.to_string()])
            .args(["--connections", &self.args.concurrency.to_string()])
            .args(["--seed", &self.args.seed.to_string()])
            .args(["--within-s", &SEND_WITHIN.as_secs().to_string()])
            .args(phase.rate.map(|rate| format!("--rate={rate}")))
            .args(phase.lines.map(|lines| format!("--lines={lines}")))
            .start()?)
    }
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
fn seconds(from_us: i64, to_us: i64) -> f64 {
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
    fn an_open_loop_sends_as_many_orders_as_its_time_has_room_for() {
        assert_eq!(Phase::open("open", 20.0, Duration::from_secs(20)).orders, 400);
        assert_eq!(Phase::open("open", 0.1, Duration::from_secs(1)).orders, 1);
    }
}
