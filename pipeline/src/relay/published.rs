//! What was published last to each partition, and which partitions of Kafka do not hold it any more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ends::{End, Met};
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

    /// The same records, wherever they lie.
    pub(super) fn without_offsets(mut self) -> Tails {
        self.0.values_mut().flatten().for_each(|last| last.offset = None);
        self
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
    pub(super) fn losses(&self, ends: &[End]) -> Vec<Loss> {
        ends.iter().filter_map(|end| self.loss(end)).collect()
    }

    fn loss(&self, end: &End) -> Option<Loss> {
        let Last { position, offset } = self.tails.of(&end.topic, end.partition);
        if position <= self.after || self.is_held(end, position, offset) {
            return None;
        }
        let before = |met: &&Met| met.label.era == self.era && met.label.position < position;
        let kept = end.met.iter().filter(before).map(|met| met.label.position).max().unwrap_or(0);
        let (topic, partition) = (end.topic.clone(), end.partition);
        Some(Loss { topic, partition, kept: kept.max(self.after) })
    }

    /// Whether the partition holds that record, or has lost it because it was too old or was deleted on purpose.
    fn is_held(&self, end: &End, position: i64, offset: Option<i64>) -> bool {
        let label = Label { era: self.era, position };
        match offset {
            Some(offset) => offset < end.low || end.met.iter().any(|met| met.label == label),
            // It need not be among the last ones.
            None => (end.low == end.high && end.high > 0) || end.highest(self.era) >= Some(position),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn published(position: i64, offset: Option<i64>, after: i64) -> Published {
        let tails = Tails([("cups".to_owned(), vec![Last { position, offset }])].into());
        Published { era: 2, tails, after }
    }

    /// An end with records of ours at those offsets: their eras and positions.
    fn end(low: i64, high: i64, met: &[(i64, i32, i64)]) -> End {
        let met = met.iter().map(|(offset, era, position)| Met {
            offset: *offset,
            label: Label { era: *era, position: *position },
            event_id: Uuid::nil(),
        });
        End { topic: "cups".to_owned(), partition: 0, low, high, met: met.collect() }
    }

    fn kept(published: &Published, end: &End) -> Option<i64> {
        published.loss(end).map(|loss| loss.kept)
    }

    #[test]
    fn tails_read_back_from_what_the_cursor_keeps() {
        let kept = r#"{"cups":[[100001,7],[0,null]]}"#;
        let tails: Tails = serde_json::from_str(kept).unwrap();
        assert_eq!(tails.of("cups", 0), Last { position: 100_001, offset: Some(7) });
        assert_eq!(serde_json::to_string(&tails).unwrap(), kept);
    }

    #[test]
    fn what_was_published_last_must_lie_where_it_was_put_whatever_lies_behind_it() {
        let published = published(9, Some(4), 0);
        assert_eq!(kept(&published, &end(0, 5, &[(4, 2, 9)])), None);
        assert_eq!(kept(&published, &end(0, 500, &[(4, 2, 9)])), None, "junk behind it");
        assert_eq!(kept(&published, &end(0, 4, &[(3, 2, 7)])), Some(7), "cut off");
        assert_eq!(kept(&published, &end(0, 9, &[(0, 2, 12)])), Some(0), "made anew, and published to since");
        assert_eq!(kept(&published, &end(0, 0, &[])), Some(0), "made anew");
        assert_eq!(kept(&published, &end(0, 9, &[(4, 1, 900)])), Some(0), "another era's label");
        assert_eq!(kept(&published, &end(5, 9, &[])), None, "too old, or deleted on purpose");
        assert_eq!(kept(&published, &end(5, 5, &[])), None, "the same, with nothing behind it");
    }

    #[test]
    fn a_record_whose_offset_is_not_known_is_there_if_it_or_a_later_one_is_met() {
        let published = published(9, None, 0);
        assert_eq!(kept(&published, &end(0, 50, &[(7, 2, 9)])), None);
        assert_eq!(kept(&published, &end(0, 50, &[(7, 2, 12)])), None);
        assert_eq!(kept(&published, &end(0, 50, &[(7, 2, 8)])), Some(8));
        assert_eq!(kept(&published, &end(7, 7, &[])), None, "too old, or deleted on purpose");
        assert_eq!(kept(&published, &end(0, 0, &[])), Some(0));
    }

    #[test]
    fn nothing_is_missed_that_this_era_has_not_published() {
        assert_eq!(kept(&published(9, None, 9), &end(0, 0, &[])), None);
        assert_eq!(kept(&published(9, Some(3), 6), &end(0, 0, &[])), Some(6), "only what lies above");
    }
}
