//! What was measured, as JSON for machines, and in `text` as tables for people. Names are kept: programs read them.

mod headline;
mod loops;
pub(crate) mod table;
mod text;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::args::RunArgs;
use crate::backlog::Backlog;
use crate::claims::Claims;
use crate::cost::Counts;
use crate::latency::Percentiles;
use crate::machine::{Machine, Work};
use crate::memory::Memory;
use crate::replay::ReplayRates;
use crate::timetable::Took;

pub use self::headline::Headline;
pub use self::loops::{Loop, Shares};

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
    /// How long each step has taken.
    pub steps: Vec<Took>,
    /// The figures that are asked for most.
    #[serde(flatten)]
    pub headline: Headline,
    /// What was measured.
    #[serde(flatten)]
    pub measured: Measured,
    /// Orders of all phases, the warm-up included.
    pub orders: OrderCounts,
    /// What went wrong in any phase, and how often.
    pub errors: BTreeMap<String, u64>,
    /// What `ordermill verify` said at the end.
    pub verify: Verified,
}

/// What was measured. What was not is not there.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    /// PostgreSQL itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgbench: Option<PgbenchRates>,
    /// What the pipeline does while nobody orders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_rest: Option<AtRest>,
    /// Latency and cost at fixed rates, the last of them half of what the closed loop has settled.
    pub rates: Vec<Loop>,
    /// The highest rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_loop: Option<Loop>,
    /// The same over 256 connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_loop_256: Option<Loop>,
    /// Half of what the closed loop has settled: the last of `rates`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_loop: Option<Loop>,
    /// All orders on one product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot_product: Option<Loop>,
    /// All orders of one user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot_user: Option<Loop>,
    /// Orders of many lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long_orders: Option<Loop>,
    /// Claims of a coupon of which there are too few.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<Claims>,
    /// Orders that nobody settles, over 64 and over 256 connections.
    pub accepted_alone: Vec<Loop>,
    /// What waited, published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Backlog>,
    /// From sending a record to having read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip: Option<Percentiles>,
    /// The log that this run has written, replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayRates>,
    /// The pipeline's process, after all of this.
    pub memory: Memory,
    /// What an order of the closed loop takes of the processors, as parts of what one transaction of T takes.
    #[serde(flatten)]
    pub shares: Option<Shares>,
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
pub(crate) mod tests;
