//! The flags of `ordermill-bench run`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;

/// What is measured, and for how long.
///
/// The stack is the measurement's own, in a directory for temporary files: addresses and data directories given by the
/// environment are not used. The report says it as JSON.
#[derive(Args, Clone, Debug, Serialize)]
pub struct RunArgs {
    /// Orders in the closed loop.
    #[arg(long, default_value_t = 20_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub orders: usize,
    /// Orders before everything else that are not measured.
    #[arg(long, default_value_t = 2_000, value_parser = RangedU64ValueParser::<usize>::new().range(0..=1_000_000))]
    pub warm_up: usize,
    /// Orders of 50 lines in a closed loop of their own.
    #[arg(long, default_value_t = 1_000, value_parser = RangedU64ValueParser::<usize>::new().range(0..=1_000_000))]
    pub long_orders: usize,
    /// Connections that place orders.
    #[arg(long, default_value_t = 64, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    #[serde(rename = "connections")]
    pub concurrency: usize,
    /// How long each of the two runs of pgbench takes.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    #[serde(rename = "pgbench_seconds")]
    pub seconds: u64,
    /// How long the pipeline is watched at rest.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub rest_seconds: u64,
    /// Orders a second in the last open loop; by default 30 % of the settled rate that the closed loop has shown.
    #[arg(long)]
    pub rate: Option<f64>,
    /// How long each open loop sends.
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub open_seconds: u64,
    /// Users who order.
    #[arg(long, default_value_t = 500, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub users: usize,
    /// Products that are ordered.
    #[arg(long, default_value_t = 1_000, value_parser = RangedU64ValueParser::<usize>::new().range(50..=10_000))]
    pub products: usize,
    /// Chooses who orders what.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many partitions each topic has; by default as many as `ordermill up` gives it.
    #[arg(long, env = "ORDERMILL_PARTITIONS", value_name = "COUNT", value_parser = clap::value_parser!(i16).range(1..=1_000))]
    pub partitions: Option<i16>,
    /// Writes all figures into this file, as JSON.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
    /// Keeps the data directory, with the logs, and says where it is.
    #[arg(long)]
    #[serde(skip)]
    pub keep: bool,
}
