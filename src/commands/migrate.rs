//! `ordermill migrate`: the schema, and the log set up once.

use anyhow::{Context as _, Result};
use ordermill_pipeline::relay;
use ordermill_pipeline::topics::PARTITIONS_DEFAULT;
use ordermill_store::migrations;

use crate::arguments::PartitionArgs;
use crate::database::connect_pool;

/// Brings the schema up to date and sets up the log, where it is not.
pub(crate) async fn run(database_url: &str, args: &PartitionArgs) -> Result<()> {
    let pool = connect_pool(database_url, "migrate", 2).await?;
    migrations::run(&pool).await.context("the schema can't be brought up to date")?;
    relay::install(&pool, args.partitions, PARTITIONS_DEFAULT).await?;
    Ok(())
}
