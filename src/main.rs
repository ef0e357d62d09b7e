//! The command `ordermill`.

use std::process::ExitCode;

use clap::Parser as _;
use ordermill::cli::Cli;

/// Batches allocate and free in bursts, from several threads: the system's allocator spends its time on merging.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ordermill::cli::run(Cli::parse())
}
