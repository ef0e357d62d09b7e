//! The flags of `ordermill-bench run` and of `ordermill-bench long`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use crate::plan::Measurement;

/// What is measured, and for how long.
///
/// The stack is the measurement's own, in a directory for temporary files: addresses and data directories given by the
/// environment are not used. The report says it as JSON.
#[derive(Args, Clone, Debug, Serialize)]
pub struct RunArgs {
    /// Measures only these, separated by commas, and what they need.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub only: Vec<Measurement>,
    /// Orders in each closed loop.
    #[arg(long, default_value_t = 20_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub orders: usize,
    /// Orders before everything else that are not measured.
    #[arg(long, default_value_t = 2_000, value_parser = RangedU64ValueParser::<usize>::new().range(0..=1_000_000))]
    pub warm_up: usize,
    /// Orders of one product, and orders of one user, in closed loops of their own. One user's money is enough for so many.
    #[arg(long, default_value_t = 10_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=25_000))]
    pub hot_orders: usize,
    /// Orders of 50 lines in a closed loop of their own.
    #[arg(long, default_value_t = 1_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub long_orders: usize,
    /// Orders in each closed loop on an API without relay and workers.
    #[arg(long, default_value_t = 20_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub alone_orders: usize,
    /// Connections that place orders, but for the loops that have 256.
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
    /// Orders a second in the last open loop; by default half of what the closed loop has settled.
    #[arg(long)]
    pub rate: Option<f64>,
    /// How long each open loop sends at least.
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub open_seconds: u64,
    /// How many orders each open loop sends at least.
    #[arg(long, default_value_t = 1_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub open_orders: usize,
    /// Users who order.
    #[arg(long, default_value_t = 500, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub users: usize,
    /// Products that are ordered.
    #[arg(long, default_value_t = 1_000, value_parser = RangedU64ValueParser::<usize>::new().range(50..=10_000))]
    pub products: usize,
    /// Users who claim a coupon, each once.
    #[arg(long, default_value_t = 20_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub claimants: usize,
    /// How many of them can get it.
    #[arg(long, default_value_t = 200, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub coupons: usize,
    /// Records that are sent to Kafka and read again, one after the other.
    #[arg(long, default_value_t = 2_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub round_trips: usize,
    /// Chooses who orders what.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How the stack is started, and whether its data is kept.
    #[command(flatten)]
    #[serde(flatten)]
    pub stack: StackArgs,
    /// Writes all figures into this file, as JSON.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
    /// Draws latency against load, and where an order's time goes, into this directory, as SVG.
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub svg: Option<PathBuf>,
}

/// How many orders of how many users.
#[derive(Args, Clone, Debug, Serialize)]
pub struct LongArgs {
    /// Orders in all.
    #[arg(long, default_value_t = 300_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000_000))]
    pub orders: usize,
    /// In so many portions, after each of which memory is looked at.
    #[arg(long, default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    pub portions: usize,
    /// Users who order.
    #[arg(long, default_value_t = 100_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub users: usize,
    /// Products that are ordered.
    #[arg(long, default_value_t = 1_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub products: usize,
    /// Connections that place orders.
    #[arg(long, default_value_t = 64, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    #[serde(rename = "connections")]
    pub concurrency: usize,
    /// Chooses who orders what.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How the stack is started, and whether its data is kept.
    #[command(flatten)]
    #[serde(flatten)]
    pub stack: StackArgs,
    /// Writes all figures into this file, as JSON.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
    /// Draws memory over orders into this directory, as SVG.
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub svg: Option<PathBuf>,
}

/// The stack that is measured.
#[derive(Args, Clone, Debug, Serialize)]
pub struct StackArgs {
    /// How many partitions each topic has; by default as many as `ordermill up` gives it.
    #[arg(long, env = "ORDERMILL_PARTITIONS", value_name = "COUNT", value_parser = clap::value_parser!(i16).range(1..=1_000))]
    pub partitions: Option<i16>,
    /// Starts the stack by `ordermill up --secure`, to measure what TLS costs.
    #[arg(long)]
    pub secure: bool,
    /// Keeps the data directory, with the logs, and says where it is.
    #[arg(long)]
    #[serde(skip)]
    pub keep: bool,
}
