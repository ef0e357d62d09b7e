//! Notices that nothing comes any more although there is more to read.
//!
//! The Kafka client can fall silent for good while Kafka works. It remembers the highest leader epoch of each partition,
//! and takes a lower one for an old answer: where a topic was made anew and its leaders are counted from 0 again, it asks
//! in vain for ever. A new client knows nothing of that. What was published is known from the relay's cursor, so nothing
//! here depends on why the client is silent.

use std::time::{Duration, Instant};

use super::assignment::{Owned, Slot, State};
use crate::label::Label;
use crate::relay::Published;

/// How long a partition may stay silent that has more to read.
const SILENT_MAX: Duration = Duration::from_secs(10);
/// How long a member may wait for its part of the work; others may have to finish theirs first.
const UNASSIGNED_MAX: Duration = Duration::from_secs(60);

/// After so long a batch it shows nothing that nothing came: nothing was polled meanwhile.
const BATCH_LONG: Duration = Duration::from_secs(2);

/// A partition of which nothing comes though more was published to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silent {
    pub(super) slot: Slot,
    /// The label read last.
    pub(super) last: Label,
    /// The offset after it.
    pub(super) next_offset: i64,
}

/// Whether the group has not told this member for too long what its part of the work is.
pub(super) fn is_left_out(state: &State, now: Instant) -> bool {
    state.unassigned_since.is_some_and(|since| now.saturating_duration_since(since) > UNASSIGNED_MAX)
}

/// The partitions that are silent, by what the relay has published. To be asked when everything that the client had at
/// hand was taken.
pub(super) fn silent(state: &mut State, published: &Published, now: Instant) -> Vec<Silent> {
    let behind = state.owned.iter_mut().filter_map(|(slot, owned)| {
        let is_silent = is_silent(owned, published.last(&slot.0, slot.1), now);
        is_silent.then(|| Silent { slot: slot.clone(), last: owned.last, next_offset: owned.next_offset })
    });
    behind.collect()
}

/// Takes in that a batch took so long.
pub(super) fn worked(state: &mut State, took: Duration) {
    if took > BATCH_LONG {
        state.owned.values_mut().for_each(|owned| owned.behind_since = None);
    }
}

fn is_silent(owned: &mut Owned, published: Option<Label>, now: Instant) -> bool {
    if published.is_none_or(|published| published <= owned.last) {
        owned.behind_since = None;
        return false;
    }
    let since = *owned.behind_since.get_or_insert(now);
    now.saturating_duration_since(since) > SILENT_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(position: i64) -> Label {
        Label { era: 1, position }
    }

    fn owned() -> Owned {
        Owned {
            epoch: 1,
            last: label(5),
            tip: None,
            next_offset: 3,
            verify_or_start_at: None,
            gap_since: None,
            behind_since: None,
        }
    }

    #[test]
    fn a_partition_is_silent_when_it_has_been_behind_for_long_and_nothing_was_read() {
        let mut owned = owned();
        let begin = Instant::now();
        assert!(!is_silent(&mut owned, Some(label(9)), begin), "it was published a moment ago");
        assert!(!is_silent(&mut owned, Some(label(9)), begin + SILENT_MAX));
        assert!(is_silent(&mut owned, Some(label(9)), begin + SILENT_MAX * 2));
        // Reading anything of it begins the wait anew.
        owned.behind_since = None;
        assert!(!is_silent(&mut owned, Some(label(9)), begin + SILENT_MAX * 3));
    }

    #[test]
    fn a_partition_is_not_silent_because_another_ones_batch_took_long() {
        let begin = Instant::now();
        let slot = ("cups".to_owned(), 1);
        let mut state = State { owned: [(slot.clone(), owned())].into(), ..State::default() };
        for (took, still_behind) in [(BATCH_LONG / 2, true), (BATCH_LONG * 2, false)] {
            is_silent(state.owned.get_mut(&slot).unwrap(), Some(label(9)), begin);
            worked(&mut state, took);
            assert_eq!(state.owned[&slot].behind_since.is_some(), still_behind, "{took:?}");
        }
    }

    #[test]
    fn a_partition_that_has_nothing_more_to_read_is_not_silent() {
        let mut owned = owned();
        let begin = Instant::now();
        for published in [None, Some(label(4)), Some(label(5))] {
            assert!(!is_silent(&mut owned, Some(label(9)), begin));
            assert!(!is_silent(&mut owned, published, begin + SILENT_MAX * 2), "{published:?}");
            assert_eq!(owned.behind_since, None);
        }
    }

    #[test]
    fn a_member_may_wait_a_while_for_its_part_and_may_have_none() {
        let begin = Instant::now();
        let waiting = State { unassigned_since: Some(begin), ..State::default() };
        assert!(!is_left_out(&waiting, begin + UNASSIGNED_MAX));
        assert!(is_left_out(&waiting, begin + UNASSIGNED_MAX * 2));
        let idle = State { unassigned_since: None, ..State::default() };
        assert!(!is_left_out(&idle, begin + UNASSIGNED_MAX * 2));
    }
}
