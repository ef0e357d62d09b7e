//! The report as tables for people.

use std::fmt;

use comfy_table::Table;

use crate::latency::Percentiles;
use crate::machine::{GATEWAY, IDLE, KAFKA, LOAD, OTHERS, PIPELINE, POSTGRESQL, Work};
use crate::report::table::{grouped, one, table, two};
use crate::report::{Loop, Measured, OrderCounts, Report};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        let measured = &self.measured;
        let tables = [
            Some(self.figures()),
            Some(measured.latencies()),
            Some(measured.costs()),
            Some(measured.cores()),
            measured.processors(),
            measured.batches(),
            Some(self.steps()),
        ];
        for table in tables.into_iter().flatten().filter(|table| !table.is_empty()) {
            writeln!(f, "{table}\n")?;
        }
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
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p, v, m) = (&self.parameters, &self.versions, &self.machine);
        let (ordermill, postgresql, kafka) = (v.ordermill, &v.postgresql, v.kafka);
        writeln!(
            f,
            "ordermill {ordermill}, PostgreSQL {postgresql}, Kafka {kafka}, {} partitions",
            p.args.stack.partitions.unwrap_or_default()
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
            "closed loops: each connection busy all the time; {} orders before all to warm up\n\
             open loops: at even distances; 1 in {} orders is held until it rests\n",
            grouped(p.args.warm_up as f64),
            p.sample_every
        )
    }

    /// One figure a line: what it is, as a multiple of T, or of what else it is to be compared with.
    fn figures(&self) -> Table {
        let (measured, headline) = (&self.measured, &self.headline);
        let t = headline.tpcb_tps;
        let rate =
            |rate: f64| [per_second(rate), t.map_or_else(String::new, |t| format!("{:.2} T", rate / t))];
        let of =
            |rate: f64, whole: f64, what: &str| [per_second(rate), format!("{:.2} of {what}", rate / whole)];
        let text = |text: String| [text, String::new()];
        let mut rows: Vec<(String, [String; 2])> = Vec::new();
        let mut add = |name: &str, cells| rows.push((name.to_owned(), cells));
        if let Some(pgbench) = &measured.pgbench {
            let taken = |others: f64| format!("others took {} cores", two(others));
            add("pgbench before", [per_second(pgbench.before_per_s), taken(pgbench.others_cores[0])]);
            add("pgbench after", [per_second(pgbench.after_per_s), taken(pgbench.others_cores[1])]);
            add("T, their mean", rate(pgbench.t_per_s));
        }
        for (name, looped) in measured.closed_loops() {
            if looped.lines.is_none() {
                add(&format!("accepted, {name}"), rate(looped.accepted_per_s));
            }
            add(&format!("settled, {name}"), rate(looped.settled_per_s));
        }
        for looped in &measured.accepted_alone {
            add(&format!("accepted alone, {} connections", looped.connections), rate(looped.accepted_per_s));
        }
        if let Some(claims) = &measured.claims {
            let name = format!("claims decided, {} of {}", claims.coupons, grouped(claims.claims as f64));
            add(&name, rate(claims.claims_per_s));
        }
        if let Some(backlog) = &measured.backlog {
            let events = grouped(backlog.events as f64);
            add(&format!("bare producer, {events} records"), rate(backlog.produced_per_s));
            let relayed = of(backlog.relayed_per_s, backlog.produced_per_s, "the bare producer");
            add(&format!("relayed, {events} records that waited"), relayed);
        }
        if let Some(trip) = &measured.round_trip {
            let text = [format!("{} ms", two(trip.p50_ms)), format!("p99 {} ms", two(trip.p99_ms))];
            add("Kafka and back, one record, p50", text);
        }
        if let Some(replay) = &measured.replay {
            let events = grouped(replay.events as f64);
            add(&format!("plainly read, {events} events of the log"), rate(replay.read_per_s));
            let replayed = of(replay.replayed_per_s, replay.read_per_s, "plain reading");
            add(&format!("replayed, {} jobs", replay.jobs), replayed);
        }
        let memory = measured.memory;
        add(
            "memory of the pipeline",
            [format!("{} MB", grouped(memory.rss_mb)), format!("at most {} MB", grouped(memory.rss_max_mb))],
        );
        if let Some(cores) = headline.idle_cores {
            add("cores at rest, all parts", text(two(cores)));
        }
        let OrderCounts { confirmed, sent, .. } = &self.orders;
        let errors: u64 = self.errors.values().sum();
        let verify = if self.verify.ok { "ok" } else { "NOT OK" };
        add(
            "CONFIRMED, all phases",
            text(format!("{} of {}", grouped(*confirmed as f64), grouped(*sent as f64))),
        );
        add("errors", text(grouped(errors as f64)));
        add("verify", text(format!("{verify}, {} checks", self.verify.checks)));
        table("figure", ["value", "compared"], rows)
    }

    fn steps(&self) -> Table {
        let total: f64 = self.steps.iter().map(|step| step.seconds).sum();
        let rows = self.steps.iter().map(|step| (step.name.as_str(), [one(step.seconds)]));
        table("step", ["s"], rows.chain([("all", [one(total)])]))
    }
}

impl Measured {
    /// The loops in which every connection is busy all the time, by name.
    fn closed_loops(&self) -> impl Iterator<Item = (String, &Loop)> {
        let of_connections = |looped: &Loop| format!("{} connections", looped.connections);
        let closed = [&self.closed_loop, &self.closed_loop_256].into_iter().flatten();
        let closed = closed.map(move |looped| (of_connections(looped), looped));
        let hot = [("one product", &self.hot_product), ("one user", &self.hot_user)];
        let hot = hot.into_iter().filter_map(|(name, looped)| Some((name.to_owned(), looped.as_ref()?)));
        closed.chain(hot).chain(self.long_orders.as_ref().map(|long| (long.of_lines(), long)))
    }

    /// Everything that tells what an order costs, by name.
    fn loops(&self) -> impl Iterator<Item = (String, &Loop)> {
        let rates = self.rates.iter().map(|rate| (rate.at_rate(), rate));
        let alone = self.accepted_alone.iter();
        let alone = alone.map(|looped| (format!("alone, {} connections", looped.connections), looped));
        rates.chain(self.closed_loops()).chain(alone)
    }

    fn latencies(&self) -> Table {
        let of = |(name, looped): (String, &Loop)| {
            let late = looped.rate_per_s.map(|_| ("sent too late", looped.delay));
            let seen = [
                ("accept", looped.accept),
                ("settle", looped.settle),
                ("settle, in the database", looped.settle_in_database),
            ];
            let seen = seen.into_iter().filter(|(_, percentiles)| percentiles.count > 0);
            seen.chain(late).map(|(what, p)| (format!("{name}: {what}"), p)).collect::<Vec<_>>()
        };
        let rows = self.loops().flat_map(of).map(|(name, p)| {
            let Percentiles { count, p50_ms, p90_ms, p99_ms, max_ms } = p;
            (name, [grouped(count as f64), one(p50_ms), one(p90_ms), one(p99_ms), one(max_ms)])
        });
        table("latency in ms", ["count", "p50", "p90", "p99", "max"], rows)
    }

    /// What an order costs in each phase, and what a second costs at rest.
    fn costs(&self) -> Table {
        let columns =
            ["statements", "commits", "WAL bytes", "events", "log rows", "Produce", "Fetch", "delivered"];
        let at_rest = self.at_rest.as_ref();
        let at_rest = at_rest.map(|rest| ("at rest, a second (taken off above)".to_owned(), rest.per_s));
        let rows = self.loops().map(|(name, looped)| (name, looped.per_order)).chain(at_rest);
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
        let columns = ["stack", "pipeline", "PostgreSQL", "Kafka", "gateway", "load", "others"];
        let at_rest = self.at_rest.as_ref().map(|rest| ("at rest".to_owned(), &rest.work));
        let claims = self.claims.as_ref().map(|claims| ("claims".to_owned(), &claims.work));
        let works = self.loops().map(|(name, looped)| (name, &looped.work));
        let rows = at_rest.into_iter().chain(works).chain(claims).map(|(name, work)| (name, cores(work)));
        table("busy cores", columns, rows)
    }

    /// Who took how much of the processors for an order of the closed loop.
    fn processors(&self) -> Option<Table> {
        let closed = self.closed_loop.as_ref()?;
        let work = &closed.work;
        let ours = work.parts.keys().filter(|part| ![OTHERS, IDLE].contains(part));
        let rows = ours.chain([&OTHERS, &IDLE]).map(|part| {
            let per_order = work.used(part) * 1e6 / closed.orders.max(1.0);
            let share = self.shares.and_then(|shares| match *part {
                PIPELINE => Some(shares.ordermill_share),
                POSTGRESQL => Some(shares.postgres_share),
                KAFKA => Some(shares.kafka_share),
                _ => None,
            });
            (*part, [two(work.cores(part)), grouped(per_order), share.map_or_else(String::new, two)])
        });
        Some(table("processors, closed loop", ["busy cores", "µs per order", "of T's transaction"], rows))
    }

    fn batches(&self) -> Option<Table> {
        let rows = self.closed_loop.as_ref()?.batches.iter().map(|(name, batches)| {
            let ms = batches.ms_mean.map_or_else(String::new, one);
            (name, [grouped(batches.count), one(batches.size_mean), ms])
        });
        Some(table("batches, closed loop", ["count", "mean size", "mean ms"], rows))
    }
}

fn cores(work: &Work) -> [String; 7] {
    let [pipeline, postgresql, kafka, gateway, load, others] =
        [PIPELINE, POSTGRESQL, KAFKA, GATEWAY, LOAD, OTHERS].map(|part| two(work.cores(part)));
    [two(work.cores_of_the_stack()), pipeline, postgresql, kafka, gateway, load, others]
}

impl Loop {
    fn at_rate(&self) -> String {
        format!("{}/s", grouped(self.rate_per_s.unwrap_or_default()))
    }

    fn of_lines(&self) -> String {
        format!("orders of {} lines", self.lines.unwrap_or_default())
    }
}

fn per_second(rate: f64) -> String {
    format!("{}/s", grouped(rate))
}
