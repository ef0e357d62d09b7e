//! `ordermill verify`: whether money, stock, charges, orders and log add up.
//!
//! It only reads, and may be run on a pipeline at work. The tables are compared as they stood at one moment;
//! what the gateway and Kafka hold is compared with what the database says at the time.

pub(crate) mod charge;
mod gateway;
pub(crate) mod ledger;
mod report;
mod serving;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use ordermill_pipeline::audit::{self, Check};
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_store::verification::{self, Groups};
use ordermill_workers::Worker;
use sqlx::PgPool;

use crate::connections::Connections;
use crate::services::connect_pool;

use report::AsText;

pub use ordermill_pipeline::audit::Report;
pub use serving::verifier;

/// One transaction for the tables, one connection for what is read afresh.
const CONNECTIONS_MAX: u32 = 2;
/// What the process answers where something does not add up.
const VIOLATED: u8 = 1;
/// What the process answers where it could not look.
const NOT_LOOKED: u8 = 2;

/// The flags of `ordermill verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Prints JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The database.
    pub database_url: String,
    /// Kafka.
    pub kafka: KafkaConfig,
    /// The payment gateway; without it, what it holds is not looked at.
    pub gateway_url: Option<String>,
}

impl Facts {
    /// What these connections lead to.
    #[must_use]
    pub fn of(connections: &Connections) -> Facts {
        Facts {
            database_url: connections.database_url.clone(),
            kafka: connections.kafka.clone(),
            gateway_url: connections.gateway_url.clone(),
        }
    }
}

/// Looks at everything and prints what it found. Answers 0 where all is well, 1 where something does not add up, 2
/// where it could not look, with one line on standard error that says why.
///
/// # Errors
/// Where standard output can't be written.
pub async fn run(args: VerifyArgs, facts: Facts) -> Result<ExitCode> {
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

/// Looks at everything.
///
/// # Errors
/// Where database, gateway or Kafka does not answer.
pub async fn look(facts: &Facts) -> Result<Report> {
    let pool = connect_pool(&facts.database_url, "verify", CONNECTIONS_MAX).await?;
    let at = Clock::system().now();
    // One after the other: an error ends it at once, and no two of them need memory and time together.
    let mut checks = look_at_database(&pool, at).await.map_err(explain)?;
    checks.push(gateway::check(&pool, facts.gateway_url.as_deref()).await?);
    checks.push(audit::log_against_kafka(&pool, &facts.kafka).await?);
    pool.close().await;
    Ok(Report::new(checks, at))
}

/// Everything that one moment of the database can tell. `now` lies before that moment, so a deadline before it has
/// passed there, too.
async fn look_at_database(pool: &PgPool, now: Timestamp) -> Result<Vec<Check>, sqlx::Error> {
    let mut snapshot = audit::snapshot(pool).await?;
    let mut checks = verification::check_all(&mut snapshot, groups(), now).await?;
    checks.push(audit::sequences(&mut snapshot).await?);
    checks.push(audit::dead_letters(&mut snapshot).await?);
    snapshot.rollback().await?;
    Ok(checks)
}

/// The groups whose tables are checked up to where they have read.
#[must_use]
pub fn groups() -> Groups {
    Groups { orders: Worker::Orders.name(), sales: Worker::Sales.name() }
}

/// A database error in words that say what to do.
pub(crate) fn explain(error: sqlx::Error) -> anyhow::Error {
    const UNDEFINED_TABLE: &str = "42P01";
    const INSUFFICIENT_PRIVILEGE: &str = "42501";
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    let code = error.as_database_error().and_then(|error| error.code());
    let advice = match code.as_deref() {
        Some(UNDEFINED_TABLE) => "the database is not set up: run `ordermill migrate` first",
        Some(INSUFFICIENT_PRIVILEGE) => {
            "the role of DATABASE_URL is not allowed to; use the owner of the database"
        }
        Some(LOCK_NOT_AVAILABLE) => "another transaction holds on to it; look at pg_locks, or try again",
        _ => "the database failed",
    };
    anyhow::Error::new(error).context(advice)
}

/// An error with its causes. Some say their cause themselves; it is not said twice.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(|cause| cause.to_string().replace('\n', " ")) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_is_one_line_with_each_cause_once() {
        let error =
            anyhow!("port 1 is\nclosed").context("can't connect: port 1 is closed").context("no Kafka");
        assert_eq!(one_line(&error), "no Kafka: can't connect: port 1 is closed");
    }
}
