//! What every worker does with a batch: load, decide in memory event by event, apply, append.

use jiff::Timestamp;
use ordermill_domain::decider::Decider;
use ordermill_pipeline::consumer::{
    Appended, Batch, Handled, Handler, HandlerError, Received, derived_event_id,
};
use ordermill_pipeline::log::Entry;
use ordermill_schemas::Topic;
use ordermill_store::Written;
use sqlx::PgConnection;

/// A worker: which state it loads for a batch, and how it writes what was decided.
pub(crate) trait Participant: Send + Sync + 'static {
    /// The group's name.
    const GROUP: &'static str;
    /// The topics it reads.
    const TOPICS: &'static [Topic];
    /// The state, with its rules.
    type State: Decider + Clone + PartialEq + Send + Sync;

    /// Locks and loads everything that the events are about, as of that time.
    fn load(
        connection: &mut PgConnection,
        events: &[Received],
        now: Timestamp,
    ) -> impl Future<Output = Result<Self::State, HandlerError>> + Send;

    /// Writes what differs between the states.
    fn apply(
        connection: &mut PgConnection,
        before: &Self::State,
        after: &Self::State,
        written: &[Written],
        now: Timestamp,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

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

    async fn handle(
        &self,
        connection: &mut PgConnection,
        batch: &Batch<'_>,
    ) -> Result<Handled, HandlerError> {
        let before = P::load(connection, batch.events, batch.now).await?;
        let mut after = before.clone();
        let mut written = Vec::with_capacity(batch.events.len());
        let mut effects = Vec::new();
        for received in batch.events {
            let (unchanged, count) = (batch.tells_effects.then(|| after.clone()), written.len());
            for (index, decided) in after.react(&received.event).into_iter().enumerate() {
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
        P::apply(connection, &before, &after, &written, batch.now).await?;
        let entries = written.into_iter().map(|written| written.into_entry(batch.partitions));
        Ok(Handled { entries: entries.collect::<Result<_, _>>()?, effects })
    }

    fn follows_up(entry: &Entry) -> bool {
        P::follows_up(entry)
    }

    fn committed(&self, appended: Vec<Appended>) {
        self.0.committed(appended);
    }
}

/// The orders that events are about, in order and once each.
pub(crate) fn order_ids(events: &[Received]) -> Vec<uuid::Uuid> {
    let mut ids: Vec<uuid::Uuid> = events.iter().filter_map(|received| received.event.order_id()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
