//! The sales worker: keeps the sums that rankings and statistics are made from. It follows the orders' events alone,
//! decides nothing and appends nothing.

use ordermill_domain::sales::Sums;
use ordermill_pipeline::consumer::{Batch, Handled, Handler, HandlerError};
use ordermill_schemas::Topic;
use ordermill_store::sales;
use sqlx::PgConnection;

/// The sales worker.
pub struct SalesWorker;

impl Handler for SalesWorker {
    const GROUP: &'static str = "sales";
    const TOPICS: &'static [Topic] = &[Topic::Orders];

    async fn handle(
        &self,
        connection: &mut PgConnection,
        batch: &Batch<'_>,
    ) -> Result<Handled, HandlerError> {
        let mut sums = Sums::default();
        let mut effects = Vec::new();
        for received in batch.events {
            sums.observe(&received.event, received.at);
            if batch.tells_effects {
                let mut alone = Sums::default();
                alone.observe(&received.event, received.at);
                effects.push(alone != Sums::default());
            }
        }
        sales::add(connection, &sums).await?;
        Ok(Handled { entries: Vec::new(), effects })
    }
}
