//! How long whoever works in batches lets the next one gather.

use std::ops::Range;
use std::time::Duration;

/// Who finds so many at once is busy enough to gain by fewer and larger batches. From the upper end on they are large: to pause would
/// only let more and more wait.
const GAINS: Range<usize> = 16..96;
/// Longer than this nothing waits for others.
const PAUSE_MAX: Duration = Duration::from_millis(15);

/// How long to pause after a batch of `done` that `took` so long.
///
/// A good part of what a statement costs the server and us is the same whatever is in it, so under load the next batch gathers for as
/// long as the last one took, and half as many come of it (docs/adr/0023). At modest rates batches are small, and nobody pauses.
#[must_use]
pub fn pause_after(done: usize, took: Duration) -> Duration {
    if GAINS.contains(&done) { took.min(PAUSE_MAX) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_batch_gathers_for_as_long_as_one_took_that_was_neither_small_nor_large() {
        let took = Duration::from_millis(4);
        let pauses = [1, 15, 16, 95, 96, 500].map(|done| pause_after(done, took));
        assert_eq!(pauses, [Duration::ZERO, Duration::ZERO, took, took, Duration::ZERO, Duration::ZERO]);
        assert_eq!(pause_after(50, Duration::from_secs(9)), PAUSE_MAX);
    }
}
