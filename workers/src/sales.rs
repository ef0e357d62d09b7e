//! The sales worker: keeps the sums that rankings and statistics are made from. It follows the orders' events alone,
//! decides nothing and appends nothing.

use jiff::Timestamp;
use ordermill_domain::sales::Sums;
use ordermill_pipeline::consumer::{Batch, Handled, Handler};
use ordermill_pipeline::journal::{JournalError, Loaded, Writes};
use ordermill_schemas::{Event, Topic};
use ordermill_store::sales::Additions;

/// The sales worker.
pub struct SalesWorker;

impl Handler for SalesWorker {
    const GROUP: &'static str = "sales";
    type Event = Event;
    const TOPICS: &'static [Topic] = &[Topic::Orders];
    const IS_PATIENT: bool = true;

    fn is_of_interest(&self, event: &Event) -> bool {
        counts(event)
    }

    fn decide(&self, _loaded: &Loaded, batch: &Batch<'_, Event>) -> Result<Handled, JournalError> {
        let mut sums = Sums::default();
        batch.events.iter().for_each(|received| sums.observe(&received.event, received.at));
        let told = batch.events.iter().filter(|_| batch.tells_effects);
        let effects = told.map(|received| counts(&received.event)).collect();
        let writes = Writes { projections: vec![Box::new(Additions(sums))], ..Writes::default() };
        Ok(Handled { writes, effects })
    }
}

/// Whether an event changes any sum.
fn counts(event: &Event) -> bool {
    let mut sums = Sums::default();
    sums.observe(event, Timestamp::UNIX_EPOCH);
    sums != Sums::default()
}
