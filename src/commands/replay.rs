//! `ordermill replay`: makes the state tables again from the log, to compare, to look at the past, to mend a projection.

mod report;

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use jiff::Timestamp;
use ordermill_pipeline::audit;
use ordermill_pipeline::clock::Clock;
use ordermill_store::replay::moment::{self, State, Subject};
use ordermill_store::replay::swap::Projection;
use serde::Serialize;

use crate::database::{connect_pool, explain};
use crate::output::{answer, show};
use crate::replay::{Options, Progress, processors, rebuild, swap};
use crate::verify::groups;

/// The flags of `ordermill replay`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReplayArgs {
    /// Compares what the log makes with the live tables, as both are at one moment; exits with 1 where they differ.
    #[arg(long, conflicts_with_all = ["at", "swap"])]
    pub(crate) check: bool,
    /// Replays up to this time, like 2026-11-21T10:00:00Z.
    #[arg(long, value_name = "TIME", conflicts_with = "swap", value_parser = time)]
    pub(crate) at: Option<Timestamp>,
    /// Shows one aggregate as it was then, like order:ID; or reservation, payment, shipment, balance, product, stock,
    /// coupon, claim, coupon-use, user-coupon.
    #[arg(long, value_name = "KIND:ID", requires = "at")]
    pub(crate) aggregate: Option<Subject>,
    /// Puts this projection in the place of the live one, while its worker goes on: sales.
    #[arg(long, value_name = "TABLE", value_parser = Projection::named)]
    pub(crate) swap: Option<Projection>,
    /// How many parts of the log are replayed side by side; by default as many as there are processors.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64), conflicts_with_all = ["aggregate", "swap"])]
    pub(crate) jobs: Option<u32>,
    /// Prints JSON instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "not a time with its offset, like 2026-11-21T10:00:00Z".to_owned())
}

/// Replays and prints what came of it. Answers 0 where all is well, 1 where the tables are not what the log makes or the
/// log can't be read in full.
///
/// # Errors
/// Where it could not look.
pub(crate) async fn run(args: &ReplayArgs, database_url: &str) -> Result<ExitCode> {
    if let Some(at) = args.at {
        let now = Clock::system().now();
        if at > now {
            bail!("{at} lies in the future: it is {now}");
        }
        if let Some(subject) = args.aggregate {
            return print(&state(database_url, subject, at).await?, true, args.json);
        }
    }
    if let Some(projection) = args.swap {
        return print(&swap(database_url, projection).await?, true, args.json);
    }
    let options = Options { jobs: args.jobs.unwrap_or_else(processors), check: args.check, until: args.at };
    let progress = Progress::default();
    let rebuilt = progress.shown(rebuild(database_url, options, &progress)).await?;
    let report = report::Report::of(options, rebuilt);
    print(&report, report.ok, args.json)
}

fn print(found: &(impl Serialize + Display), is_well: bool, json: bool) -> Result<ExitCode> {
    show(found, json, || found.to_string())?;
    Ok(answer(is_well))
}

/// One aggregate as it was.
async fn state(database_url: &str, subject: Subject, at: Timestamp) -> Result<report::Shown> {
    let pool = connect_pool(database_url, "replay", 1).await?;
    let look = async {
        let mut snapshot = audit::snapshot(&pool).await?;
        let applied = audit::applied(&mut snapshot, groups().orders).await?;
        let state = moment::state_at(&mut snapshot, subject, at, &applied).await?;
        snapshot.rollback().await?;
        Ok(state)
    };
    let state = look.await.map_err(explain).with_context(|| format!("{subject} could not be replayed"))?;
    pool.close().await;
    match state {
        State::Known(document) => Ok(report::Shown { at, aggregate: subject.to_string(), state: document }),
        State::BeginsAt(first) => bail!("{subject} did not exist at {at}: its first event is of {first}"),
        State::Unknown => bail!("the log knows no {subject}"),
    }
}
