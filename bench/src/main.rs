//! The command `ordermill-bench`.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use ordermill::logging::{self, LogFormat};
use ordermill::shutdown::shutdown_on_signal;
use ordermill_bench::args::RunArgs;
use ordermill_bench::load::args::LoadArgs;
use ordermill_bench::{load, run};
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
    /// Measures orders per second against PostgreSQL itself, and what each order costs, on a stack of its own.
    Run(RunArgs),
    /// Places orders over HTTP, and says in JSON what became of them.
    Load(LoadArgs),
}

fn main() -> ExitCode {
    logging::start(LogFormat::Text, LOG_FILTER);
    let outcome = match Cli::parse().command {
        Command::Run(args) => on(Builder::new_multi_thread(), measure(&args)),
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

/// Measures and prints. Answers 1 where anything went wrong: an order that was not accepted or not confirmed, or
/// something that `verify` found.
async fn measure(args: &RunArgs) -> Result<ExitCode> {
    if args.rate.is_some_and(|rate| !(0.1..=100_000.0).contains(&rate)) {
        bail!("--rate must be between 0.1 and 100000 orders a second");
    }
    let told_to_stop = shutdown_on_signal()?;
    let report = tokio::select! {
        report = run::measure(args) => report?,
        // The stack ends with what was dropped.
        () = told_to_stop.cancelled() => bail!("stopped before everything was measured"),
    };
    writeln!(std::io::stdout(), "{report}")?;
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
