//! What every worker that decides does with a batch: say which rows it needs, and decide event by event in memory.

use std::marker::PhantomData;

use ordermill_domain::capability::Reacts;
use ordermill_pipeline::consumer::{Batch, Handled, Handler, derived_event_id};
use ordermill_pipeline::journal::{JournalError, Keys, Loaded, Table};
use ordermill_pipeline::log::Entry;
use ordermill_schemas::{Event, Topic};
use ordermill_store::{Written, state, tables, writes};

/// What a worker does once a batch was committed. By itself it does nothing.
pub(crate) trait FollowUp: Send + Sync + 'static {
    /// Which of its new events it wants to see.
    fn wants(_entry: &Entry) -> bool {
        false
    }

    /// Called with those events.
    fn committed(&self, _appended: Vec<Entry>) {}
}

impl FollowUp for () {}

/// The worker of a capability. What it reads, which rows an event is about and what follows from it are the capability's to say.
pub(crate) struct Participant<C, F> {
    capability: PhantomData<fn() -> C>,
    follow_up: F,
}

impl<C, F> Participant<C, F> {
    pub(crate) fn new(follow_up: F) -> Participant<C, F> {
        Participant { capability: PhantomData, follow_up }
    }
}

impl<C: Reacts + PartialEq, F: FollowUp> Handler for Participant<C, F> {
    const GROUP: &'static str = C::TOPIC.name();
    type Event = Event;
    const TOPICS: &'static [Topic] = C::READS;

    fn tables() -> &'static [Table] {
        tables()
    }

    fn is_of_interest(&self, event: &Event) -> bool {
        !C::keys(event).is_empty()
    }

    fn keys(&self, event: &Event, keys: &mut Keys) {
        C::keys(event).into_iter().for_each(|(noun, key)| keys.add(noun, key));
    }

    fn decide(&self, loaded: &Loaded, batch: &Batch<'_, Event>) -> Result<Handled, JournalError> {
        let before: C = state(loaded, batch.now)?;
        let mut after = before.clone();
        let mut written = Vec::with_capacity(batch.events.len());
        let mut effects = Vec::new();
        for received in batch.events {
            let (unchanged, count) = (batch.tells_effects.then(|| after.clone()), written.len());
            for (index, decided) in after.react(&received.event, received.at).into_iter().enumerate() {
                let event_id = derived_event_id(Self::GROUP, received.event_id, index);
                tracing::debug!(
                    group = Self::GROUP,
                    order_id = ?decided.event.order_id(),
                    cause = received.event.name(),
                    event = decided.event.name(),
                    "decided"
                );
                written.push(Written::new(event_id, decided, received.origin(Self::GROUP)));
            }
            effects.extend(unchanged.map(|unchanged| written.len() > count || after != unchanged));
        }
        let writes = writes(loaded, &before, &after, written, batch.partitions)?;
        Ok(Handled { writes, effects })
    }

    fn follows_up(entry: &Entry) -> bool {
        F::wants(entry)
    }

    fn committed(&self, appended: Vec<Entry>) {
        self.follow_up.committed(appended);
    }
}
