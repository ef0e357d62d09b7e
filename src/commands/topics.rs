//! `ordermill topics`: the topics in Kafka, and who may do what with them.

mod access;

use anyhow::Result;
use clap::{Args, Subcommand};
use ordermill_pipeline::kafka::access::Role;
use ordermill_pipeline::kafka::admission;
use ordermill_pipeline::{relay, topics};

use crate::connections::ConnectionArgs;
use crate::database::connect_pool;
use crate::kafka_users::KafkaUsers;

/// The flags of `ordermill topics`.
#[derive(Args, Debug)]
pub(crate) struct TopicsArgs {
    #[command(subcommand)]
    command: Option<TopicsCommand>,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Allows Kafka's users what their roles need, and nothing more; what they may do already they still may. Safe to repeat.
    Access(access::AccessArgs),
}

/// Creates the topics that are missing and checks the others; or says who may do what with them.
pub(crate) async fn run(connections: &ConnectionArgs, args: TopicsArgs) -> Result<()> {
    if let Some(TopicsCommand::Access(args)) = args.command {
        return access::run(&connections.kafka_as(KafkaUsers::owner)?, &args).await;
    }
    let connections = connections.resolve(Role::Operator)?;
    let pool = connect_pool(&connections.database_url, "topics", 2).await?;
    admission::admitted(&connections.kafka).await?;
    let partitions = relay::partitions(&pool).await?;
    topics::ensure(&connections.kafka, partitions, &ordermill_workers::groups()).await?;
    Ok(())
}
