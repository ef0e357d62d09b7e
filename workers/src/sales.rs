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
        for received in batch.events {
            sums.observe(&received.event, received.at);
        }
        sales::add(connection, &sums).await?;
        Ok(Handled { entries: Vec::new(), had_effect: sums != Sums::default() })
    }
}
