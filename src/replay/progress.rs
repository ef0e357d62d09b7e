//! How far a replay is: a bar where standard error is a terminal, else a line now and then.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

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
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if is_terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} events, {per_sec}, {eta} left")
        {
            bar.set_style(style);
        }
        let mut ticks = tokio::time::interval(if is_terminal { DRAW_EVERY } else { TELL_EVERY });
        // The first comes at once, when there is nothing to tell.
        ticks.tick().await;
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => {
                    bar.finish_and_clear();
                    return outcome;
                }
                _ = ticks.tick() => {
                    bar.set_length(self.total());
                    bar.set_position(self.done());
                    if !is_terminal {
                        eprintln!("{}", self.line());
                    }
                }
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
