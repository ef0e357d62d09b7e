//! The command `ordermill`.

use std::process::ExitCode;

use clap::Parser as _;
use ordermill::cli::Cli;

/// Batches allocate and free in bursts, from several threads: the system's allocator spends its time on merging.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match ordermill::cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // One line: the causes after the message, not below it.
            eprintln!("ordermill: {error:#}");
            ExitCode::FAILURE
        }
    }
}
