//! What was published last to each partition, and which partitions of Kafka do not hold it any more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tails::Tail;
use crate::label::Label;

/// The last record of a partition: its position in the log, 0 for none, and its offset where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i64, Option<i64>)", into = "(i64, Option<i64>)")]
pub(crate) struct Last {
    pub(crate) position: i64,
    pub(crate) offset: Option<i64>,
}

impl From<(i64, Option<i64>)> for Last {
    fn from((position, offset): (i64, Option<i64>)) -> Last {
        Last { position, offset }
    }
}

impl From<Last> for (i64, Option<i64>) {
    fn from(last: Last) -> (i64, Option<i64>) {
        (last.position, last.offset)
    }
}

/// The last record published to each partition, by topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Tails(pub(super) BTreeMap<String, Vec<Last>>);

impl Tails {
    /// Puts a record at the end of a partition, whose offset is not known.
    pub(super) fn put(&mut self, topic: &str, partition: i16, position: i64, partitions: i16) {
        let of_topic = self.0.entry(topic.to_owned()).or_default();
        of_topic.resize(usize::from(partitions.unsigned_abs()), Last::default());
        if let Some(last) = of_topic.get_mut(usize::from(partition.unsigned_abs())) {
            *last = Last { position, offset: None };
        }
    }

    /// What stands at the end of a partition.
    pub(super) fn of(&self, topic: &str, partition: i16) -> Last {
        let tails = self.0.get(topic);
        tails.and_then(|tails| tails.get(usize::from(partition.unsigned_abs()))).copied().unwrap_or_default()
    }
}

/// A partition that does not hold everything that was published to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) topic: String,
    pub(crate) partition: i16,
    /// What it still holds goes up to here.
    pub(crate) kept: i64,
}

/// How far a relay has come in publishing, to tell by what must be in Kafka.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(super) era: i32,
    pub(super) tails: Tails,
    /// Nothing up to here has been published in this era.
    pub(super) after: i64,
}

impl Published {
    /// The last record of a partition; none where this era has published nothing to it.
    pub(crate) fn last(&self, topic: &str, partition: i16) -> Option<Label> {
        let position = self.tails.of(topic, partition).position;
        (position > self.after).then_some(Label { era: self.era, position })
    }

    /// The partitions that have lost what was published last.
    pub(super) fn losses(&self, found: &[Tail]) -> Vec<Loss> {
        found.iter().filter_map(|tail| self.loss(tail)).collect()
    }

    fn loss(&self, tail: &Tail) -> Option<Loss> {
        let expected = self.tails.of(&tail.topic, tail.partition).position;
        // Labels of another era are of no use here.
        let label = tail.last.map(|last| last.label).filter(|label| label.era == self.era);
        let kept = label.map_or(0, |label| label.position);
        let is_lost = kept < expected && expected > self.after && !tail.expired;
        let (topic, kept) = (tail.topic.clone(), kept.max(self.after));
        is_lost.then_some(Loss { topic, partition: tail.partition, kept })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tails;
    use super::*;

    fn published(last: i64, after: i64) -> Published {
        let mut tails = Tails::default();
        tails.put("cups", 0, last, 1);
        Published { era: 2, tails, after }
    }

    fn tail(label: Option<Label>, high: i64) -> Tail {
        let last = label.map(|label| tails::Last { label, event_id: None });
        let records = i64::from(last.is_some());
        Tail {
            topic: "cups".to_owned(),
            partition: 0,
            records,
            high,
            last,
            expired: records == 0 && high > 0,
        }
    }

    fn kept(published: &Published, tail: &Tail) -> Option<i64> {
        published.loss(tail).map(|loss| loss.kept)
    }

    #[test]
    fn tails_read_back_from_what_the_cursor_keeps() {
        let kept = r#"{"cups":[[100001,7],[0,null]]}"#;
        let tails: Tails = serde_json::from_str(kept).unwrap();
        assert_eq!(tails.of("cups", 0), Last { position: 100_001, offset: Some(7) });
        assert_eq!(serde_json::to_string(&tails).unwrap(), kept);
    }

    #[test]
    fn what_was_published_last_must_be_the_last_record_or_have_been_thrown_away() {
        let label = |era, position| Some(Label { era, position });
        assert_eq!(kept(&published(9, 0), &tail(label(2, 9), 5)), None);
        assert_eq!(kept(&published(9, 0), &tail(label(2, 7), 4)), Some(7));
        assert_eq!(kept(&published(9, 0), &tail(None, 0)), Some(0));
        assert_eq!(kept(&published(9, 0), &tail(None, 5)), None, "too old, or deleted on purpose");
        assert_eq!(kept(&published(9, 0), &tail(label(1, 900), 5)), Some(0), "another era's label");
    }

    #[test]
    fn nothing_is_missed_that_this_era_has_not_published() {
        assert_eq!(kept(&published(9, 9), &tail(None, 0)), None);
        assert_eq!(kept(&published(9, 6), &tail(None, 0)), Some(6), "only what lies above");
    }
}
