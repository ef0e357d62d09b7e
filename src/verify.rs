//! Whether money, stock, charges, orders and log add up.
//!
//! It only reads, and may be run on a pipeline at work. The tables are compared as they stood at one moment;
//! what the gateway and Kafka hold is compared with what the database says at the time.

pub(crate) mod charge;
mod gateway;
pub(crate) mod ledger;
mod serving;

use anyhow::Result;
use jiff::Timestamp;
use ordermill_pipeline::audit::{self, Check};
use ordermill_pipeline::clock::Clock;
use ordermill_schemas::Topic;
use ordermill_store::verification::{self, Groups};
use ordermill_workers::Worker;
use sqlx::PgPool;

use crate::connections::Connections;
use crate::database::{connect_pool, explain};

pub use ordermill_pipeline::audit::Report;
pub use serving::verifier;

/// One transaction for the tables, one connection for what is read afresh.
const CONNECTIONS_MAX: u32 = 2;

/// Looks at everything.
///
/// # Errors
/// Where database, gateway or Kafka does not answer.
pub async fn look(connections: &Connections) -> Result<Report> {
    let pool = connect_pool(&connections.database_url, "verify", CONNECTIONS_MAX).await?;
    let at = Clock::system().now();
    // One after the other: an error ends it at once, and no two of them need memory and time together.
    let mut checks = look_at_database(&pool, at).await.map_err(explain)?;
    checks.push(gateway::check(&pool, connections).await?);
    checks.push(audit::log_against_kafka::<Topic>(&pool, &connections.kafka).await?);
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
