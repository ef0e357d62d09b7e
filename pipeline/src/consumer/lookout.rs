//! Looks now and then whether a member waits in vain: for its part of the work, or for records of what it has. Such a
//! member joins anew, with a new client.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ordermill_schemas::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::assignment::{Anew, Assignment, Slot};
use super::left_over::{Named, left_over};
use super::{offsets, silence};
use crate::kafka;
use crate::label::Label;
use crate::relay::{Cursor, Published};

/// How often the relay's cursor is compared with what was read.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often a member that does not have every partition looks whether others have the rest.
const LOOK_AT_OTHERS_EVERY: Duration = Duration::from_secs(10);
/// How long Kafka has for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// When a member looks next, and what for.
pub(super) struct Lookout {
    topics: &'static [Topic],
    partitions: i16,
    looked_at: Instant,
    looked_at_others_at: Instant,
    /// What others had not applied to its end at the last look, and how far they were.
    behind: HashMap<Slot, Label>,
}

impl Lookout {
    /// For a member that joins just now.
    pub(super) fn new(topics: &'static [Topic], partitions: i16) -> Lookout {
        let now = Instant::now();
        Lookout { topics, partitions, looked_at: now, looked_at_others_at: now, behind: HashMap::new() }
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
        let assignment = consumer.context();
        if assignment.with_state(|state| silence::is_left_out(state, now)) {
            return Err("the group gives the member nothing to do, nor says that there is nothing".into());
        }
        let published = match assignment.runtime.block_on(Cursor::read(&assignment.pool)) {
            Ok(Some(cursor)) => cursor.published(),
            unknown => {
                tracing::debug!(
                    group = assignment.group,
                    ?unknown,
                    "cannot see what the relay has published"
                );
                return Ok(());
            }
        };
        if now.duration_since(self.looked_at_others_at) >= LOOK_AT_OTHERS_EVERY {
            self.looked_at_others_at = now;
            self.look_at_others(consumer, &published)?;
        }
        look_after_silence(consumer, &published, now)
    }

    /// Whether what this member does not have, others do. Kafka is asked only about what is behind and stands still.
    fn look_at_others(
        &mut self,
        consumer: &BaseConsumer<Assignment>,
        published: &Published,
    ) -> Result<(), Anew> {
        let assignment = consumer.context();
        let applied = match assignment.runtime.block_on(offsets::applied(&assignment.pool, assignment.group))
        {
            Ok(applied) => applied,
            Err(error) => {
                tracing::debug!(group = assignment.group, %error, "cannot see how far others are");
                return Ok(());
            }
        };
        let all =
            self.topics.iter().flat_map(|topic| (0..self.partitions).map(|p| (topic.name().to_owned(), p)));
        let of_others = assignment
            .with_state(|state| all.filter(|slot| !state.owned.contains_key(slot)).collect::<Vec<Slot>>());
        let before = std::mem::replace(&mut self.behind, behind(of_others, &applied, published));
        let still: Vec<Named> = self
            .behind
            .iter()
            .filter(|(slot, label)| before.get(*slot) == Some(*label))
            .map(|((topic, partition), _)| (assignment.full_name(topic), i32::from(*partition)))
            .collect();
        if still.is_empty() {
            return Ok(());
        }
        match left_over(consumer, &assignment.full_name(assignment.group), still, ANSWER_TIMEOUT) {
            Ok(None) => Ok(()),
            Ok(Some((topic, partition))) => {
                Err(format!("no member of the group has {topic}[{partition}]").into())
            }
            Err(error) => {
                tracing::warn!(group = assignment.group, %error, "cannot see what other members have");
                Ok(())
            }
        }
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

/// Whether more was published of what this member has, and the client brings nothing of it; asks the relay for what Kafka
/// does not hold either.
fn look_after_silence(
    consumer: &BaseConsumer<Assignment>,
    published: &Published,
    now: Instant,
) -> Result<(), Anew> {
    let assignment = consumer.context();
    let silent = assignment.with_state(|state| silence::silent(state, published, now));
    let Some(first) = silent.iter().min_by_key(|silent| silent.last) else { return Ok(()) };
    let (topic, partition) = &first.slot;
    let name = assignment.full_name(topic);
    let bounds = kafka::bounds(consumer, &name, i32::from(*partition), ANSWER_TIMEOUT);
    if bounds.is_ok_and(|(_, high)| high <= first.next_offset) {
        assignment.ask_for_repeat(&first.slot, first.last);
    }
    Err(format!("nothing comes of {topic}[{partition}] after {}, though more was published", first.last)
        .into())
}
