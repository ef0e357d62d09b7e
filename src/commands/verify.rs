//! `ordermill verify`: looks at everything and prints what it found.

mod report;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use ordermill_pipeline::kafka::admission;

use crate::connections::Connections;
use crate::output::{answer, show};
use crate::verify::look;

/// Looks at everything and prints what it found. Answers 0 where all is well, 1 where something does not add up.
///
/// # Errors
/// Where it could not look.
pub(crate) async fn run(json: bool, connections: &Connections) -> Result<ExitCode> {
    admission::admitted(&connections.kafka).await.context("nothing verified")?;
    let report = look(connections).await.context("nothing verified")?;
    show(&report, json, || report::text(&report))?;
    Ok(answer(report.ok))
}
