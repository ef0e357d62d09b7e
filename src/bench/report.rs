//! What was measured, as a table for people and as JSON for machines.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use jiff::Timestamp;
use serde::Serialize;

use super::batches::Batches;
use super::latency::Percentiles;
use super::machine::{IDLE, Machine, OTHERS, Work};
use super::replay::ReplayRates;

/// Everything that one run has measured, and what it was measured with.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether nothing went wrong: no error, every order CONFIRMED, `verify` content.
    pub ok: bool,
    /// When it was measured.
    pub at: Timestamp,
    /// What it was measured with.
    pub parameters: Parameters,
    /// Of what it was measured.
    pub versions: Versions,
    /// On what it was measured.
    pub machine: Machine,
    /// PostgreSQL itself.
    pub pgbench: PgbenchRates,
    /// The highest rate.
    pub closed_loop: ClosedLoop,
    /// The latency at a modest rate.
    pub open_loop: OpenLoop,
    /// The log that this run has written, replayed.
    pub replay: ReplayRates,
    /// Orders of all phases, the warm-up included.
    pub orders: OrderCounts,
    /// What went wrong in any phase, and how often.
    pub errors: BTreeMap<String, u64>,
    /// What `ordermill verify` said at the end.
    pub verify: Verified,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Parameters {
    /// Partitions of each topic.
    pub partitions: i16,
    /// Orders of the closed loop.
    pub orders: usize,
    /// Orders before it that are not measured.
    pub warm_up: usize,
    /// Connections.
    pub connections: usize,
    /// Users.
    pub users: usize,
    /// Products.
    pub products: usize,
    /// What chooses who orders what.
    pub seed: u64,
    /// Length of each run of pgbench, in seconds.
    pub pgbench_seconds: u64,
    /// The scale of pgbench's tables.
    pub pgbench_scale: u32,
    /// Its connections.
    pub pgbench_clients: u32,
    /// Its threads.
    pub pgbench_threads: u32,
    /// Its protocol.
    pub pgbench_protocol: &'static str,
    /// In the open loop, of so many orders one waits for its rest.
    pub sample_every: usize,
}

/// Versions of what was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    /// This program.
    pub ordermill: &'static str,
    /// The server.
    pub postgresql: String,
    /// Its settings that matter most for speed.
    pub postgresql_settings: BTreeMap<String, String>,
    /// The broker.
    pub kafka: &'static str,
}

/// What PostgreSQL does by itself.
#[derive(Clone, Debug, Serialize)]
pub struct PgbenchRates {
    /// Transactions per second before the load.
    pub before_per_s: f64,
    /// Transactions per second after the load.
    pub after_per_s: f64,
    /// T: the mean of the two.
    pub t_per_s: f64,
    /// Processors that other programs kept busy meanwhile, before and after the load.
    pub others_cores: [f64; 2],
}

/// The closed loop.
#[derive(Clone, Debug, Serialize)]
pub struct ClosedLoop {
    /// From the first send to the last 202.
    pub accepted_per_s: f64,
    /// From the first 202 to when the last order was seen CONFIRMED.
    pub settled_per_s: f64,
    /// The former as a multiple of T.
    pub accepted_per_t: f64,
    /// The latter as a multiple of T.
    pub settled_per_t: f64,
    /// From the first 202 to when the last order was seen CONFIRMED, in seconds.
    pub settled_in_s: f64,
    /// Latency of the 202, with every connection busy.
    pub accept: Percentiles,
    /// Batches by who made them.
    pub batches: BTreeMap<String, Batches>,
    /// Who used the processors, from the start of the load to the last CONFIRMED.
    pub work: Work,
}

/// The open loop.
#[derive(Clone, Debug, Serialize)]
pub struct OpenLoop {
    /// Orders sent a second.
    pub rate_per_s: f64,
    /// Orders sent.
    pub orders: u64,
    /// From when an order was to be sent to its 202.
    pub accept: Percentiles,
    /// From when an order was to be sent to the answer that says CONFIRMED, held by the API until then (`Prefer: wait`).
    pub settle: Percentiles,
    /// How much later than they should have been orders were sent: part of the latencies above.
    pub delay: Percentiles,
}

/// Orders and what has become of them.
#[derive(Clone, Debug, Serialize)]
pub struct OrderCounts {
    /// Sent by the load.
    pub sent: u64,
    /// Answered with 202.
    pub accepted: u64,
    /// CONFIRMED in the database.
    pub confirmed: u64,
    /// All statuses in the database.
    pub by_status: BTreeMap<String, i64>,
}

/// What `ordermill verify` said.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// Whether everything added up.
    pub ok: bool,
    /// How many checks it made.
    pub checks: usize,
    /// The checks that failed, with their first violation.
    pub failed: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p, v, m) = (&self.parameters, &self.versions, &self.machine);
        let (ordermill, postgresql, kafka) = (v.ordermill, &v.postgresql, v.kafka);
        writeln!(
            f,
            "ordermill {ordermill}, PostgreSQL {postgresql}, Kafka {kafka}, {} partitions",
            p.partitions
        )?;
        writeln!(f, "{} cores, {} MiB: {}", m.cores, grouped(m.memory_mib as f64), m.processor)?;
        writeln!(
            f,
            "T: pgbench, TPC-B-like, scale {}, {} clients, {}, {} s, before and after, same server",
            p.pgbench_scale, p.pgbench_clients, p.pgbench_protocol, p.pgbench_seconds
        )?;
        writeln!(
            f,
            "closed loop: {} orders over {} connections, each busy all the time; {} before it to warm up\n\
             open loop: {} orders, {} a second at even distances; 1 in {} waits for its rest\n",
            grouped(p.orders as f64),
            p.connections,
            grouped(p.warm_up as f64),
            grouped(self.open_loop.orders as f64),
            grouped(self.open_loop.rate_per_s),
            p.sample_every
        )?;
        writeln!(f, "{}\n\n{}\n\n{}\n", self.rates(), self.latencies(), self.processors())?;
        writeln!(f, "{}\n\n{}\n", self.batches(), self.replay())?;
        for (kind, count) in &self.errors {
            writeln!(f, "error: {kind}: {}", grouped(*count as f64))?;
        }
        for failed in &self.verify.failed {
            writeln!(f, "verify: {failed}")?;
        }
        write!(f, "{}", if self.ok { "ok" } else { "NOT OK" })
    }
}

impl Report {
    fn rates(&self) -> Table {
        let (t, closed) = (self.pgbench.t_per_s, &self.closed_loop);
        let rate = |rate: f64, others: Option<f64>| {
            let others = others.map_or_else(String::new, |cores| format!("{cores:.2}"));
            [format!("{}/s", grouped(rate)), format!("{:.2} T", rate / t), others]
        };
        let text = |text: String| [text, String::new(), String::new()];
        let [others_before, others_after] = self.pgbench.others_cores;
        let others = closed.work.cores(OTHERS);
        let errors: u64 = self.errors.values().sum();
        let verify = if self.verify.ok { "ok" } else { "NOT OK" };
        let confirmed =
            format!("{} of {}", grouped(self.orders.confirmed as f64), grouped(self.orders.sent as f64));
        let rows = [
            ("pgbench before", rate(self.pgbench.before_per_s, Some(others_before))),
            ("pgbench after", rate(self.pgbench.after_per_s, Some(others_after))),
            ("T, their mean", rate(t, None)),
            ("accepted, closed loop", rate(closed.accepted_per_s, Some(others))),
            ("settled, closed loop", rate(closed.settled_per_s, Some(others))),
            ("CONFIRMED, all phases", text(confirmed)),
            ("errors", text(grouped(errors as f64))),
            ("verify", text(format!("{verify}, {} checks", self.verify.checks))),
        ];
        let mut table = table(["figure", "value", "in T", "cores taken by others"], 1);
        for (name, [value, ratio, others]) in rows {
            table.add_row([name.to_owned(), value, ratio, others]);
        }
        table
    }

    fn latencies(&self) -> Table {
        let mut table = table(["latency in ms", "count", "p50", "p90", "p99", "max"], 1);
        for (name, told) in [
            ("accept, open loop", self.open_loop.accept),
            ("settle, open loop", self.open_loop.settle),
            ("sent too late, open loop", self.open_loop.delay),
            ("accept, closed loop", self.closed_loop.accept),
        ] {
            let count = grouped(told.count as f64);
            let [p50, p90, p99, max] =
                [told.p50_ms, told.p90_ms, told.p99_ms, told.max_ms].map(|ms| format!("{ms:.1}"));
            table.add_row([name.to_owned(), count, p50, p90, p99, max]);
        }
        table
    }

    fn processors(&self) -> Table {
        let work = &self.closed_loop.work;
        let mut table = table(["processors, closed loop", "busy cores", "µs per order"], 1);
        let ours = work.parts.keys().filter(|part| ![OTHERS, IDLE].contains(part));
        for part in ours.chain([&OTHERS, &IDLE]) {
            let per_order =
                work.parts.get(part).copied().unwrap_or(0.0) * 1e6 / self.parameters.orders as f64;
            table.add_row([(*part).to_owned(), format!("{:.2}", work.cores(part)), grouped(per_order)]);
        }
        table
    }

    fn batches(&self) -> Table {
        let mut table = table(["batches, closed loop", "count", "mean size", "mean ms"], 1);
        for (name, batches) in &self.closed_loop.batches {
            let ms = batches.ms_mean.map_or_else(String::new, |ms| format!("{ms:.1}"));
            table.add_row([name.clone(), grouped(batches.count), format!("{:.1}", batches.size_mean), ms]);
        }
        table
    }
}

impl Report {
    fn replay(&self) -> Table {
        let ReplayRates { events, jobs, read_per_s, replayed_per_s, replayed_per_read } = self.replay;
        let mut table = table(["the whole log", "events", "events/s", "of plain reading"], 1);
        let events = grouped(events as f64);
        table.add_row(["plainly read".to_owned(), events.clone(), grouped(read_per_s), "1.00".to_owned()]);
        let name = format!("replayed, {jobs} jobs");
        table.add_row([name, events, grouped(replayed_per_s), format!("{replayed_per_read:.2}")]);
        table
    }
}

/// A table whose columns from `first_number` on are aligned to the right.
fn table<const N: usize>(header: [&str; N], first_number: usize) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    for column in first_number..N {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A figure without decimals, its thousands set apart: `12,345`.
fn grouped(figure: f64) -> String {
    let digits = format!("{:.0}", figure.max(0.0));
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
