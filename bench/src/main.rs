//! The command `ordermill-bench`.

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use ordermill::logging::{self, LogFormat};
use ordermill::shutdown::shutdown_on_signal;
use ordermill_bench::args::{LongArgs, RunArgs};
use ordermill_bench::load::args::LoadArgs;
use ordermill_bench::{drawing, load, long, run};
use serde::Serialize;
use tokio::runtime::Builder;

/// The same as that of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is logged unless `RUST_LOG` says otherwise.
const LOG_FILTER: &str = "warn,sqlx::query=error,librdkafka=error,rdkafka=off";

/// Measures the order pipeline.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures every load against PostgreSQL itself, and what each order costs, on a stack of its own.
    Run(RunArgs),
    /// Places many orders of many users on a stack of its own, and says whether memory stays as it is.
    Long(LongArgs),
    /// Places orders over HTTP, and says in JSON what became of them.
    Load(LoadArgs),
}

fn main() -> ExitCode {
    logging::start(LogFormat::Text, LOG_FILTER);
    let outcome = match Cli::parse().command {
        Command::Run(args) => on(Builder::new_multi_thread(), run(&args)),
        Command::Long(args) => on(Builder::new_multi_thread(), long(&args)),
        // One thread, so that it takes little from what it measures.
        Command::Load(args) => {
            on(Builder::new_current_thread(), async { load::run(&args).await.map(|()| ExitCode::SUCCESS) })
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // One line: the causes after the message, not below it.
            eprintln!("ordermill-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn on(mut runtime: Builder, work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    runtime.enable_all().build()?.block_on(work)
}

/// Measures everything. Answers 1 where anything went wrong: an order that was not accepted or not confirmed, or something
/// that `verify` found.
async fn run(args: &RunArgs) -> Result<ExitCode> {
    let report = until_told_to_stop(run::measure(args)).await?;
    told(&report, args.json.as_deref())?;
    if let Some(directory) = &args.svg {
        drawn(&drawing::write(&report.measured, directory)?, directory);
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The same for many orders.
async fn long(args: &LongArgs) -> Result<ExitCode> {
    let report = until_told_to_stop(long::measure(args)).await?;
    told(&report, args.json.as_deref())?;
    if let Some(directory) = &args.svg {
        drawn(&[drawing::write_memory(&report.memory(), directory)?], directory);
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn until_told_to_stop<T>(measure: impl Future<Output = Result<T>>) -> Result<T> {
    let told_to_stop = shutdown_on_signal()?;
    tokio::select! {
        report = measure => report,
        // The stack ends with what was dropped.
        () = told_to_stop.cancelled() => bail!("stopped before everything was measured"),
    }
}

/// Prints a report, and writes it down.
fn told(report: &(impl Display + Serialize), json: Option<&Path>) -> Result<()> {
    writeln!(std::io::stdout(), "{report}")?;
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_string_pretty(report)? + "\n")
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

fn drawn(names: &[&str], directory: &Path) {
    for name in names {
        eprintln!("drawn: {}", directory.join(name).display());
    }
}
