//! What is published again: what is asked for, and the stretch of the log of which only some topics are.

use std::collections::BTreeSet;

/// What is asked to be published again: everything above a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repeat {
    pub(crate) after: i64,
    /// Of these topics alone; of all where none is named.
    pub(crate) topics: Option<Vec<String>>,
}

impl Repeat {
    /// All that two requests ask for.
    pub(super) fn and(self, other: Repeat) -> Repeat {
        let topics = self.topics.zip(other.topics).map(|(mut topics, others)| {
            topics.extend(others);
            topics.sort_unstable();
            topics.dedup();
            topics
        });
        Repeat { after: self.after.min(other.after), topics }
    }
}

/// A stretch of the log of which only some topics are published, since the others have it. It is kept in memory alone:
/// a relay that takes over knows nothing of it and publishes everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Only {
    topics: BTreeSet<String>,
    /// What lies up to here has not been published in this era, to no topic.
    after: i64,
    pub(super) upto: i64,
}

impl Only {
    /// Whether a row is passed over.
    pub(super) fn leaves_out(&self, topic: &str, position: i64) -> bool {
        position > self.after && position <= self.upto && !self.topics.contains(topic)
    }

    /// The stretch once the cursor has been moved back from `position` by a further request.
    pub(super) fn next(
        former: Option<Only>,
        repeat: &Repeat,
        published_after: i64,
        position: i64,
    ) -> Option<Only> {
        let former =
            former.unwrap_or(Only { topics: BTreeSet::new(), after: published_after, upto: position });
        former.with(repeat)
    }

    /// The stretch with the topics of a further request; none where that asks for all of them.
    pub(super) fn with(mut self, repeat: &Repeat) -> Option<Only> {
        self.topics.extend(repeat.topics.as_ref()?.iter().cloned());
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(topics: &[&str], after: i64) -> Repeat {
        Repeat { after, topics: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()) }
    }

    #[test]
    fn two_requests_are_one_for_all_that_either_asks_for() {
        assert_eq!(of(&["pots", "cups"], 7).and(of(&["cups"], 5)), of(&["cups", "pots"], 5));
        assert_eq!(
            of(&["pots"], 7).and(Repeat { after: 9, topics: None }),
            Repeat { after: 7, topics: None }
        );
    }

    #[test]
    fn only_the_topics_that_were_asked_for_are_published_again_and_what_is_new_of_all() {
        let only = Only::next(None, &of(&["cups"], 10), 0, 50).unwrap();
        assert!(!only.leaves_out("cups", 20));
        assert!(only.leaves_out("pots", 20) && only.leaves_out("pots", 50));
        assert!(!only.leaves_out("pots", 51), "it has not been published before");
    }

    #[test]
    fn what_this_era_has_not_published_is_published_to_every_topic() {
        let only = Only::next(None, &of(&["cups"], 0), 30, 50).unwrap();
        assert!(!only.leaves_out("pots", 30));
        assert!(only.leaves_out("pots", 31));
    }

    #[test]
    fn a_further_request_adds_its_topics_and_one_for_all_leaves_nothing_out() {
        let only = Only::next(None, &of(&["cups"], 10), 0, 50).unwrap();
        let wider = Only::next(Some(only.clone()), &of(&["pots"], 5), 0, 20).unwrap();
        assert!(
            !wider.leaves_out("pots", 40) && !wider.leaves_out("cups", 40) && wider.leaves_out("lids", 40)
        );
        assert_eq!(Only::next(Some(only), &Repeat { after: 5, topics: None }, 0, 20), None);
    }
}
