//! Orders that were placed in one way, and what they cost.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cost::{Counts, Spent};
use crate::figures::Batches;
use crate::latency::Percentiles;
use crate::load::report::LoadReport;
use crate::machine::{KAFKA, PIPELINE, POSTGRESQL, Work};
use crate::phase::Placed;

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
    /// Connections that they came over.
    pub connections: usize,
    /// Orders accepted.
    pub orders: f64,
    /// From the first send to the last 202.
    pub accepted_per_s: f64,
    /// From the first 202 to when the last order was seen CONFIRMED.
    pub settled_per_s: f64,
    /// The former as a multiple of T, where that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_per_t: Option<f64>,
    /// The latter as a multiple of T.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_per_t: Option<f64>,
    /// From the first 202 to when the last order was seen CONFIRMED, in seconds; none where nobody settles them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_in_s: Option<f64>,
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
    /// All counts for each order, less what the same time costs at rest where that was measured.
    pub per_order: Counts,
    /// From when an order was to be sent to its 202; in a closed loop every connection is busy all the time.
    pub accept: Percentiles,
    /// From when an order was to be sent to the answer that says CONFIRMED, held by the API until then (`Prefer: wait`).
    pub settle: Percentiles,
    /// From acceptance to the last visible change, as the database has it, of every order.
    pub settle_in_database: Percentiles,
    /// How much later than they should have been orders were sent: part of the latencies above.
    pub delay: Percentiles,
    /// Batches by who made them.
    pub batches: BTreeMap<String, Batches>,
    /// Who used the processors, from the start of the load to the last CONFIRMED.
    pub work: Work,
}

impl Loop {
    /// What one way of placing orders has shown; `at_rest` is taken off the counts.
    pub(crate) fn of(placed: Placed, at_rest: &Spent, t_per_s: Option<f64>) -> Loop {
        let per_order = placed.spent.per_order(placed.accepted(), at_rest);
        let (accepted_per_s, settled_per_s) = (placed.accepted_per_s(), placed.settled_per_s());
        let LoadReport { accept, settle, .. } = placed.load;
        Loop {
            rate_per_s: placed.phase.rate,
            lines: placed.phase.lines,
            connections: placed.phase.connections,
            orders: placed.accepted(),
            accepted_per_s,
            settled_per_s,
            accepted_per_t: t_per_s.map(|t| accepted_per_s / t),
            settled_per_t: t_per_s.map(|t| settled_per_s / t),
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
            settle_in_database: placed.settled_in_database,
            delay: placed.lateness.delay,
            batches: placed.batches,
            work: placed.work,
        }
    }
}

impl Shares {
    /// A transaction of T takes all processors for 1/T of a second.
    pub(crate) fn of(closed: &Loop, cores: usize, t_per_s: f64) -> Shares {
        let (orders, cores) = (closed.orders.max(1.0), cores as f64);
        let share = |part| closed.work.used(part) / orders / (cores / t_per_s);
        Shares {
            postgres_share: share(POSTGRESQL),
            ordermill_share: share(PIPELINE),
            kafka_share: share(KAFKA),
        }
    }
}
