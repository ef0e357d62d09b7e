//! The command `ordermill-gateway`.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use ordermill_gateway::Args;
use tracing_subscriber::EnvFilter;

/// A fifth of its time would be the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// One thread answers all requests: it is enough for tens of thousands a second, and the gateway
// mostly shares a small machine with the pipeline that it serves.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match ordermill_gateway::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "ordermill-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}
