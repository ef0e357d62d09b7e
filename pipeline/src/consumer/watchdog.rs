//! Whether a member waits in vain: for its part of the work, for records of what it has, for records that are missing, or for
//! others to have what it does not have. A state machine: it is told what there is to see, and says what to do.
//!
//! The Kafka client can fall silent for good while Kafka works. It remembers the highest leader epoch of each partition,
//! and takes a lower one for an old answer: where a topic was made anew and its leaders are counted from 0 again, it asks
//! in vain for ever. A new client knows nothing of that, so such a member joins anew. What was published is known from
//! the relay's cursor, so nothing here depends on why the client is silent, or on what lies in Kafka that is not ours.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::reading::View;
use crate::label::Label;
use crate::partition::Slot;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often a member that does not have every partition looks whether others have the rest.
const LOOK_AT_OTHERS_EVERY: Duration = Duration::from_secs(10);
/// How long a partition may stay silent that has more to read.
const SILENT_MAX: Duration = Duration::from_secs(10);
/// How often the relay is asked again for records that are missing.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long a member may wait for its part of the work; others may have to finish theirs first.
const UNASSIGNED_MAX: Duration = Duration::from_secs(60);
/// After so long a batch it shows nothing that nothing came: nothing was polled meanwhile.
const BATCH_LONG: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The relay is asked for what follows the label.
    AskFor(Slot, Label),
    /// It is looked where the partition ends in Kafka, and told by [`Watchdog::end_seen`].
    SeeEnd(Slot),
    /// It is looked how far others are with these partitions, and told by [`Watchdog::others_seen`].
    SeeOthers(Vec<Slot>),
    /// It is looked whether any member has these partitions, and told by [`Watchdog::holders_seen`].
    SeeHolders(Vec<Slot>),
    /// The member joins anew, because of this.
    JoinAnew(String),
}

/// What is remembered of a partition between looks.
#[derive(Debug, Default)]
struct Watched {
    /// How many records were met at the last look.
    met: u64,
    /// Since when there is more to read and nothing of the relay's comes.
    behind_since: Option<Instant>,
    /// How far the partition was read when that was last looked at.
    at: i64,
    /// When the relay was last known to be asked for what is missing.
    asked_at: Option<Instant>,
}

/// Watches over the members that a process has of a group, one after the other.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Every partition that the group reads.
    all: Vec<Slot>,
    looked_at: Instant,
    looked_at_others_at: Instant,
    own: BTreeMap<Slot, Watched>,
    /// What others had not applied to its end at the last look, and how far they were.
    behind: BTreeMap<Slot, Label>,
    /// The label at which a partition fell silent last. Where it does so again, joining anew has not helped.
    fell_silent_at: BTreeMap<Slot, Label>,
}

impl Watchdog {
    pub(super) fn new(all: Vec<Slot>, now: Instant) -> Watchdog {
        Watchdog {
            all,
            looked_at: now,
            looked_at_others_at: now,
            own: BTreeMap::new(),
            behind: BTreeMap::new(),
            fell_silent_at: BTreeMap::new(),
        }
    }

    /// A member joins.
    pub(super) fn joins(&mut self, now: Instant) {
        (self.looked_at, self.looked_at_others_at) = (now, now);
        self.own.clear();
        self.behind.clear();
    }

    /// A batch took so long.
    pub(super) fn worked(&mut self, took: Duration) {
        if took > BATCH_LONG {
            self.own.values_mut().for_each(|watched| watched.behind_since = None);
        }
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.looked_at) >= LOOK_EVERY
    }

    /// Whether the group has not told this member for too long what its part of the work is.
    pub(super) fn unassigned(since: Option<Instant>, now: Instant) -> Option<Action> {
        let is_long = now.saturating_duration_since(since?) > UNASSIGNED_MAX;
        let why = "the group gives the member nothing to do, nor says that there is nothing";
        is_long.then(|| Action::JoinAnew(why.to_owned()))
    }

    /// Looks at what this member has, and at what was published last to each partition. `is_idle` says that everything
    /// that the client had at hand was taken: otherwise it shows nothing that nothing came of a partition.
    pub(super) fn look(
        &mut self,
        views: &BTreeMap<Slot, View>,
        published: impl Fn(Slot) -> Option<Label>,
        is_idle: bool,
        now: Instant,
    ) -> Vec<Action> {
        self.looked_at = now;
        self.own.retain(|slot, _| views.contains_key(slot));
        let mut actions = Vec::new();
        let mut silent: Option<(Label, Slot)> = None;
        for (slot, view) in views {
            let watched = self.own.entry(*slot).or_default();
            if watched.must_ask(view, now) {
                actions.push(Action::AskFor(*slot, view.label));
            }
            if watched.is_silent(view, published(*slot), is_idle, now) {
                silent = Some(silent.unwrap_or((view.label, *slot)).min((view.label, *slot)));
            }
        }
        // The one whose next record is the earliest; the others may wait for what follows from it.
        actions.extend(silent.map(|(_, slot)| Action::SeeEnd(slot)));
        if now.saturating_duration_since(self.looked_at_others_at) >= LOOK_AT_OTHERS_EVERY {
            self.looked_at_others_at = now;
            let others: Vec<Slot> =
                self.all.iter().filter(|slot| !views.contains_key(slot)).copied().collect();
            actions.extend((!others.is_empty()).then_some(Action::SeeOthers(others)));
        }
        actions
    }

    /// A partition that is silent ends there in Kafka; not known where Kafka does not say.
    pub(super) fn end_seen(&mut self, slot: Slot, view: &View, end: Option<i64>) -> Vec<Action> {
        let watched = self.own.entry(slot).or_default();
        let is_read_on = std::mem::replace(&mut watched.at, view.at) != view.at;
        if is_read_on && end.is_some_and(|end| view.at < end) {
            // Others have written so much that it takes a while; who joins anew would read all of it again.
            return Vec::new();
        }
        let again = self.fell_silent_at.insert(slot, view.label) == Some(view.label);
        let Slot { topic, partition } = slot;
        let why =
            format!("nothing comes of {topic}[{partition}] after {}, though more was published", view.label);
        // What Kafka does not hold, the relay is asked for. What others wrote behind it looks as if there was more; a
        // new client tells.
        let is_lost = again || end.is_some_and(|end| end <= view.next_offset);
        let ask = is_lost.then_some(Action::AskFor(slot, view.label));
        ask.into_iter().chain([Action::JoinAnew(why)]).collect()
    }

    /// Others are so far with partitions that this member does not have. Answers which of them are behind what was
    /// published, and stand still.
    pub(super) fn others_seen(
        &mut self,
        others: &[Slot],
        applied: &BTreeMap<Slot, Label>,
        published: impl Fn(Slot) -> Option<Label>,
    ) -> Option<Action> {
        let behind = others.iter().filter_map(|slot| {
            let last = applied.get(slot).copied().unwrap_or(Label::START);
            published(*slot).is_some_and(|published| published > last).then_some((*slot, last))
        });
        let before = std::mem::replace(&mut self.behind, behind.collect());
        let still = self.behind.iter().filter(|(slot, label)| before.get(slot) == Some(label));
        let still: Vec<Slot> = still.map(|(slot, _)| *slot).collect();
        (!still.is_empty()).then_some(Action::SeeHolders(still))
    }

    /// No member has this partition, if there is such a one.
    pub(super) fn holders_seen(free: Option<Slot>) -> Option<Action> {
        let Slot { topic, partition } = free?;
        Some(Action::JoinAnew(format!("no member of the group has {topic}[{partition}]")))
    }
}

impl Watched {
    /// Whether the relay is to be asked again. The first time it was asked when the gap was met.
    fn must_ask(&mut self, view: &View, now: Instant) -> bool {
        if !view.is_missing {
            self.asked_at = None;
            return false;
        }
        let asked_at = *self.asked_at.get_or_insert(now);
        let must = now.saturating_duration_since(asked_at) >= ASK_AGAIN_AFTER;
        if must {
            self.asked_at = Some(now);
        }
        must
    }

    fn is_silent(&mut self, view: &View, published: Option<Label>, is_idle: bool, now: Instant) -> bool {
        let comes = std::mem::replace(&mut self.met, view.met) != view.met;
        if comes || !is_idle || published.is_none_or(|published| published <= view.label) {
            self.behind_since = None;
            return false;
        }
        if self.behind_since.is_none() {
            self.at = view.at;
        }
        now.saturating_duration_since(*self.behind_since.get_or_insert(now)) > SILENT_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUPS: Slot = Slot { topic: "cups", partition: 1 };
    const POTS: Slot = Slot { topic: "pots", partition: 0 };

    fn label(position: i64) -> Label {
        Label { era: 1, position }
    }

    fn view(position: i64, met: u64) -> View {
        View { label: label(position), met, is_missing: false, next_offset: 3, at: 3 }
    }

    fn joined() -> (Watchdog, Instant) {
        let begin = Instant::now();
        (Watchdog::new(vec![CUPS, POTS], begin), begin)
    }

    /// Looks at cups alone, of which `published` was published.
    fn look(watchdog: &mut Watchdog, view: View, published: Option<Label>, at: Instant) -> Vec<Action> {
        let mut actions = watchdog.look(&[(CUPS, view)].into(), |_| published, true, at);
        actions.retain(|action| !matches!(action, Action::SeeOthers(_)));
        actions
    }

    #[test]
    fn a_partition_is_silent_when_it_has_been_behind_for_long_and_nothing_was_read() {
        let (mut watchdog, begin) = joined();
        assert!(watchdog.is_due(begin + LOOK_EVERY) && !watchdog.is_due(begin + LOOK_EVERY / 2));
        let nine = Some(label(9));
        assert_eq!(look(&mut watchdog, view(5, 0), nine, begin), [], "it was published a moment ago");
        assert_eq!(look(&mut watchdog, view(5, 0), nine, begin + SILENT_MAX), []);
        assert_eq!(look(&mut watchdog, view(5, 0), nine, begin + SILENT_MAX * 2), [Action::SeeEnd(CUPS)]);
        // Reading anything of it begins the wait anew, also a repeat.
        assert_eq!(look(&mut watchdog, view(5, 1), nine, begin + SILENT_MAX * 3), []);
        assert_eq!(look(&mut watchdog, view(5, 1), nine, begin + SILENT_MAX * 4), []);
        assert_eq!(look(&mut watchdog, view(5, 1), nine, begin + SILENT_MAX * 6), [Action::SeeEnd(CUPS)]);
    }

    #[test]
    fn a_partition_that_has_nothing_more_to_read_is_not_silent() {
        for published in [None, Some(label(4)), Some(label(5))] {
            let (mut watchdog, begin) = joined();
            look(&mut watchdog, view(5, 0), Some(label(9)), begin);
            assert_eq!(
                look(&mut watchdog, view(5, 0), published, begin + SILENT_MAX * 2),
                [],
                "{published:?}"
            );
            assert_eq!(watchdog.own[&CUPS].behind_since, None);
        }
    }

    #[test]
    fn a_partition_is_not_silent_because_another_ones_batch_took_long_or_there_was_more_at_hand() {
        let nine = Some(label(9));
        for (took, still_behind) in [(BATCH_LONG / 2, true), (BATCH_LONG * 2, false)] {
            let (mut watchdog, begin) = joined();
            look(&mut watchdog, view(5, 0), nine, begin);
            watchdog.worked(took);
            assert_eq!(watchdog.own[&CUPS].behind_since.is_some(), still_behind, "{took:?}");
        }
        let (mut watchdog, begin) = joined();
        look(&mut watchdog, view(5, 0), nine, begin);
        let actions = watchdog.look(&[(CUPS, view(5, 0))].into(), |_| nine, false, begin + SILENT_MAX * 2);
        assert!(!actions.contains(&Action::SeeEnd(CUPS)), "{actions:?}");
    }

    #[test]
    fn of_silent_partitions_the_one_with_the_earliest_label_is_looked_at() {
        let (mut watchdog, begin) = joined();
        let views = [(CUPS, view(5, 0)), (POTS, view(4, 0))].into();
        watchdog.look(&views, |_| Some(label(9)), true, begin);
        let actions = watchdog.look(&views, |_| Some(label(9)), true, begin + SILENT_MAX * 2);
        assert!(actions.contains(&Action::SeeEnd(POTS)) && !actions.contains(&Action::SeeEnd(CUPS)));
    }

    #[test]
    fn a_silent_member_joins_anew_and_asks_for_what_kafka_does_not_hold_or_what_does_not_come_even_then() {
        let (mut watchdog, begin) = joined();
        let is_asked = |actions: &[Action]| {
            assert!(matches!(actions.last(), Some(Action::JoinAnew(_))), "{actions:?}");
            actions.contains(&Action::AskFor(CUPS, label(5)))
        };
        assert_eq!(watchdog.end_seen(CUPS, &view(5, 0), Some(4)), [], "others' records are being read");
        assert!(!is_asked(&watchdog.end_seen(CUPS, &view(5, 0), Some(4))), "the client may be at fault");
        watchdog.joins(begin);
        assert_eq!(watchdog.end_seen(CUPS, &View { at: 4, ..view(5, 0) }, Some(9)), []);
        assert_eq!(watchdog.end_seen(CUPS, &View { at: 7, ..view(5, 0) }, Some(9)), []);
        assert!(
            is_asked(&watchdog.end_seen(CUPS, &View { at: 9, ..view(5, 0) }, Some(9))),
            "all was others'"
        );
        assert!(!is_asked(&watchdog.end_seen(POTS, &view(5, 0), None)), "Kafka has not said");
        let (mut watchdog, _) = joined();
        assert!(is_asked(&watchdog.end_seen(CUPS, &view(5, 0), Some(3))), "there is nothing");
    }

    #[test]
    fn what_is_missing_is_asked_for_again_until_it_comes() {
        let (mut watchdog, begin) = joined();
        let missing = |met| View { is_missing: true, ..view(5, met) };
        let mut at =
            |seconds, view| look(&mut watchdog, view, Some(label(9)), begin + Duration::from_secs(seconds));
        let ask = [Action::AskFor(CUPS, label(5))];
        assert_eq!(at(0, missing(1)), [], "it was asked for when it was met");
        assert_eq!(at(4, missing(2)), []);
        assert_eq!(at(6, missing(3)), ask);
        assert_eq!(at(8, missing(4)), []);
        assert_eq!(at(12, missing(5)), ask);
        assert_eq!(at(14, view(7, 6)), []);
        assert_eq!(at(20, missing(7)), [], "another gap");
    }

    #[test]
    fn a_member_may_wait_a_while_for_its_part_and_may_have_none() {
        let begin = Instant::now();
        assert_eq!(Watchdog::unassigned(Some(begin), begin + UNASSIGNED_MAX), None);
        assert!(Watchdog::unassigned(Some(begin), begin + UNASSIGNED_MAX * 2).is_some());
        assert_eq!(Watchdog::unassigned(None, begin + UNASSIGNED_MAX * 2), None);
    }

    #[test]
    fn what_nobody_has_is_looked_for_where_it_is_behind_and_stands_still() {
        let (mut watchdog, begin) = joined();
        let views = [(CUPS, view(5, 0))].into();
        let actions = watchdog.look(&views, |_| None, true, begin + LOOK_AT_OTHERS_EVERY);
        assert_eq!(actions, [Action::SeeOthers(vec![POTS])]);
        let mut seen = |applied, published| {
            watchdog.others_seen(&[POTS], &[(POTS, label(applied))].into(), |_| Some(label(published)))
        };
        assert_eq!(seen(3, 9), None, "it may be about to come");
        assert_eq!(seen(4, 9), None, "somebody applies it");
        assert_eq!(seen(4, 9), Some(Action::SeeHolders(vec![POTS])));
        assert_eq!(seen(9, 9), None);
        assert_eq!(Watchdog::holders_seen(None), None);
        assert!(matches!(Watchdog::holders_seen(Some(POTS)), Some(Action::JoinAnew(_))));
    }
}
