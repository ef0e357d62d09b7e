//! What every worker does with a batch: say which rows it needs, and decide event by event in memory.

use ordermill_domain::capability::Reacts;
use ordermill_pipeline::consumer::{Appended, Batch, Handled, Handler, derived_event_id};
use ordermill_pipeline::journal::{JournalError, Keys, Loaded, Table};
use ordermill_pipeline::log::Entry;
use ordermill_schemas::{Event, Topic};
use ordermill_store::{TABLES, Written, state, writes};

/// A worker: what it reads, and which rows an event is about. What follows from it is its capability's to say.
pub(crate) trait Participant: Send + Sync + 'static {
    /// The group's name.
    const GROUP: &'static str;
    /// The topics it reads.
    const TOPICS: &'static [Topic];
    /// The capability whose rules it follows.
    type State: Reacts + PartialEq;

    /// Adds the keys of the rows that an event is about.
    fn keys(event: &Event, keys: &mut Keys);

    /// Which of its new events the worker wants to see after the commit.
    fn follows_up(_entry: &Entry) -> bool {
        false
    }

    /// Called with those events after the commit.
    fn committed(&self, _appended: Vec<Appended>) {}
}

/// A participant as the consumer runtime wants it.
pub(crate) struct Adapter<P>(pub(crate) P);

impl<P: Participant> Handler for Adapter<P> {
    const GROUP: &'static str = P::GROUP;
    const TOPICS: &'static [Topic] = P::TOPICS;
    const TABLES: &'static [Table] = TABLES;

    fn keys(&self, event: &Event, keys: &mut Keys) {
        P::keys(event, keys);
    }

    fn decide(&self, loaded: &Loaded, batch: &Batch<'_>) -> Result<Handled, JournalError> {
        let before: P::State = state(loaded, batch.now)?;
        let mut after = before.clone();
        let mut written = Vec::with_capacity(batch.events.len());
        let mut effects = Vec::new();
        for received in batch.events {
            let (unchanged, count) = (batch.tells_effects.then(|| after.clone()), written.len());
            for (index, decided) in after.react(&received.event, received.at).into_iter().enumerate() {
                let event_id = derived_event_id(P::GROUP, received.event_id, index);
                tracing::debug!(
                    group = P::GROUP,
                    order_id = ?decided.event.order_id(),
                    cause = received.event.name(),
                    event = decided.event.name(),
                    "decided"
                );
                written.push(Written::new(event_id, decided, received.origin(P::GROUP)));
            }
            effects.extend(unchanged.map(|unchanged| written.len() > count || after != unchanged));
        }
        let writes = writes(loaded, &before, &after, written, batch.partitions)?;
        Ok(Handled { writes, effects })
    }

    fn follows_up(entry: &Entry) -> bool {
        P::follows_up(entry)
    }

    fn committed(&self, appended: Vec<Appended>) {
        self.0.committed(appended);
    }
}
