//! What was measured, as JSON for machines, and in `text` as tables for people. Names are kept: programs read them.

mod text;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::args::RunArgs;
use crate::cost::{Counts, Spent};
use crate::figures::Batches;
use crate::latency::Percentiles;
use crate::load::report::LoadReport;
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
    pub rates: Vec<Loop>,
    /// The highest rate.
    pub closed_loop: Loop,
    /// What an order of the closed loop takes of the processors, as parts of what one transaction of T takes.
    #[serde(flatten)]
    pub shares: Shares,
    /// Bytes of the write-ahead log for each order of the closed loop, less what the same time costs at rest.
    pub wal_bytes_per_order: f64,
    /// The latency at a modest rate.
    pub open_loop: Loop,
    /// Orders of many lines.
    pub long_orders: Loop,
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
    /// The flags; partitions are those of the log.
    #[serde(flatten)]
    pub args: RunArgs,
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

/// Orders that were placed in one way. The names that end in `_per_order` are those of `per_order`.
#[derive(Clone, Debug, Serialize)]
pub struct Loop {
    /// Orders sent a second in an open loop; none in a closed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<f64>,
    /// Lines of each order; none where they have one or two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<usize>,
    /// Orders accepted.
    pub orders: f64,
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
    /// From when an order was to be sent to its 202; in a closed loop every connection is busy all the time.
    pub accept: Percentiles,
    /// From when an order was to be sent to the answer that says CONFIRMED, held by the API until then (`Prefer: wait`).
    pub settle: Percentiles,
    /// How much later than they should have been orders were sent: part of the latencies above.
    pub delay: Percentiles,
    /// Batches by who made them.
    pub batches: BTreeMap<String, Batches>,
    /// Who used the processors, from the start of the load to the last CONFIRMED.
    pub work: Work,
}

impl Loop {
    pub(crate) fn of(placed: Placed, at_rest: &Spent, t_per_s: f64) -> Loop {
        let per_order = placed.spent.per_order(placed.accepted(), at_rest);
        let (accepted_per_s, settled_per_s) = (placed.accepted_per_s(), placed.settled_per_s());
        let LoadReport { accept, settle, .. } = placed.load;
        Loop {
            rate_per_s: placed.phase.rate,
            lines: placed.phase.lines,
            orders: placed.accepted(),
            accepted_per_s,
            settled_per_s,
            accepted_per_t: accepted_per_s / t_per_s,
            settled_per_t: settled_per_s / t_per_s,
            settled_in_s: placed.settled_in_s(),
            settle_p50_ms: settle.p50_ms,
            settle_p99_ms: settle.p99_ms,
            accept_p50_ms: accept.p50_ms,
            cores: placed.work.cores_of_the_stack(),
            statements_per_order: per_order.statements,
            commits_per_order: per_order.commits,
            wal_bytes_per_order: per_order.wal_bytes,
            kafka_requests_per_order: per_order.kafka_requests,
            per_order,
            accept,
            settle,
            delay: placed.lateness.delay,
            batches: placed.batches,
            work: placed.work,
        }
    }
}

impl Shares {
    /// A transaction of T takes all processors for 1/T of a second.
    pub(crate) fn of(closed: &Loop, orders: usize, cores: usize, t_per_s: f64) -> Shares {
        let (orders, cores) = (orders as f64, cores as f64);
        let share = |part| closed.work.used(part) / orders / (cores / t_per_s);
        Shares {
            postgres_share: share(POSTGRESQL),
            ordermill_share: share(PIPELINE),
            kafka_share: share(KAFKA),
        }
    }
}

/// Orders and what has become of them.
#[derive(Clone, Debug, Default, Serialize)]
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
