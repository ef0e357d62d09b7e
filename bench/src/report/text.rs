//! The report as tables for people.

use std::fmt;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::cost::Counts;
use crate::machine::{GATEWAY, IDLE, KAFKA, OTHERS, PIPELINE, POSTGRESQL, Work};
use crate::replay::ReplayRates;
use crate::report::Report;

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
        let settings = v.postgresql_settings.iter().map(|(name, value)| format!("{name}={value}"));
        writeln!(f, "{}", settings.collect::<Vec<_>>().join(", "))?;
        writeln!(
            f,
            "T: pgbench, TPC-B-like, scale {}, {} clients, {}, {} s, before and after, same server",
            p.pgbench_scale, p.pgbench_clients, p.pgbench_protocol, p.pgbench_seconds
        )?;
        writeln!(
            f,
            "closed loop: {} orders over {} connections, each busy all the time; {} before all to warm up\n\
             open loops: at even distances; 1 in {} orders is held until it rests\n",
            grouped(p.orders as f64),
            p.connections,
            grouped(p.warm_up as f64),
            p.sample_every
        )?;
        writeln!(f, "{}\n\n{}\n\n{}\n", self.rates(), self.latencies(), self.costs())?;
        writeln!(f, "{}\n\n{}\n", self.cores(), self.processors())?;
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
        let long = &self.long_orders;
        let long_others = Some(long.work.cores(OTHERS));
        let long_name = format!("settled, orders of {} lines", long.lines);
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
            (&long_name, rate(long.settled_per_s, long_others)),
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
        let of_rates = self.rates.iter().flat_map(|rate| {
            let name = |what| format!("{what}, {}/s", grouped(rate.rate_per_s));
            [(name("accept"), rate.accept), (name("settle"), rate.settle)]
        });
        let others = [
            ("accept, open loop", self.open_loop.accept),
            ("settle, open loop", self.open_loop.settle),
            ("sent too late, open loop", self.open_loop.delay),
            ("accept, closed loop", self.closed_loop.accept),
            ("settle, closed loop", self.closed_loop.settle),
        ];
        let rate = grouped(self.open_loop.rate_per_s);
        let others =
            others.map(|(name, told)| (name.replace("open loop", &format!("open loop, {rate}/s")), told));
        for (name, told) in of_rates.chain(others) {
            let count = grouped(told.count as f64);
            let [p50, p90, p99, max] =
                [told.p50_ms, told.p90_ms, told.p99_ms, told.max_ms].map(|ms| format!("{ms:.1}"));
            table.add_row([name, count, p50, p90, p99, max]);
        }
        table
    }

    /// What an order costs in each phase, and what a second costs at rest.
    fn costs(&self) -> Table {
        let header = [
            "counts for each order",
            "statements",
            "commits",
            "WAL bytes",
            "log rows",
            "Produce",
            "Fetch",
            "both",
            "delivered",
        ];
        let mut table = table(header, 1);
        let mut add = |name: String, counts: &Counts| {
            let Counts { statements, commits, wal_bytes, log_rows, .. } = counts;
            let (produce, fetch) = (counts.kafka_produce, counts.kafka_fetch);
            let [statements, commits, log_rows, produce, fetch, both, delivered] = [
                statements,
                commits,
                log_rows,
                &produce,
                &fetch,
                &counts.kafka_requests,
                &counts.kafka_delivered,
            ]
            .map(|count| format!("{count:.1}"));
            let wal_bytes = grouped(*wal_bytes);
            table.add_row([name, statements, commits, wal_bytes, log_rows, produce, fetch, both, delivered]);
        };
        for rate in &self.rates {
            add(format!("{}/s", grouped(rate.rate_per_s)), &rate.per_order);
        }
        add("closed loop".to_owned(), &self.closed_loop.per_order);
        add(format!("orders of {} lines", self.long_orders.lines), &self.long_orders.per_order);
        add("at rest, a second (taken off above)".to_owned(), &self.at_rest.per_s);
        table
    }

    /// How many processors each part kept busy in each phase.
    fn cores(&self) -> Table {
        let mut table =
            table(["busy cores", "stack", "pipeline", "PostgreSQL", "Kafka", "gateway", "others"], 1);
        let mut add = |name: String, work: &Work| {
            let parts = [PIPELINE, POSTGRESQL, KAFKA, GATEWAY, OTHERS].map(|part| work.cores(part));
            let [pipeline, postgresql, kafka, gateway, others] = parts.map(|cores| format!("{cores:.2}"));
            let stack = format!("{:.2}", work.cores_of_the_stack());
            table.add_row([name, stack, pipeline, postgresql, kafka, gateway, others]);
        };
        add("at rest".to_owned(), &self.at_rest.work);
        for rate in &self.rates {
            add(format!("{}/s", grouped(rate.rate_per_s)), &rate.work);
        }
        add("closed loop".to_owned(), &self.closed_loop.work);
        add(format!("orders of {} lines", self.long_orders.lines), &self.long_orders.work);
        table
    }

    /// Who took how much of the processors for an order of the closed loop.
    fn processors(&self) -> Table {
        let work = &self.closed_loop.work;
        let mut table =
            table(["processors, closed loop", "busy cores", "µs per order", "of T's transaction"], 1);
        let ours = work.parts.keys().filter(|part| ![OTHERS, IDLE].contains(part));
        for part in ours.chain([&OTHERS, &IDLE]) {
            let per_order = work.used(part) * 1e6 / self.parameters.orders as f64;
            let of_t = match *part {
                PIPELINE => format!("{:.2}", self.shares.ordermill_share),
                POSTGRESQL => format!("{:.2}", self.shares.postgres_share),
                KAFKA => format!("{:.2}", self.shares.kafka_share),
                _ => String::new(),
            };
            let cores = format!("{:.2}", work.cores(part));
            table.add_row([(*part).to_owned(), cores, grouped(per_order), of_t]);
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
pub(super) fn grouped(figure: f64) -> String {
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
