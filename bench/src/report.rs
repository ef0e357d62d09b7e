//! What was measured, as JSON for machines, and in `text` as tables for people. Names are kept: programs read them.

mod text;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::cost::{Counts, Spent};
use crate::figures::Batches;
use crate::latency::Percentiles;
use crate::machine::{KAFKA, Machine, PIPELINE, POSTGRESQL, Work};
use crate::phase::Placed;
use crate::replay::ReplayRates;

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
    /// What the pipeline does while nobody orders.
    pub at_rest: AtRest,
    /// Latency and cost at fixed rates.
    pub rates: Vec<Rate>,
    /// The highest rate.
    pub closed_loop: ClosedLoop,
    /// What an order of the closed loop takes of the processors, as parts of what one transaction of T takes.
    #[serde(flatten)]
    pub shares: Shares,
    /// Bytes of the write-ahead log for each order of the closed loop, less what the same time costs at rest.
    pub wal_bytes_per_order: f64,
    /// The latency at a modest rate.
    pub open_loop: OpenLoop,
    /// Orders of many lines.
    pub long_orders: LongOrders,
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

/// What the pipeline does while nobody orders.
#[derive(Clone, Debug, Serialize)]
pub struct AtRest {
    /// For how long it was watched.
    pub seconds: f64,
    /// What was counted in a second.
    pub per_s: Counts,
    /// Who used the processors.
    pub work: Work,
}

/// An open loop at a fixed rate. The names that end in `_per_order` are those of `per_order`.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// Orders sent a second.
    pub rate_per_s: f64,
    /// Orders accepted.
    pub orders: f64,
    /// Half of the orders that were held settled within this.
    pub settle_p50_ms: f64,
    /// 99 in 100 of them.
    pub settle_p99_ms: f64,
    /// Half of the others were accepted within this.
    pub accept_p50_ms: f64,
    /// Processors that the stack kept busy: pipeline, PostgreSQL, Kafka and gateway, without the load.
    pub cores: f64,
    /// Statements, those that begin and end transactions among them.
    pub statements_per_order: f64,
    /// Transactions committed.
    pub commits_per_order: f64,
    /// Bytes of the write-ahead log.
    pub wal_bytes_per_order: f64,
    /// `Produce` and `Fetch` requests.
    pub kafka_requests_per_order: f64,
    /// All counts for each order, less what the same time costs at rest.
    pub per_order: Counts,
    /// From when an order was to be sent to its 202.
    pub accept: Percentiles,
    /// From when an order was to be sent to the answer that says CONFIRMED.
    pub settle: Percentiles,
    /// How much later than they should have been orders were sent: part of the latencies above.
    pub delay: Percentiles,
    /// Who used the processors, from the start of the load to the last CONFIRMED.
    pub work: Work,
}

/// What an order of the closed loop takes of the processors, as parts of what one transaction of T takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shares {
    /// PostgreSQL's.
    pub postgres_share: f64,
    /// That of API, relay and workers.
    pub ordermill_share: f64,
    /// Kafka's.
    pub kafka_share: f64,
}

/// Orders of many lines, in a closed loop.
#[derive(Clone, Debug, Serialize)]
pub struct LongOrders {
    /// Lines of each.
    pub lines: usize,
    /// Orders accepted.
    pub orders: f64,
    /// From the first send to the last 202.
    pub accepted_per_s: f64,
    /// From the first 202 to when the last order was seen CONFIRMED.
    pub settled_per_s: f64,
    /// Latency of the 202, with every connection busy.
    pub accept: Percentiles,
    /// All counts for each order, less what the same time costs at rest.
    pub per_order: Counts,
    /// Who used the processors.
    pub work: Work,
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
    /// Until the answer that says CONFIRMED, of the orders that were held for it.
    pub settle: Percentiles,
    /// All counts for each order, less what the same time costs at rest.
    pub per_order: Counts,
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

impl Rate {
    pub(crate) fn of(rate_per_s: f64, placed: &Placed, at_rest: &Spent) -> Rate {
        let Placed { load, lateness, work, spent, .. } = placed;
        let per_order = spent.per_order(placed.accepted(), at_rest);
        Rate {
            rate_per_s,
            orders: placed.accepted(),
            settle_p50_ms: load.settle.p50_ms,
            settle_p99_ms: load.settle.p99_ms,
            accept_p50_ms: load.accept.p50_ms,
            cores: work.cores_of_the_stack(),
            statements_per_order: per_order.statements,
            commits_per_order: per_order.commits,
            wal_bytes_per_order: per_order.wal_bytes,
            kafka_requests_per_order: per_order.kafka_requests,
            per_order,
            accept: load.accept,
            settle: load.settle,
            delay: lateness.delay,
            work: work.clone(),
        }
    }
}

impl Shares {
    /// A transaction of T takes all processors for 1/T of a second.
    pub(crate) fn of(closed: &ClosedLoop, orders: usize, cores: usize, t_per_s: f64) -> Shares {
        #[expect(clippy::cast_precision_loss, reason = "neither is near 2^53")]
        let (orders, cores) = (orders as f64, cores as f64);
        let share = |part| closed.work.used(part) / orders / (cores / t_per_s);
        Shares {
            postgres_share: share(POSTGRESQL),
            ordermill_share: share(PIPELINE),
            kafka_share: share(KAFKA),
        }
    }
}

impl ClosedLoop {
    /// Without what is told in T, which is not known yet.
    pub(crate) fn of(placed: Placed, batches: BTreeMap<String, Batches>, at_rest: &Spent) -> ClosedLoop {
        let settled_in_s = placed.settled_in_s();
        ClosedLoop {
            accepted_per_s: placed.accepted() / placed.accepted_in_s(),
            settled_per_s: placed.accepted() / settled_in_s,
            accepted_per_t: 0.0,
            settled_per_t: 0.0,
            settled_in_s,
            accept: placed.load.accept,
            settle: placed.load.settle,
            per_order: placed.spent.per_order(placed.accepted(), at_rest),
            batches,
            work: placed.work,
        }
    }
}

impl LongOrders {
    pub(crate) fn of(lines: usize, placed: &Placed, at_rest: &Spent) -> LongOrders {
        LongOrders {
            lines,
            orders: placed.accepted(),
            accepted_per_s: placed.accepted() / placed.accepted_in_s(),
            settled_per_s: placed.accepted() / placed.settled_in_s(),
            accept: placed.load.accept,
            per_order: placed.spent.per_order(placed.accepted(), at_rest),
            work: placed.work.clone(),
        }
    }
}

impl OpenLoop {
    pub(crate) fn of(rate_per_s: f64, placed: Placed) -> OpenLoop {
        let (load, delay) = (placed.load, placed.lateness.delay);
        OpenLoop { rate_per_s, orders: load.sent, accept: load.accept, settle: load.settle, delay }
    }
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

#[cfg(test)]
mod tests;
