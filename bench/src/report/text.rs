//! The report as tables for people.

use std::fmt;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use indicatif::HumanCount;

use crate::latency::Percentiles;
use crate::machine::{GATEWAY, IDLE, KAFKA, OTHERS, PIPELINE, POSTGRESQL};
use crate::replay::ReplayRates;
use crate::report::{Loop, OrderCounts, Report};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p, v, m) = (&self.parameters, &self.versions, &self.machine);
        let (ordermill, postgresql, kafka) = (v.ordermill, &v.postgresql, v.kafka);
        writeln!(
            f,
            "ordermill {ordermill}, PostgreSQL {postgresql}, Kafka {kafka}, {} partitions",
            p.args.partitions.unwrap_or_default()
        )?;
        writeln!(f, "{} cores, {} MiB: {}", m.cores, grouped(m.memory_mib as f64), m.processor)?;
        let settings = v.postgresql_settings.iter().map(|(name, value)| format!("{name}={value}"));
        writeln!(f, "{}", settings.collect::<Vec<_>>().join(", "))?;
        writeln!(
            f,
            "T: pgbench, TPC-B-like, scale {}, {} clients, {}, {} s, before and after, same server",
            p.pgbench_scale, p.pgbench_clients, p.pgbench_protocol, p.args.seconds
        )?;
        writeln!(
            f,
            "closed loop: {} orders over {} connections, each busy all the time; {} before all to warm up\n\
             open loops: at even distances; 1 in {} orders is held until it rests\n",
            grouped(p.args.orders as f64),
            p.args.concurrency,
            grouped(p.args.warm_up as f64),
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
        let (t, closed, long) = (self.pgbench.t_per_s, &self.closed_loop, &self.long_orders);
        let rate = |rate: f64, others: Option<f64>| {
            [
                format!("{}/s", grouped(rate)),
                format!("{:.2} T", rate / t),
                others.map_or_else(String::new, two),
            ]
        };
        let text = |text: String| [text, String::new(), String::new()];
        let [before, after] = self.pgbench.others_cores;
        let [others, long_others] = [closed, long].map(|looped| Some(looped.work.cores(OTHERS)));
        let errors: u64 = self.errors.values().sum();
        let verify = if self.verify.ok { "ok" } else { "NOT OK" };
        let OrderCounts { confirmed, sent, .. } = &self.orders;
        let long_name = format!("settled, {}", long.of_lines());
        let rows = [
            ("pgbench before", rate(self.pgbench.before_per_s, Some(before))),
            ("pgbench after", rate(self.pgbench.after_per_s, Some(after))),
            ("T, their mean", rate(t, None)),
            ("accepted, closed loop", rate(closed.accepted_per_s, others)),
            ("settled, closed loop", rate(closed.settled_per_s, others)),
            (&long_name, rate(long.settled_per_s, long_others)),
            (
                "CONFIRMED, all phases",
                text(format!("{} of {}", grouped(*confirmed as f64), grouped(*sent as f64))),
            ),
            ("errors", text(grouped(errors as f64))),
            ("verify", text(format!("{verify}, {} checks", self.verify.checks))),
        ];
        table("figure", ["value", "in T", "cores taken by others"], rows)
    }

    fn latencies(&self) -> Table {
        let of = |name: &str, looped: &Loop| {
            [(format!("accept, {name}"), looped.accept), (format!("settle, {name}"), looped.settle)]
        };
        let open = format!("open loop, {}", self.open_loop.at_rate());
        let rates = self.rates.iter().flat_map(|rate| of(&rate.at_rate(), rate));
        let rows = rates
            .chain(of(&open, &self.open_loop))
            .chain([(format!("sent too late, {open}"), self.open_loop.delay)])
            .chain(of("closed loop", &self.closed_loop))
            .map(|(name, Percentiles { count, p50_ms, p90_ms, p99_ms, max_ms })| {
                (name, [grouped(count as f64), one(p50_ms), one(p90_ms), one(p99_ms), one(max_ms)])
            });
        table("latency in ms", ["count", "p50", "p90", "p99", "max"], rows)
    }

    /// The loops that tell what an order costs, by name.
    fn loops(&self) -> impl Iterator<Item = (String, &Loop)> {
        let (closed, long) = (&self.closed_loop, &self.long_orders);
        let rates = self.rates.iter().map(|rate| (rate.at_rate(), rate));
        rates.chain([("closed loop".to_owned(), closed), (long.of_lines(), long)])
    }

    /// What an order costs in each phase, and what a second costs at rest.
    fn costs(&self) -> Table {
        let columns =
            ["statements", "commits", "WAL bytes", "events", "log rows", "Produce", "Fetch", "delivered"];
        let at_rest = ("at rest, a second (taken off above)".to_owned(), self.at_rest.per_s);
        let rows = self.loops().map(|(name, looped)| (name, looped.per_order)).chain([at_rest]);
        let rows = rows.map(|(name, counts)| {
            let cells = [
                one(counts.statements),
                one(counts.commits),
                grouped(counts.wal_bytes),
                one(counts.events),
                one(counts.log_rows),
                one(counts.kafka_produce),
                one(counts.kafka_fetch),
                one(counts.kafka_delivered),
            ];
            (name, cells)
        });
        table("counts for each order", columns, rows)
    }

    /// How many processors each part kept busy in each phase.
    fn cores(&self) -> Table {
        let columns = ["stack", "pipeline", "PostgreSQL", "Kafka", "gateway", "others"];
        let at_rest = ("at rest".to_owned(), &self.at_rest.work);
        let works = [at_rest].into_iter().chain(self.loops().map(|(name, looped)| (name, &looped.work)));
        let rows = works.map(|(name, work)| {
            let [pipeline, postgresql, kafka, gateway, others] =
                [PIPELINE, POSTGRESQL, KAFKA, GATEWAY, OTHERS].map(|part| two(work.cores(part)));
            (name, [two(work.cores_of_the_stack()), pipeline, postgresql, kafka, gateway, others])
        });
        table("busy cores", columns, rows)
    }

    /// Who took how much of the processors for an order of the closed loop.
    fn processors(&self) -> Table {
        let (work, shares) = (&self.closed_loop.work, &self.shares);
        let ours = work.parts.keys().filter(|part| ![OTHERS, IDLE].contains(part));
        let rows = ours.chain([&OTHERS, &IDLE]).map(|part| {
            let per_order = work.used(part) * 1e6 / self.parameters.args.orders as f64;
            let of_t = match *part {
                PIPELINE => two(shares.ordermill_share),
                POSTGRESQL => two(shares.postgres_share),
                KAFKA => two(shares.kafka_share),
                _ => String::new(),
            };
            (*part, [two(work.cores(part)), grouped(per_order), of_t])
        });
        table("processors, closed loop", ["busy cores", "µs per order", "of T's transaction"], rows)
    }

    fn batches(&self) -> Table {
        let rows = self.closed_loop.batches.iter().map(|(name, batches)| {
            let ms = batches.ms_mean.map_or_else(String::new, one);
            (name, [grouped(batches.count), one(batches.size_mean), ms])
        });
        table("batches, closed loop", ["count", "mean size", "mean ms"], rows)
    }

    fn replay(&self) -> Table {
        let ReplayRates { events, jobs, read_per_s, replayed_per_s, replayed_per_read } = self.replay;
        let row = |rate, share| [grouped(events as f64), grouped(rate), two(share)];
        let rows = [
            ("plainly read".to_owned(), row(read_per_s, 1.0)),
            (format!("replayed, {jobs} jobs"), row(replayed_per_s, replayed_per_read)),
        ];
        table("the whole log", ["events", "events/s", "of plain reading"], rows)
    }
}

impl Loop {
    fn at_rate(&self) -> String {
        format!("{}/s", grouped(self.rate_per_s.unwrap_or_default()))
    }

    fn of_lines(&self) -> String {
        format!("orders of {} lines", self.lines.unwrap_or_default())
    }
}

/// A table of figures by name, which stand to the right.
fn table<const N: usize>(
    what: &str,
    columns: [&str; N],
    rows: impl IntoIterator<Item = (impl ToString, [String; N])>,
) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([what].into_iter().chain(columns));
    for (name, cells) in rows {
        table.add_row([name.to_string()].into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn one(figure: f64) -> String {
    format!("{figure:.1}")
}

fn two(figure: f64) -> String {
    format!("{figure:.2}")
}

/// A figure without decimals, its thousands set apart: `12,345`.
pub(super) fn grouped(figure: f64) -> String {
    HumanCount(figure.max(0.0).round_ties_even() as u64).to_string()
}
