//! Runs a command beside a PostgreSQL of its own, whose address is in `DATABASE_URL`.

use std::process::{Command, ExitCode};

use ordermill_stack::Private;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: with-postgres COMMAND [ARGUMENT ...]");
        return ExitCode::FAILURE;
    };
    let postgres = match Private::postgres() {
        Ok(postgres) => postgres,
        Err(error) => {
            eprintln!("with-postgres: {error}");
            return ExitCode::FAILURE;
        }
    };
    let status =
        Command::new(&program).args(arguments).env("DATABASE_URL", postgres.url("ordermill")).status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("with-postgres: can't run {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
