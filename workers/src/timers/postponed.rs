//! What can't be ended although its time is over. It must not keep the rest waiting, so it is postponed and tried again, ever less
//! often. Kept in memory: whoever begins anew tries all of it once more.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ordermill_pipeline::retry::Retry;
use uuid::Uuid;

const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What is postponed, and when each is tried again.
#[derive(Debug, Default)]
pub(super) struct Postponed(BTreeMap<Uuid, Again>);

#[derive(Debug)]
struct Again {
    retry: Retry,
    at: Timestamp,
}

impl Postponed {
    /// This one has failed, once more perhaps. Answers how long it is left alone.
    pub(super) fn put(&mut self, id: Uuid, now: Timestamp) -> Duration {
        let retry = Retry::forever(PAUSE_FIRST, PAUSE_MAX);
        let again = self.0.entry(id).or_insert_with(|| Again { retry, at: now });
        let pause = again.retry.next_delay();
        again.at = now + SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
        pause
    }

    /// What is not to be tried yet.
    pub(super) fn left_alone(&self, now: Timestamp) -> Vec<Uuid> {
        self.0.iter().filter(|(_, again)| now < again.at).map(|(id, _)| *id).collect()
    }

    /// All that is due of what is not left alone. The others need nothing any more.
    pub(super) fn due(&mut self, due: &[Uuid], now: Timestamp) {
        let due: HashSet<&Uuid> = due.iter().collect();
        self.0.retain(|id, again| now < again.at || due.contains(id));
    }

    /// This one is ended.
    pub(super) fn ended(&mut self, id: Uuid) {
        self.0.remove(&id);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_left_alone_for_a_while_and_forgotten_once_it_is_ended_or_not_due_any_more() {
        let (mut postponed, now) = (Postponed::default(), Timestamp::UNIX_EPOCH);
        let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
        for id in ids {
            let pause = postponed.put(id, now);
            assert!(pause <= PAUSE_FIRST * 2, "{pause:?}");
        }
        assert_eq!(postponed.left_alone(now - SignedDuration::from_secs(1)), ids);
        let later = now + SignedDuration::from_secs(2);
        assert!(postponed.left_alone(later).is_empty());
        // The first is tried again; the second was ended by another.
        postponed.due(&ids[..1], later);
        assert_eq!(postponed.len(), 1);
        postponed.put(ids[0], later);
        postponed.ended(ids[0]);
        assert_eq!(postponed.len(), 0);
    }
}
