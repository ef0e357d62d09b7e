//! How far a replay is: a bar where standard error is a terminal, else a line now and then.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish};
use tokio::time::{Instant, interval_at};

use crate::output::note;
use crate::progress::style;

/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Counts what is done of a whole; its clones count together.
#[derive(Clone, Debug)]
pub struct Progress(ProgressBar);

impl Default for Progress {
    fn default() -> Progress {
        Progress(ProgressBar::hidden().with_finish(ProgressFinish::AndClear))
    }
}

impl Progress {
    /// There is so much to do.
    pub(super) fn expect(&self, total: u64) {
        self.0.set_length(total);
    }

    /// So much more is done.
    pub(super) fn add(&self, done: u64) {
        self.0.inc(done);
    }

    /// What is done, in all.
    pub(super) fn done(&self) -> u64 {
        self.0.position()
    }

    /// Shows how far the work is until it has ended.
    pub async fn shown<T>(&self, work: impl Future<Output = T>) -> T {
        self.0.set_style(style("{bar:40} {human_pos} of {human_len} events, {per_sec}, {eta} left"));
        self.0.set_draw_target(ProgressDrawTarget::stderr());
        self.0.enable_steady_tick(DRAW_EVERY);
        let mut ticks = interval_at(Instant::now() + TELL_EVERY, TELL_EVERY);
        tokio::pin!(work);
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                _ = ticks.tick(), if self.0.is_hidden() => note(&self.line()),
            }
        };
        self.0.finish_and_clear();
        outcome
    }

    fn line(&self) -> String {
        format!("replayed {} of {} events", self.done(), self.0.length().unwrap_or_default())
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
