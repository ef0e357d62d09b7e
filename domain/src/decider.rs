//! What every decider has in common.

use ordermill_schemas::Event;

/// An event that was decided upon, with its ordinal in its aggregate's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What happened.
    pub event: Event,
    /// Its ordinal among the aggregate's events on its topic, from 1, without gap.
    pub sequence: i32,
}

/// The state of one capability, as far as a batch of events touches it, and its rules.
pub trait Decider {
    /// What follows from an event of the outside; the state already includes it on return.
    ///
    /// Asked twice with the same event it decides once: the second answer is empty.
    fn react(&mut self, event: &Event) -> Vec<Decided>;
}
