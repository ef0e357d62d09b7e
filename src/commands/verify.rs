//! `ordermill verify`: looks at everything and prints what it found.

mod report;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::connections::ConnectionArgs;
use crate::one_line::one_line;
use crate::verify::{Facts, look};

use report::AsText;

/// What the process answers where something does not add up.
const VIOLATED: u8 = 1;
/// What the process answers where it could not look.
const NOT_LOOKED: u8 = 2;

/// The flags of `ordermill verify`.
#[derive(Args, Clone, Debug)]
pub(crate) struct VerifyArgs {
    /// Prints JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Looks at everything and prints what it found. Answers 0 where all is well, 1 where something does not add up, 2
/// where it could not look, with one line on standard error that says why.
///
/// # Errors
/// Where standard output can't be written.
pub(crate) async fn run(args: VerifyArgs, connections: &ConnectionArgs) -> Result<ExitCode> {
    let facts = match connections.resolve() {
        Ok(connections) => Facts::of(&connections),
        // 1 would say that something does not add up.
        Err(error) => {
            eprintln!("ordermill: {error:#}");
            return Ok(ExitCode::from(NOT_LOOKED));
        }
    };
    let report = match look(&facts).await {
        Ok(report) => report,
        Err(error) => {
            writeln!(std::io::stderr(), "ordermill: nothing verified: {}", one_line(&error))?;
            return Ok(ExitCode::from(NOT_LOOKED));
        }
    };
    let text = if args.json { serde_json::to_string_pretty(&report)? } else { AsText(&report).to_string() };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(VIOLATED) })
}
