//! `ordermill-bench long`: many orders of many users, portion by portion, and whether memory and speed stay as they are.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use jiff::Timestamp;
use ordermill::verify;
use ordermill_store::orders;
use serde::Serialize;

use crate::args::LongArgs;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::phase::{Ground, Phase, Placed, WHOLE_SHOP};
use crate::plan::{MADE_PER_S, READINGS_S, SETTLED_PER_S};
use crate::report::table::{grouped, one, table};
use crate::report::{OrderCounts, Verified, Versions};
use crate::run::{start, stop, versions};
use crate::seen::Seen;
use crate::setup;
use crate::stack::OwnStack;
use crate::timetable::{Timetable, Took};

/// Memory is flat where the second half of the orders adds less than this share.
const FLAT_BELOW: f64 = 0.05;

/// What a long run has shown.
#[derive(Clone, Debug, Serialize)]
pub struct LongReport {
    /// Whether nothing went wrong: no error, every order CONFIRMED, `verify` content.
    pub ok: bool,
    /// When it was measured.
    pub at: Timestamp,
    /// With what.
    pub parameters: LongArgs,
    /// Of what.
    pub versions: Versions,
    /// On what.
    pub machine: Machine,
    /// How long each step has taken.
    pub steps: Vec<Took>,
    /// What each portion has shown.
    pub portions: Vec<Portion>,
    /// Memory of the process that runs API, relay and workers, after all, in megabytes.
    pub rss_mb: f64,
    /// What the second half of the orders has added to it, as a share.
    pub rss_growth: f64,
    /// Whether that is next to nothing.
    pub rss_is_flat: bool,
    /// Orders of all portions.
    pub orders: OrderCounts,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
    /// What `ordermill verify` said at the end.
    pub verify: Verified,
}

/// A part of the orders.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Portion {
    /// Orders up to its end.
    pub orders: u64,
    /// Orders accepted a second.
    pub accepted_per_s: f64,
    /// Orders settled a second.
    pub settled_per_s: f64,
    /// Half of the orders that were held settled within this.
    pub settle_p50_ms: f64,
    /// 99 in 100 of them.
    pub settle_p99_ms: f64,
    /// Memory of the process that runs API, relay and workers, once they rest, in megabytes.
    pub rss_mb: f64,
}

/// Places many orders on a stack of its own.
///
/// # Errors
/// Where something could not be measured at all.
pub async fn measure(args: &LongArgs) -> Result<LongReport> {
    let timetable = Timetable::new(steps(args));
    let (stack, ground) = start(&timetable, &args.stack, args.seed).await?;
    let report = portions(args, &timetable, &stack, &ground).await;
    let stopped = stop(&timetable, stack, ground).await;
    // What went wrong first is the more telling.
    let mut report = report?;
    stopped?;
    report.steps = timetable.told();
    Ok(report)
}

async fn portions(
    args: &LongArgs,
    timetable: &Timetable,
    stack: &OwnStack,
    ground: &Ground,
) -> Result<LongReport> {
    let what = format!("{} users and {} products", args.users, args.products);
    let shop = setup::shop(&ground.api_url, &stack.admin_key, args.users, args.products);
    ground.keep(WHOLE_SHOP, &timetable.step("shop", &what, shop).await?)?;
    let (mut seen, mut portions) = (Seen::default(), Vec::new());
    for number in 1..=args.portions {
        let label = format!("portion-{number}");
        let orders = size(args.orders, args.portions, number);
        let phase = Phase::closed(label.clone(), orders, args.concurrency);
        let placed = timetable.step(&label, &phase.title(), ground.place(phase)).await?;
        seen.count(&placed);
        let memory = Memory::of(stack.up.pid())?;
        portions.push(Portion::of(&placed, seen.orders.accepted, memory));
    }
    let connections = stack.connections()?;
    let verified = timetable.step("verify", "everything", verify::look(&connections)).await?;
    seen.verified("", &verified);
    seen.count_in_database(orders::count_by_status(&ground.pool).await?)?;
    let (verify, growth) = (seen.verdict(), growth(&portions));
    Ok(LongReport {
        ok: verify.ok && seen.errors.is_empty() && seen.orders.confirmed == seen.orders.sent,
        at: Timestamp::now(),
        parameters: args.clone(),
        versions: versions(ground).await?,
        machine: Machine::this()?,
        steps: Vec::new(),
        rss_mb: portions.last().map_or(0.0, |portion| portion.rss_mb),
        rss_growth: growth,
        rss_is_flat: growth < FLAT_BELOW,
        portions,
        orders: seen.orders,
        errors: seen.errors,
        verify,
    })
}

/// The steps with the seconds that each takes about.
fn steps(args: &LongArgs) -> Vec<(String, f64)> {
    let shop = (args.users * 2 + args.products) as f64 / MADE_PER_S;
    let portion = |number| READINGS_S + size(args.orders, args.portions, number) as f64 / SETTLED_PER_S;
    let portions = (1..=args.portions).map(|number| (format!("portion-{number}"), portion(number)));
    let first = [("start".to_owned(), 12.0), ("shop".to_owned(), shop)];
    let last = [("verify".to_owned(), args.orders as f64 / 8_000.0), ("stop".to_owned(), 5.0)];
    first.into_iter().chain(portions).chain(last).collect()
}

/// How many orders portion `number` of 1 to `portions` has, so that all are placed.
fn size(orders: usize, portions: usize, number: usize) -> usize {
    orders * number / portions - orders * (number - 1) / portions
}

/// What the second half of the portions has added to memory, as a share of what it was before.
fn growth(portions: &[Portion]) -> f64 {
    let half = portions.len().div_ceil(2).saturating_sub(1);
    match (portions.get(half), portions.last()) {
        (Some(middle), Some(last)) if middle.rss_mb > 0.0 => last.rss_mb / middle.rss_mb - 1.0,
        _ => 0.0,
    }
}

impl Portion {
    fn of(placed: &Placed, orders: u64, memory: Memory) -> Portion {
        Portion {
            orders,
            accepted_per_s: placed.accepted_per_s(),
            settled_per_s: placed.settled_per_s(),
            settle_p50_ms: placed.load.settle.p50_ms,
            settle_p99_ms: placed.load.settle.p99_ms,
            rss_mb: memory.rss_mb,
        }
    }
}

impl LongReport {
    /// Memory after so many orders.
    #[must_use]
    pub fn memory(&self) -> Vec<(f64, f64)> {
        self.portions.iter().map(|portion| (portion.orders as f64, portion.rss_mb)).collect()
    }
}

impl fmt::Display for LongReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.portions.iter().map(|portion| {
            let cells = [
                grouped(portion.accepted_per_s),
                grouped(portion.settled_per_s),
                one(portion.settle_p50_ms),
                one(portion.settle_p99_ms),
                grouped(portion.rss_mb),
            ];
            (grouped(portion.orders as f64), cells)
        });
        let columns = ["accepted/s", "settled/s", "settle p50 ms", "settle p99 ms", "MB"];
        writeln!(f, "{}\n", table("orders so far", columns, rows))?;
        let is_flat = if self.rss_is_flat { "flat" } else { "it grows" };
        writeln!(f, "memory: {:+.1} % in the second half: {is_flat}", self.rss_growth * 100.0)?;
        let OrderCounts { confirmed, sent, .. } = &self.orders;
        writeln!(f, "CONFIRMED: {} of {}", grouped(*confirmed as f64), grouped(*sent as f64))?;
        for (kind, count) in &self.errors {
            writeln!(f, "error: {kind}: {}", grouped(*count as f64))?;
        }
        let verify = if self.verify.ok { "ok" } else { "NOT OK" };
        writeln!(f, "verify: {verify}, {} checks", self.verify.checks)?;
        for failed in &self.verify.failed {
            writeln!(f, "verify: {failed}")?;
        }
        write!(f, "{}", if self.ok { "ok" } else { "NOT OK" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portion(rss_mb: f64) -> Portion {
        Portion {
            orders: 1,
            accepted_per_s: 2.0,
            settled_per_s: 2.0,
            settle_p50_ms: 1.0,
            settle_p99_ms: 2.0,
            rss_mb,
        }
    }

    #[test]
    fn portions_are_all_of_the_orders() {
        let sizes: Vec<usize> = (1..=3).map(|number| size(10, 3, number)).collect();
        assert_eq!(sizes, [3, 3, 4]);
    }

    #[test]
    fn growth_is_that_of_the_second_half() {
        let portions = [50.0, 100.0, 105.0, 110.0].map(portion);
        assert!((growth(&portions) - 0.1).abs() < 1e-9);
        assert!(growth(&[portion(100.0)]).abs() < 1e-9);
        assert!(growth(&[]).abs() < 1e-9);
    }
}
