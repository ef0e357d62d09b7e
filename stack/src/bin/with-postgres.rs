//! Runs a command beside a PostgreSQL of its own, whose address is in `DATABASE_URL`.

use std::process::{Command, ExitCode};

use ordermill_stack::Private;

fn main() -> ExitCode {
    run().unwrap_or_else(|complaint| {
        eprintln!("{complaint}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode, String> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().ok_or("usage: with-postgres COMMAND [ARGUMENT ...]")?;
    let postgres = Private::postgres().map_err(|error| format!("with-postgres: {error}"))?;
    let status =
        Command::new(&program).args(arguments).env("DATABASE_URL", postgres.url("ordermill")).status();
    let status =
        status.map_err(|error| format!("with-postgres: can't run {}: {error}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
