//! The tree of commands and who runs each. Nothing that a command uses stands here.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use ordermill_pipeline::kafka::access::Role;

use crate::arguments::PartitionArgs;
use crate::commands::{
    api, dlq, keys, migrate, order, payments, relay, replay, roles, topics, up, verify, worker,
};
use crate::connections::ConnectionArgs;
use crate::logging::{self, LogFormat};
use crate::one_line::one_line;
use crate::output::{ReaderGone, note};
use crate::printable::printable;

/// A message-driven, asynchronous order pipeline for online shops.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    connections: ConnectionArgs,
    /// What log lines look like; by default text on a terminal and JSON elsewhere.
    #[arg(long, env = "ORDERMILL_LOG_FORMAT", global = true)]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything on this machine: PostgreSQL, Kafka, gateway, API, relay and workers.
    Up(up::UpArgs),
    /// Runs the HTTP front.
    Api(api::ApiArgs),
    /// Runs workers, all or the named ones.
    Worker(worker::WorkerArgs),
    /// Runs a relay, which publishes or stands by; or looks at it, has it publish again, begins a new era.
    Relay(relay::RelayArgs),
    /// Brings the database's schema up to date and sets up the log.
    Migrate(PartitionArgs),
    /// Makes the roles of the database and says what each may do; as the owner of the tables, after each `migrate`.
    Roles(roles::RolesArgs),
    /// Creates the topics that are missing and checks the others; or allows Kafka's users what their roles need.
    Topics(topics::TopicsArgs),
    /// Gives back what the gateway holds for orders that the database does not know.
    #[command(subcommand)]
    Payments(payments::PaymentsCommand),
    /// Lists, makes, replaces and revokes API keys of administrators and customers; or looks at wire keys and changes them.
    Keys(keys::KeysArgs),
    /// Checks on the live system that money, stock, charges, orders and log add up.
    Verify {
        /// Prints JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Tells the whole story of one order.
    Order(order::OrderArgs),
    /// Looks at dead letters, edits, replays and discards them; works on the database, also without the API.
    Dlq(dlq::DlqArgs),
    /// Makes the state tables again from the log: to compare, to look at the past, to mend a projection.
    Replay(replay::ReplayArgs),
}

/// What services log.
const SERVICES_FILTER: &str = "info,librdkafka=error,rdkafka=off";
/// What commands log that run to an end and print what they have to say.
const TOOLS_FILTER: &str = "warn,sqlx::query=error,librdkafka=error,rdkafka=off";

/// Runs a command to its end; where it could not do what was asked, says why in one line on standard error. Where nobody reads what it
/// prints, it says nothing, and answers neither that all is well nor that something was found.
pub fn run(cli: Cli) -> ExitCode {
    let failed = match &cli.command {
        // 1 says that they found something.
        Command::Verify { .. } | Command::Order(_) | Command::Dlq(_) | Command::Replay(_) => 2,
        _ => 1,
    };
    start(cli).unwrap_or_else(|error| {
        if error.is::<ReaderGone>() {
            return ExitCode::from(ReaderGone::EXIT_CODE);
        }
        note(&format!("ordermill: {}", printable(&one_line(&error))));
        ExitCode::from(failed)
    })
}

fn start(cli: Cli) -> Result<ExitCode> {
    let default_filter = match &cli.command {
        // `up` shows its progress itself.
        Command::Up(_) => "warn,librdkafka=off,rdkafka=off",
        Command::Api(_) | Command::Worker(_) => SERVICES_FILTER,
        Command::Relay(args) if args.runs_relay() => SERVICES_FILTER,
        _ => TOOLS_FILTER,
    };
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let format = cli.log_format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    logging::start(format, default_filter);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(command(cli))
}

async fn command(cli: Cli) -> Result<ExitCode> {
    let connections = cli.connections;
    match cli.command {
        Command::Up(args) => return up::run(&connections, args).await,
        Command::Verify { json } => return verify::run(json, &connections.resolve(Role::Api)?).await,
        Command::Order(args) => return order::run(&args, connections.database_url()).await,
        Command::Dlq(args) => return dlq::run(args, &connections).await,
        Command::Replay(args) => return replay::run(&args, &connections.database_url()?).await,
        Command::Payments(command) => return payments::run(&connections.resolve(Role::Api)?, command).await,
        Command::Migrate(args) => migrate::run(&connections, &args).await?,
        Command::Roles(args) => roles::run(&connections, &args).await?,
        Command::Topics(args) => topics::run(&connections, args).await?,
        Command::Keys(args) => keys::run(&connections, args).await?,
        Command::Api(args) => api::run(&connections.resolve(Role::Api)?, args).await?,
        Command::Relay(args) => relay::run(&connections, args).await?,
        Command::Worker(args) => worker::run(&connections.resolve(Role::Worker)?, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}
