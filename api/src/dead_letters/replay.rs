//! A replay as it stands.

use jiff::Timestamp;
use ordermill_pipeline::dead_letters::Verdict;
use ordermill_pipeline::dead_letters::replays::{Item, Progress, Replay, Requested, Verdicts};
use uuid::Uuid;

use crate::view::view;

view! {
    /// A replay that was asked for.
    #[schema(as = RequestedReplay)]
    pub struct RequestedView from requested: Requested where is_done = requested.selected == 0; {
        /// The replay.
        pub replay_id: Uuid,
        /// How many letters it has.
        pub selected: i64,
        /// `RUNNING`, or `DONE` where nothing was selected.
        #[schema(value_type = String, example = "RUNNING")]
        pub state: Progress = if is_done { Progress::Done } else { Progress::Running },
    }
}

view! {
    /// A replay as it stands, without its letters.
    #[schema(as = Replay)]
    pub struct ReplayView from replay: Replay {
        /// The replay.
        pub replay_id: Uuid,
        /// `RUNNING`, or `DONE` once every letter has its verdict.
        #[schema(value_type = String, example = "DONE")]
        pub state: Progress = replay.progress,
        /// Whether it changes nothing.
        pub dry_run: bool,
        /// Letters a second at most.
        pub rate_per_second?: i32,
        /// How many letters it has.
        pub selected: i64,
        /// Who asked for it.
        #[schema(example = "admin:minji")]
        pub requested_by: String,
        /// When.
        pub requested_at: Timestamp,
        /// The verdicts so far.
        pub counts: Verdicts = replay.verdicts,
    }
}

view! {
    /// A replay as it stands, with its letters.
    #[schema(as = WholeReplay)]
    pub struct WholeReplayView of(replay: Replay, items: Vec<Item>) {
        /// The replay.
        #[serde(flatten)]
        pub replay: ReplayView = replay.into(),
        /// The letters: those of a key one after the other, otherwise in the order in which they were put aside.
        pub items: Vec<ItemView> = items.into_iter().map(ItemView::from).collect(),
    }
}

view! {
    /// A letter of a replay.
    #[schema(as = ReplayItem)]
    pub struct ItemView from item: Item {
        /// The letter.
        pub dead_letter_id: Uuid,
        /// The group whose worker decides.
        #[schema(example = "stock")]
        pub group: String,
        /// `APPLIED`, `ALREADY_APPLIED`, `FAILED_AGAIN` or `WAITING`; null until the replay has come to it.
        #[schema(value_type = Option<String>, example = "APPLIED")]
        pub verdict?: &'static str = item.verdict.map(Verdict::name),
        /// Why it failed again, for people.
        pub detail?: String,
        /// When the verdict fell.
        pub decided_at?: Timestamp,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_replay_of_nothing_is_done_when_it_is_asked_for() {
        let state = |selected| RequestedView::from(Requested { replay_id: Uuid::nil(), selected }).state;
        assert_eq!((state(0), state(1)), (Progress::Done, Progress::Running));
    }

    #[test]
    fn verdicts_are_counted_under_their_names() {
        let verdicts = Verdicts { applied: 1, already_applied: 2, failed_again: 3, waiting: 4, undecided: 5 };
        let expected =
            json!({"APPLIED": 1, "ALREADY_APPLIED": 2, "FAILED_AGAIN": 3, "WAITING": 4, "UNDECIDED": 5});
        assert_eq!(serde_json::to_value(verdicts).unwrap(), expected);
    }
}
