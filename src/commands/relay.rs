//! `ordermill relay`: runs a relay; its subcommands look at it, have it publish again, and begin a new era.

mod adopt;
mod rewind;
mod status;

use anyhow::Result;
use clap::{Args, Subcommand};
use ordermill_pipeline::kafka::access::Role;
use ordermill_pipeline::relay::Beside;
use ordermill_store::database_roles::DatabaseRole;

use crate::arguments::ServiceArgs;
use crate::connections::ConnectionArgs;
use crate::pools::Parts;
use crate::services;

/// The flags of `ordermill relay`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RelayArgs {
    #[command(flatten)]
    service: ServiceArgs,
    #[command(subcommand)]
    command: Option<RelayCommand>,
}

#[derive(Debug, Subcommand)]
enum RelayCommand {
    /// Prints who leads, and how far log and relay are.
    Status {
        /// Prints JSON instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Publishes again from a place in the log, under the original labels.
    Rewind(rewind::RewindArgs),
    /// Begins a new era, after the database was restored from an older copy or moved to another cluster.
    Adopt(adopt::AdoptArgs),
}

impl RelayArgs {
    /// Whether a relay is to be run, and not one of the subcommands.
    pub(crate) fn runs_relay(&self) -> bool {
        self.command.is_none()
    }
}

/// Runs a relay, or one of the subcommands.
pub(crate) async fn run(connections: &ConnectionArgs, args: RelayArgs) -> Result<()> {
    match args.command {
        None => {
            let connections = connections.resolve(Role::Relay)?;
            let services = services::connect(Parts::Relay, &connections, args.service.metrics_listen).await?;
            services.may_run([DatabaseRole::Relay]).await?;
            services.run_relay(Beside::Nothing).await;
            Ok(())
        }
        Some(RelayCommand::Status { json }) => status::run(&connections.database_url()?, json).await,
        Some(RelayCommand::Rewind(args)) => rewind::run(&connections.database_url()?, args).await,
        Some(RelayCommand::Adopt(args)) => adopt::run(&connections.resolve(Role::Operator)?, args).await,
    }
}
