//! What a run has seen so far, and the report that becomes of it.

use std::collections::BTreeMap;

use anyhow::Result;
use ordermill::verify;

use crate::backlog::Backlog;
use crate::claims::Claims;
use crate::cost::{Counts, Spent};
use crate::latency::Percentiles;
use crate::machine::{Machine, Work};
use crate::memory::Memory;
use crate::phase::Placed;
use crate::plan::Measurement;
use crate::replay::ReplayRates;
use crate::report::{AtRest, Loop, Measured, OrderCounts, PgbenchRates, Shares, Verified};

/// What has been seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// T, and how many processors others kept busy, before and after everything.
    pub(crate) transactions: Vec<(f64, f64)>,
    pub(crate) at_rest: Option<(Spent, Work)>,
    pub(crate) placed: BTreeMap<Measurement, Placed>,
    pub(crate) alone: Vec<Placed>,
    pub(crate) claims: Option<Claims>,
    pub(crate) backlog: Option<Backlog>,
    pub(crate) round_trip: Option<Percentiles>,
    pub(crate) replay: Option<ReplayRates>,
    pub(crate) memory: Memory,
    pub(crate) orders: OrderCounts,
    pub(crate) errors: BTreeMap<String, u64>,
    /// Of each pipeline.
    pub(crate) verified: Vec<Verified>,
}

impl Seen {
    /// Adds up what became of a phase's orders that somebody settles.
    pub(crate) fn count(&mut self, placed: &Placed) {
        self.orders.sent += placed.load.sent;
        self.orders.accepted += placed.load.accepted;
        if placed.rested_at_us.is_none() {
            self.error(&placed.phase.label, "orders did not come to rest", 1);
        }
        self.note_errors(placed);
    }

    /// Adds up what went wrong in a phase.
    pub(crate) fn note_errors(&mut self, placed: &Placed) {
        for (kind, count) in &placed.load.errors {
            self.error(&placed.phase.label, kind, *count);
        }
    }

    pub(crate) fn error(&mut self, step: &str, kind: &str, count: u64) {
        *self.errors.entry(format!("{step}: {kind}")).or_default() += count;
    }

    /// How many orders the database has in each status.
    pub(crate) fn count_in_database(&mut self, by_status: Vec<(String, i64)>) -> Result<()> {
        self.orders.by_status = by_status.into_iter().collect();
        let confirmed = self.orders.by_status.get("CONFIRMED").copied().unwrap_or(0);
        self.orders.confirmed = u64::try_from(confirmed)?;
        Ok(())
    }

    /// Adds what `verify` has said of a pipeline.
    pub(crate) fn verified(&mut self, of: &str, report: &verify::Report) {
        let failed = report.checks.iter().filter(|check| !check.ok).map(|check| {
            let first = check.violations.first().map_or("see ordermill verify", String::as_str);
            format!("{of}{}: {first}", check.name)
        });
        self.verified.push(Verified { ok: report.ok, checks: report.checks.len(), failed: failed.collect() });
    }

    /// What `verify` has said of all pipelines.
    pub(crate) fn verdict(&self) -> Verified {
        Verified {
            ok: self.verified.iter().all(|verified| verified.ok),
            checks: self.verified.iter().map(|verified| verified.checks).sum(),
            failed: self.verified.iter().flat_map(|verified| verified.failed.clone()).collect(),
        }
    }

    /// The figures.
    pub(crate) fn measured(mut self, machine: &Machine) -> Measured {
        let pgbench = match self.transactions[..] {
            [(before_per_s, before), (after_per_s, after)] => Some(PgbenchRates {
                before_per_s,
                after_per_s,
                t_per_s: f64::midpoint(before_per_s, after_per_s),
                others_cores: [before, after],
            }),
            _ => None,
        };
        let t_per_s = pgbench.as_ref().map(|pgbench| pgbench.t_per_s);
        // Where rest was not measured, nothing is taken off.
        let nothing = Spent { seconds: 1.0, counts: Counts::default() };
        let spent = self.at_rest.as_ref().map_or(nothing, |(spent, _)| *spent);
        let told = |placed| Loop::of(placed, &spent, t_per_s);
        let mut take = |measurement| self.placed.remove(&measurement).map(told);
        let fixed = [Measurement::Rate20, Measurement::Rate100, Measurement::Rate300];
        let open_loop = take(Measurement::HalfRate);
        let rates = fixed.into_iter().filter_map(&mut take).chain(open_loop.clone()).collect();
        let closed_loop = take(Measurement::Closed64);
        let shares =
            closed_loop.as_ref().zip(t_per_s).map(|(closed, t)| Shares::of(closed, machine.cores, t));
        Measured {
            pgbench,
            rates,
            open_loop,
            closed_loop,
            closed_loop_256: take(Measurement::Closed256),
            hot_product: take(Measurement::HotProduct),
            hot_user: take(Measurement::HotUser),
            long_orders: take(Measurement::LongOrders),
            at_rest: self.at_rest.map(|(spent, work)| AtRest {
                seconds: spent.seconds,
                per_s: spent.per_second(),
                work,
            }),
            accepted_alone: self.alone.into_iter().map(told).collect(),
            claims: self.claims,
            backlog: self.backlog,
            round_trip: self.round_trip,
            replay: self.replay,
            memory: self.memory,
            shares,
        }
    }
}
