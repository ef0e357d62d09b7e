//! The stock worker: reserves what is ordered, deducts what is paid, gives back what is refused.

use jiff::Timestamp;
use ordermill_domain::stock::Stock;
use ordermill_pipeline::consumer::{HandlerError, Received};
use ordermill_schemas::{Event, Topic};
use ordermill_store::{Written, stock};
use sqlx::PgConnection;

use crate::participant::{Participant, order_ids};

/// The stock worker.
pub struct StockWorker;

impl Participant for StockWorker {
    const GROUP: &'static str = "stock";
    const TOPICS: &'static [Topic] = &[Topic::Orders, Topic::Payments];
    type State = Stock;

    async fn load(
        connection: &mut PgConnection,
        events: &[Received],
        _now: Timestamp,
    ) -> Result<Stock, HandlerError> {
        let mut product_ids = Vec::new();
        for received in events {
            let lines = match &received.event {
                Event::OrderPlaced(order) => &order.lines,
                Event::OrderModifying(order) => &order.lines,
                _ => continue,
            };
            product_ids.extend(lines.iter().map(|line| line.product_id));
        }
        stock::load(connection, &order_ids(events), product_ids).await
    }

    async fn apply(
        connection: &mut PgConnection,
        before: &Stock,
        after: &Stock,
        _written: &[Written],
        now: Timestamp,
    ) -> Result<(), HandlerError> {
        stock::apply(connection, before, after, now).await
    }
}
