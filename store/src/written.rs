//! Events on their way into the log.

use jiff::Timestamp;
use ordermill_domain::decider::Decided;
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::log::{Entry, Origin};
use ordermill_pipeline::wake::Wake;
use ordermill_schemas::Event;
use sqlx::PgPool;
use uuid::Uuid;

/// An event that was decided upon, with its id and where it comes from.
#[derive(Clone, Debug)]
pub struct Written {
    /// The event's id.
    pub event_id: Uuid,
    /// The event.
    pub event: Event,
    /// Its ordinal in its aggregate's history.
    pub sequence: i32,
    /// What caused it, who, and in which span.
    pub origin: Origin,
}

impl Written {
    /// The event that was decided upon, under that id.
    #[must_use]
    pub fn new(event_id: Uuid, decided: Decided, origin: Origin) -> Written {
        Written { event_id, event: decided.event, sequence: decided.sequence, origin }
    }

    /// The log entry.
    ///
    /// # Errors
    /// None in practice, see [`Event::encode`].
    pub fn into_entry(self, partitions: i16) -> Result<Entry, serde_json::Error> {
        Entry::of_event(self.event_id, &self.event, self.sequence, self.origin, partitions)
    }
}

/// What a writer outside of the workers needs: the database, the time, and the relay's ear.
#[derive(Clone, Debug)]
pub struct Journal {
    /// The database.
    pub pool: PgPool,
    /// The clock.
    pub clock: Clock,
    /// Wakes a relay in this process after a commit.
    pub wake: Wake,
    /// How many partitions every topic has.
    pub partitions: i16,
}

impl Journal {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
