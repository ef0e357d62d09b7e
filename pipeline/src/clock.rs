//! The clock, which tests set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// Tells the time; the machine's, or one that stands still until it is moved.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Microseconds since 1970, where the clock is set by hand.
    manual_us: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Clock {
        Clock::default()
    }

    /// A clock that shows `start` until it is moved.
    #[must_use]
    pub fn manual(start: Timestamp) -> Clock {
        Clock { manual_us: Some(Arc::new(AtomicI64::new(start.as_microsecond()))) }
    }

    /// The time now, in whole microseconds as PostgreSQL keeps it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now_us = match &self.manual_us {
            Some(manual_us) => manual_us.load(Ordering::SeqCst),
            None => Timestamp::now().as_microsecond(),
        };
        Timestamp::from_microsecond(now_us).unwrap_or(Timestamp::MAX)
    }

    /// Moves a manual clock; the machine's clock is not moved.
    pub fn advance(&self, by: SignedDuration) {
        if let Some(manual_us) = &self.manual_us {
            let by_us = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            manual_us.fetch_add(by_us, Ordering::SeqCst);
        }
    }
}
