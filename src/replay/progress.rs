//! How far a replay is: a bar where standard error is a terminal, else a line now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::progress::Bar;

/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Counts what is done of a whole; its clones count together.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// There is so much to do.
    pub(super) fn expect(&self, total: u64) {
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// So much more is done.
    pub(super) fn add(&self, done: u64) {
        self.0.done.fetch_add(done, Ordering::Relaxed);
    }

    /// What is done, in all.
    pub(super) fn done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }

    fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Shows how far the work is until it has ended.
    pub async fn shown<T>(&self, work: impl Future<Output = T>) -> T {
        let template = "{bar:40} {human_pos} of {human_len} events, {per_sec}, {eta} left";
        let mut bar = Bar::new(template, TELL_EVERY);
        let mut ticks = tokio::time::interval(DRAW_EVERY);
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                _ = ticks.tick() => bar.at(self.done(), self.total(), "", || self.line()),
            }
        }
    }

    fn line(&self) -> String {
        format!("replayed {} of {} events", self.done(), self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_counts_counts_for_all() {
        let progress = Progress::default();
        progress.expect(70);
        progress.clone().add(3);
        progress.add(4);
        assert_eq!(progress.line(), "replayed 7 of 70 events");
    }
}
