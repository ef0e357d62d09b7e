//! What the subcommands work with.

use jiff::Timestamp;
use ordermill_pipeline::clock::Clock;
use sqlx::PgPool;

/// What the process answers where a replay could not apply every letter.
pub(super) const NOT_APPLIED: u8 = 1;

/// The database, the time, and what is to be printed.
pub(super) struct Desk {
    pub(super) pool: PgPool,
    /// What stands before every topic in Kafka.
    pub(super) prefix: String,
    pub(super) clock: Clock,
    pub(super) json: bool,
}

impl Desk {
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
