//! The sales worker: keeps the sums that rankings and statistics are made from. It follows the orders' events alone,
//! decides nothing and appends nothing.

use ordermill_domain::sales::Sums;
use ordermill_pipeline::consumer::{Batch, Handled, Handler};
use ordermill_pipeline::journal::{JournalError, Loaded, Writes};
use ordermill_schemas::Topic;
use ordermill_store::sales::Additions;

/// The sales worker.
pub struct SalesWorker;

impl Handler for SalesWorker {
    const GROUP: &'static str = "sales";
    const TOPICS: &'static [Topic] = &[Topic::Orders];

    fn decide(&self, _loaded: &Loaded, batch: &Batch<'_>) -> Result<Handled, JournalError> {
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
        let writes = Writes { projections: vec![Box::new(Additions(sums))], ..Writes::default() };
        Ok(Handled { writes, effects })
    }
}
