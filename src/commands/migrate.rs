//! `ordermill migrate`: the schema, and the log set up once, with its first wire key.

use anyhow::{Context as _, Result};
use ordermill_pipeline::authenticity;
use ordermill_pipeline::relay;
use ordermill_pipeline::topics::PARTITIONS_DEFAULT;
use ordermill_store::migrations;

use crate::arguments::PartitionArgs;
use crate::connections::ConnectionArgs;
use crate::database::connect_pool;

/// Brings the schema up to date and sets up the log, where it is not.
pub(crate) async fn run(connections: &ConnectionArgs, args: &PartitionArgs) -> Result<()> {
    let pool = connect_pool(&connections.database_url()?, "migrate", 2).await?;
    let secrets = connections.wire_secrets()?;
    migrations::run(&pool).await.context("the schema can't be brought up to date")?;
    relay::install(&pool, args.partitions, PARTITIONS_DEFAULT).await?;
    authenticity::install(&pool, &secrets).await?;
    Ok(())
}
