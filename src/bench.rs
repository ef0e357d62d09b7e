//! `ordermill bench`: how many orders a second the pipeline takes and settles, as multiples of what PostgreSQL itself
//! does on the same machine in the same run.
//!
//! One run starts a stack of its own (as `ordermill up` does), and in turn measures
//! 1. T: `pgbench`, TPC-B-like, on the very server that the pipeline uses;
//! 2. the closed loop: every connection busy; the highest rate at which orders are accepted, and settled;
//! 3. the open loop: orders at a fixed modest rate; the latency of acceptance and of settlement, from the moment at
//!    which an order was to be sent;
//! 4. T again, now that the pipeline is idle;
//! 5. the replay: the log that all of this has written, plainly read and then replayed into the shadow.
//!
//! Then it proves by `verify` that what was fast was also right. Orders come over HTTP from a process of their own.
//!
//! An order counts as *accepted* with its 202, and as *settled* when it is CONFIRMED. In the closed loop the last
//! CONFIRMED is seen by asking the database for the oldest order that has not come to rest, twenty times a second: it is
//! seen at most a tenth of a second late. In the open loop one order in ten asks the API to hold its answer until it
//! rests (`Prefer: wait`), so what is measured there is what such a client sees; the API looks every 10 to 25 ms.

mod batches;
mod http;
mod latency;
pub mod load;
mod machine;
mod mix;
mod pgbench;
mod replay;
mod report;
mod run;
mod setup;
mod stack;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::arguments::PartitionArgs;
use crate::shutdown::shutdown_on_signal;

pub use report::Report;

/// The flags of `ordermill bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Orders in the closed loop.
    #[arg(long, default_value_t = 20_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    orders: usize,
    /// Orders before it that are not measured.
    #[arg(long, default_value_t = 2_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=1_000_000))]
    warm_up: usize,
    /// Connections that place orders.
    #[arg(long, default_value_t = 64, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    concurrency: usize,
    /// How long each of the two runs of pgbench takes.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Orders a second in the open loop; by default 30 % of the settled rate that the closed loop has shown.
    #[arg(long)]
    rate: Option<f64>,
    /// How long the open loop sends.
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    open_seconds: u64,
    /// Users who order.
    #[arg(long, default_value_t = 500, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    users: usize,
    /// Products that are ordered.
    #[arg(long, default_value_t = 1_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    products: usize,
    /// Chooses who orders what.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    partitions: PartitionArgs,
    /// Writes all figures into this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keeps the data directory, with the logs, and says where it is.
    #[arg(long)]
    keep: bool,
}

/// Measures and prints. Answers 1 where anything went wrong: an order that was not accepted or not confirmed, or
/// something that `verify` found.
///
/// The stack is the measurement's own, in a directory for temporary files: addresses and data directories given by flags
/// or the environment are not used.
///
/// # Errors
/// Where something could not be measured at all.
pub async fn run(args: &BenchArgs) -> Result<ExitCode> {
    if args.rate.is_some_and(|rate| !(0.1..=100_000.0).contains(&rate)) {
        bail!("--rate must be between 0.1 and 100000 orders a second");
    }
    let shutdown = shutdown_on_signal()?;
    let Some(report) = shutdown.run_until_cancelled(run::measure(args)).await else {
        bail!("stopped before everything was measured");
    };
    let report = report?;
    writeln!(std::io::stdout(), "{report}")?;
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
