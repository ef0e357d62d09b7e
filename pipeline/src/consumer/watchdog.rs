//! Looks now and then whether a member waits in vain: for its part of the work, for records of what it has, or for others
//! to have what it does not have. Such a member joins anew, with a new client.
//!
//! The Kafka client can fall silent for good while Kafka works. It remembers the highest leader epoch of each partition,
//! and takes a lower one for an old answer: where a topic was made anew and its leaders are counted from 0 again, it asks
//! in vain for ever. A new client knows nothing of that. What was published is known from the relay's cursor, so nothing
//! here depends on why the client is silent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::assignment::{Anew, Assignment, State};
use super::offsets::{self, Owned, Slot};
use super::unassigned::{Named, unassigned};
use crate::kafka;
use crate::label::Label;
use crate::relay::{Cursor, Published};

/// How often the relay's cursor is compared with what was read.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often a member that does not have every partition looks whether others have the rest.
const LOOK_AT_OTHERS_EVERY: Duration = Duration::from_secs(10);
/// How long Kafka has for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a partition may stay silent that has more to read.
const SILENT_MAX: Duration = Duration::from_secs(10);
/// How long a member may wait for its part of the work; others may have to finish theirs first.
const UNASSIGNED_MAX: Duration = Duration::from_secs(60);
/// After so long a batch it shows nothing that nothing came: nothing was polled meanwhile.
const BATCH_LONG: Duration = Duration::from_secs(2);

/// When a member looks next, and what for.
pub(super) struct Watchdog {
    topics: Vec<&'static str>,
    partitions: i16,
    looked_at: Instant,
    looked_at_others_at: Instant,
    /// What others had not applied to its end at the last look, and how far they were.
    behind: HashMap<Slot, Label>,
}

impl Watchdog {
    /// For a member that joins just now.
    pub(super) fn new(topics: Vec<&'static str>, partitions: i16) -> Watchdog {
        let now = Instant::now();
        Watchdog { topics, partitions, looked_at: now, looked_at_others_at: now, behind: HashMap::new() }
    }

    /// Looks where it is time to; to be called when everything that the client had at hand was taken.
    ///
    /// # Errors
    /// What the member waits for in vain: it must join anew.
    pub(super) fn turn(&mut self, consumer: &BaseConsumer<Assignment>) -> Result<(), Anew> {
        let now = Instant::now();
        if now.duration_since(self.looked_at) < LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = now;
        match self.look(consumer, now) {
            Ok(None) => Ok(()),
            Ok(Some(in_vain)) => Err(in_vain.into()),
            Err(error) => {
                let group = consumer.context().group;
                tracing::warn!(group, %error, "cannot see what is published or what other members have");
                Ok(())
            }
        }
    }

    /// What the member waits for in vain, if for anything.
    fn look(&mut self, consumer: &BaseConsumer<Assignment>, now: Instant) -> Result<Option<String>, Anew> {
        let assignment = consumer.context();
        if assignment.with_state(|state| is_left_out(state, now)) {
            let nothing = "the group gives the member nothing to do, nor says that there is nothing";
            return Ok(Some(nothing.to_owned()));
        }
        let cursor = assignment.runtime.block_on(Cursor::read(&assignment.pool))?;
        let Some(published) = cursor.map(Cursor::published) else { return Ok(None) };
        if let Some((slot, owned)) = assignment.with_state(|state| silent(state, &published, now)) {
            let (topic, partition) = &slot;
            let name = assignment.kafka.full_name(topic);
            let bounds = kafka::bounds(consumer, &name, i32::from(*partition), ANSWER_TIMEOUT);
            // What Kafka does not hold either, the relay is asked for.
            if bounds.is_ok_and(|(_, high)| high <= owned.next_offset) {
                assignment.ask_for_repeat(&slot, owned.last);
            }
            let last = owned.last;
            return Ok(Some(format!(
                "nothing comes of {topic}[{partition}] after {last}, though more was published"
            )));
        }
        if now.duration_since(self.looked_at_others_at) < LOOK_AT_OTHERS_EVERY {
            return Ok(None);
        }
        self.looked_at_others_at = now;
        let left = self.left_by_others(consumer, &published)?;
        Ok(left.map(|(topic, partition)| format!("no member of the group has {topic}[{partition}]")))
    }

    /// What this member does not have, and no other has either. Kafka is asked only about what is behind and stands still.
    fn left_by_others(
        &mut self,
        consumer: &BaseConsumer<Assignment>,
        published: &Published,
    ) -> Result<Option<Named>, Anew> {
        let assignment = consumer.context();
        let applied = assignment.runtime.block_on(offsets::applied(&assignment.pool, assignment.group))?;
        let all = self.topics.iter().flat_map(|topic| (0..self.partitions).map(|p| ((*topic).to_owned(), p)));
        let of_others = assignment
            .with_state(|state| all.filter(|slot| !state.owned.contains_key(slot)).collect::<Vec<Slot>>());
        let before = std::mem::replace(&mut self.behind, behind(of_others, &applied, published));
        let still = self.behind.iter().filter(|(slot, label)| before.get(*slot) == Some(*label));
        let still: Vec<Named> = still
            .map(|((topic, partition), _)| (assignment.kafka.full_name(topic), i32::from(*partition)))
            .collect();
        if still.is_empty() {
            return Ok(None);
        }
        Ok(unassigned(consumer, &assignment.kafka.full_name(assignment.group), still, ANSWER_TIMEOUT)?)
    }
}

/// Of these partitions, those to which more was published than is applied, and how far they are.
fn behind(slots: Vec<Slot>, applied: &HashMap<Slot, Label>, published: &Published) -> HashMap<Slot, Label> {
    let label = |slot: Slot| {
        let last = applied.get(&slot).copied().unwrap_or(Label::START);
        let is_behind = published.last(&slot.0, slot.1).is_some_and(|published| published > last);
        is_behind.then_some((slot, last))
    };
    slots.into_iter().filter_map(label).collect()
}

/// Whether the group has not told this member for too long what its part of the work is.
fn is_left_out(state: &State, now: Instant) -> bool {
    state.unassigned_since.is_some_and(|since| now.saturating_duration_since(since) > UNASSIGNED_MAX)
}

/// Of the partitions to which more was published and of which nothing comes, the one whose next record is the earliest.
fn silent(state: &mut State, published: &Published, now: Instant) -> Option<(Slot, Owned)> {
    let silent = state.owned.iter_mut().filter_map(|(slot, owned)| {
        let is_silent = is_silent(owned, published.last(&slot.0, slot.1), now);
        is_silent.then(|| (slot.clone(), owned.clone()))
    });
    silent.min_by_key(|(_, owned)| owned.last)
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
