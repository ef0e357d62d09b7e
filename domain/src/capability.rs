//! What every capability of the shop has in common: aggregates in memory, and the rules by which they change.

use jiff::Timestamp;
use ordermill_schemas::{Event, Topic};
use uuid::Uuid;

use crate::aggregate::Documents;

/// An event that was decided upon, with its ordinal in its aggregate's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What happened.
    pub event: Event,
    /// Its ordinal among the aggregate's events on its topic, from 1, without gap.
    pub sequence: i32,
}

/// A capability: the aggregates that its rules change.
pub trait Capability: Documents {
    /// The topic of its own events. Its worker's group has the same name.
    const TOPIC: Topic;

    /// The time at which is decided: that of the events that are recorded.
    fn now(&mut self) -> &mut Timestamp;

    /// The state after an event of the log, which happened `at` that time. What does not concern the capability changes nothing.
    fn evolve(&mut self, event: &Event, at: Timestamp);

    /// How many events the history has to which the event belongs; asked for once the event is part of it.
    fn sequence(&self, event: &Event) -> i32;

    /// Records what was decided.
    fn record(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Decided> {
        let now = *self.now();
        let record = |event: Event| {
            self.evolve(&event, now);
            let sequence = self.sequence(&event);
            Decided { event, sequence }
        };
        events.into_iter().map(record).collect()
    }
}

/// A capability that reacts to the events of others.
pub trait Reacts: Capability {
    /// The topics whose events it reacts to.
    const READS: &'static [Topic];

    /// The aggregates that an event is about, by noun and key. What follows from their documents need not be named.
    fn keys(event: &Event) -> Vec<(&'static str, Uuid)>;

    /// What follows from an event of the outside, which happened `at` that time; the state already includes it on return.
    ///
    /// Asked twice with the same event it decides once: the second answer is empty.
    fn react(&mut self, event: &Event, at: Timestamp) -> Vec<Decided>;
}
