//! Shows the watchdog what it wants to see, and does what it says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::assignment::{Anew, Assignment};
use super::offsets;
use super::reading::View;
use super::unassigned::{Named, unassigned};
use super::watchdog::{Action, Watchdog};
use crate::kafka;
use crate::label::Label;
use crate::partition::Slot;
use crate::relay::{Cursor, Published};

/// How long Kafka has for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Has the watchdog look, where it is time to.
///
/// # Errors
/// What the member waits for in vain: it must join anew.
pub(super) fn watch(
    watchdog: &mut Watchdog,
    consumer: &BaseConsumer<Assignment>,
    is_idle: bool,
) -> Result<(), Anew> {
    let now = Instant::now();
    if !watchdog.is_due(now) {
        return Ok(());
    }
    let assignment = consumer.context();
    let (views, since) =
        assignment.with_state(|state| (state.reader.views(), state.reader.unassigned_since()));
    if let Some(Action::JoinAnew(why)) = Watchdog::unassigned(since, now) {
        return Err(why.into());
    }
    let published = match assignment.runtime.block_on(Cursor::read(&assignment.pool)) {
        Ok(cursor) => cursor.map(Cursor::published),
        Err(error) => {
            tracing::warn!(group = assignment.group, %error, "cannot see what is published");
            None
        }
    };
    let sight = Sight { consumer, views, published };
    let actions = watchdog.look(&sight.views, |slot| sight.published(slot), is_idle, now);
    actions.into_iter().try_for_each(|action| sight.act(watchdog, action))
}

/// What there is to see at a look.
struct Sight<'a> {
    consumer: &'a BaseConsumer<Assignment>,
    views: BTreeMap<Slot, View>,
    published: Option<Published>,
}

impl Sight<'_> {
    fn published(&self, slot: Slot) -> Option<Label> {
        self.published.as_ref()?.last(slot.topic, slot.partition)
    }

    fn act(&self, watchdog: &mut Watchdog, action: Action) -> Result<(), Anew> {
        let group = self.consumer.context().group;
        let further = match action {
            Action::AskFor(slot, label) => {
                self.consumer.context().ask_for_repeat(slot, label);
                return Ok(());
            }
            Action::JoinAnew(why) => return Err(why.into()),
            Action::SeeEnd(slot) => {
                let Some(view) = self.views.get(&slot) else { return Ok(()) };
                watchdog.end_seen(slot, view, self.end(slot))
            }
            Action::SeeOthers(others) => {
                let assignment = self.consumer.context();
                match assignment.runtime.block_on(offsets::applied(&assignment.pool, group, &others)) {
                    Ok(applied) => {
                        let still = watchdog.others_seen(&others, &applied, |slot| self.published(slot));
                        still.into_iter().collect()
                    }
                    Err(error) => {
                        tracing::warn!(group, %error, "cannot see how far other members are");
                        Vec::new()
                    }
                }
            }
            Action::SeeHolders(slots) => match self.free(&slots) {
                Ok(free) => Watchdog::holders_seen(free).into_iter().collect(),
                Err(error) => {
                    tracing::warn!(group, %error, "cannot see what other members have");
                    Vec::new()
                }
            },
        };
        further.into_iter().try_for_each(|action| self.act(watchdog, action))
    }

    /// Where a partition ends in Kafka.
    fn end(&self, slot: Slot) -> Option<i64> {
        let name = self.consumer.context().kafka.full_name(slot.topic);
        let bounds = kafka::bounds(self.consumer, &name, i32::from(slot.partition), ANSWER_TIMEOUT);
        bounds.ok().map(|(_, end)| end)
    }

    /// The first of these that no member has.
    fn free(&self, slots: &[Slot]) -> Result<Option<Slot>, Anew> {
        let assignment = self.consumer.context();
        let named = |slot: &Slot| (assignment.kafka.full_name(slot.topic), i32::from(slot.partition));
        let wanted: Vec<Named> = slots.iter().map(named).collect();
        let group = assignment.kafka.full_name(assignment.group);
        let free = unassigned(self.consumer, &group, wanted, ANSWER_TIMEOUT)?;
        Ok(slots.iter().copied().find(|slot| free.as_ref() == Some(&named(slot))))
    }
}
