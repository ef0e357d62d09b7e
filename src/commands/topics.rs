//! `ordermill topics`: the topics in Kafka.

use anyhow::Result;
use ordermill_pipeline::kafka::admission;
use ordermill_pipeline::{relay, topics};

use crate::connections::Connections;
use crate::database::connect_pool;

/// Creates the topics that are missing and checks the others.
pub(crate) async fn run(connections: &Connections) -> Result<()> {
    let pool = connect_pool(&connections.database_url, "topics", 2).await?;
    admission::admitted(&connections.kafka).await?;
    let partitions = relay::partitions(&pool).await?;
    topics::ensure(&connections.kafka, partitions, &ordermill_workers::groups()).await?;
    Ok(())
}
