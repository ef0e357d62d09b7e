//! `ordermill dlq`: looks at dead letters, edits, replays and discards them.
//!
//! It works on the database itself, so it also works while the API is down. What it prints as JSON is what the API
//! answers. It exits with 0 where what was asked for is done, 1 where a replay could not apply every letter, 2 where
//! it could not do what was asked, with one line on standard error that says why.

mod changes;
mod desk;
mod edit;
mod filter;
mod list;
mod payload;
mod progress;
mod replay;
mod show;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use ordermill_pipeline::clock::Clock;

use crate::connections::ConnectionArgs;
use crate::database::connect_pool;
use crate::output::answer;

use desk::Desk;

/// One for what is asked, one for what is looked at meanwhile.
const CONNECTIONS_MAX: u32 = 2;

/// The flags of `ordermill dlq`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
    /// Prints JSON as the API answers it, instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum DlqCommand {
    /// Lists dead letters, the newest first.
    List(list::ListArgs),
    /// Counts dead letters by topic, group and code.
    Groups(filter::FilterArgs),
    /// Shows one with headers, payload, the failing place, and what was done to it.
    Show(show::ShowArgs),
    /// Has the groups that failed apply dead letters, or with --dry-run say what would come of it.
    Replay(replay::ReplayArgs),
    /// Lists the latest replays.
    Replays {
        /// How many at most.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        limit: u16,
    },
    /// Shows how far a replay is, until it is done.
    Progress(replay::ProgressArgs),
    /// Puts another payload into a dead letter, for its next replay; the payload as it came is kept.
    Edit(edit::EditArgs),
    /// Decides that a dead letter is never applied.
    Discard(changes::DiscardArgs),
    /// Lists the groups that have stopped since too much of what they read can't be applied.
    Halts,
    /// Has a group go on that has stopped.
    Resume(changes::ResumeArgs),
}

/// Does what is asked.
pub(crate) async fn run(args: DlqArgs, connections: &ConnectionArgs) -> Result<ExitCode> {
    let pool = connect_pool(&connections.database_url()?, "dlq", CONNECTIONS_MAX).await?;
    let prefix = connections.topic_prefix()?;
    let desk = Desk { pool, prefix, clock: Clock::system(), json: args.json };
    match args.command {
        DlqCommand::Replay(args) => return Ok(answer(replay::replay(&desk, args).await?)),
        DlqCommand::Progress(args) => return Ok(answer(replay::progress(&desk, &args).await?)),
        DlqCommand::List(args) => list::list(&desk, &args).await?,
        DlqCommand::Groups(args) => list::groups(&desk, &args).await?,
        DlqCommand::Show(args) => show::show(&desk, &args).await?,
        DlqCommand::Replays { limit } => replay::replays(&desk, limit).await?,
        DlqCommand::Edit(args) => edit::edit(&desk, &args).await?,
        DlqCommand::Discard(args) => changes::discard(&desk, &args).await?,
        DlqCommand::Halts => changes::halts(&desk).await?,
        DlqCommand::Resume(args) => changes::resume(&desk, &args).await?,
    }
    Ok(ExitCode::SUCCESS)
}
