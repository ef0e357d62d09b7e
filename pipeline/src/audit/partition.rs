//! One partition of Kafka against the rows of the log that belong there, both read once, side by side.
//!
//! The partition is read as a consumer reads it that begins at its start: a record that was applied before is skipped,
//! and one that does not follow on the last is put off until it is sent again. What is left is a chain in which
//! positions rise, as they do in the log. So each row is either the next link of the chain, or no consumer gets it, and
//! nothing has to be remembered: neither of records sent again, nor of rows that turn up behind higher ones.

use uuid::Uuid;

use super::check::Check;
use crate::consumer::{Verdict, judge};
use crate::label::Label;

/// How many missing rows of one partition are told: where there are many, other partitions' tell more.
const TOLD_MAX: u64 = 8;

/// What a record is to say: SHA-256 over key, type, version and payload.
pub(super) type Digest = [u8; 32];

/// A row of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) position: i64,
    pub(super) event_id: Uuid,
    pub(super) digest: Digest,
}

/// A record, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// The relay did not publish it.
    Foreign,
    /// The relay published it.
    Ours(Published),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) label: Label,
    pub(super) previous: Label,
    pub(super) event_id: Uuid,
    pub(super) digest: Digest,
}

/// What was met besides rows in their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Records that the relay did not publish.
    pub(super) foreign: u64,
    /// Records of which there is another that a consumer applies.
    pub(super) repeats: u64,
    /// Rows whose records Kafka has thrown away for their age.
    pub(super) expired: u64,
}

/// The first record that a consumer has put off, and where it was then.
#[derive(Clone, Copy, Debug)]
struct Gap {
    after: Label,
    first: Published,
    /// Once a consumer has come this far, all of them have been sent again.
    highest: Label,
    /// How many it has put off.
    put_off: u64,
}

/// The comparison of one partition. It holds one record, and a few words.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    place: String,
    /// Rows above `after` and up to here are in Kafka or should be.
    upto: i64,
    after: i64,
    era: i32,
    /// Kafka has thrown away the partition's beginning.
    begins_late: bool,
    /// The chain's next record.
    next: Option<Published>,
    /// Whether the chain has begun.
    has_begun: bool,
    missing: u64,
    /// The highest label met, whether applied or not.
    pub(super) last_label: Label,
    /// Where a consumer is that reads the partition from its beginning.
    reader: Option<Label>,
    gap: Option<Gap>,
    pub(super) figures: Figures,
}

impl Comparison {
    /// `begins_late`: the partition's first offset is above 0.
    pub(super) fn new(place: String, after: i64, upto: Label, begins_late: bool) -> Comparison {
        Comparison { place, after, upto: upto.position, era: upto.era, begins_late, ..Comparison::default() }
    }

    /// The topic and the partition.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Looks for the next row. `pull` answers the partition's records in order and then `None`.
    pub(super) fn row<E>(
        &mut self,
        row: Row,
        check: &mut Check,
        pull: &mut impl FnMut() -> Result<Option<Met>, E>,
    ) -> Result<(), E> {
        while let Some(met) = self.peek(pull)? {
            let is_above = met.label.position > row.position;
            if is_above && (met.label.era >= self.era || self.is_before_what_is_left()) {
                break;
            }
            self.take();
            if met.label.position != row.position {
                self.unknown(&met, check);
            } else if met.event_id == row.event_id && met.digest == row.digest {
                return Ok(());
            } else if met.label.era >= self.era {
                self.differs(&row, &met, check);
                return Ok(());
            }
            // What an earlier era says otherwise than the log is what the log was before it was taken over.
        }
        if self.is_before_what_is_left() {
            self.figures.expired += 1;
        } else {
            self.misses(&row, check);
        }
        Ok(())
    }

    /// Reads the partition to its end, after the last row.
    pub(super) fn finish<E>(
        &mut self,
        check: &mut Check,
        pull: &mut impl FnMut() -> Result<Option<Met>, E>,
    ) -> Result<(), E> {
        while let Some(met) = self.peek(pull)? {
            self.take();
            // What lies above was published while this was running.
            if met.label.position <= self.upto {
                self.unknown(&met, check);
            }
        }
        if let Some(Gap { after, first, .. }) = self.gap {
            let after =
                if after == Label::START { "at the beginning".to_owned() } else { format!("after {after}") };
            check.violation(format!(
                "{}: consumers stop {after}, since {} says that {} comes before it",
                self.place, first.label, first.previous
            ));
        }
        Ok(())
    }

    /// What was thrown away for its age can only have lain before everything that is left.
    fn is_before_what_is_left(&self) -> bool {
        self.begins_late && !self.has_begun
    }

    fn misses(&mut self, row: &Row, check: &mut Check) {
        self.missing += 1;
        if self.missing > TOLD_MAX {
            return check.violations_beyond(1);
        }
        let extent = match self.reader {
            None | Some(Label::START) => "which has none".to_owned(),
            Some(_) if self.gap.is_none() => format!("which goes up to {}", self.last_label),
            Some(last) => format!("where consumers come to {last}"),
        };
        check.violation(format!(
            "log position {}, event {}: not in {}, {extent}",
            row.position, row.event_id, self.place
        ));
    }

    /// A record between two rows. Of an earlier era, it is what the log was before it was taken over; what lies before all
    /// that is expected was published again meanwhile.
    fn unknown(&mut self, met: &Published, check: &mut Check) {
        if met.label.position <= self.after {
            self.figures.repeats += 1;
        } else if met.label.era >= self.era {
            check.violation(format!("{}: holds {}, which the log does not have", self.place, met.label));
        }
    }

    fn differs(&self, row: &Row, met: &Published, check: &mut Check) {
        let Row { position, event_id, .. } = row;
        let place = &self.place;
        let found = met.event_id;
        check.violation(if found == *event_id {
            format!(
                "log position {position}, event {event_id}: another key, type, version or payload in {place}"
            )
        } else {
            format!("log position {position}: event {event_id}, but event {found} in {place}")
        });
    }

    /// The chain's next record.
    fn peek<E>(&mut self, pull: &mut impl FnMut() -> Result<Option<Met>, E>) -> Result<Option<Published>, E> {
        while self.next.is_none() {
            match pull()? {
                None => return Ok(None),
                Some(Met::Foreign) => self.figures.foreign += 1,
                Some(Met::Ours(met)) => self.read(met),
            }
        }
        Ok(self.next)
    }

    fn take(&mut self) {
        self.next = None;
        self.has_begun = true;
    }

    /// What a consumer has read that begins with this record: nothing, unless the record follows on what is not expected
    /// to be there. Where the beginning is gone, what the first record follows on is gone, too, and an era need not begin
    /// with the log.
    fn beginning(&self, met: &Published) -> Label {
        let is_first = self.reader.is_none();
        let follows = (self.begins_late && is_first) || met.previous.position <= self.after;
        if follows { met.previous } else { Label::START }
    }

    /// What a consumer makes of the record.
    fn read(&mut self, met: Published) {
        self.last_label = self.last_label.max(met.label);
        let last = match self.reader {
            Some(last) if last != Label::START => last,
            _ => self.beginning(&met),
        };
        self.reader = Some(last);
        match judge(last, met.label, met.previous) {
            Verdict::Apply => {
                self.reader = Some(met.label);
                if let Some(gap) = self.gap.take_if(|gap| gap.highest <= met.label) {
                    self.figures.repeats += gap.put_off;
                }
                self.next = Some(met);
            }
            Verdict::Skip => self.figures.repeats += 1,
            // What lies above the cursor may still be mended: the relay repeats from the cursor on.
            Verdict::Gap if met.label.position > self.upto => {}
            Verdict::Gap => {
                let new = Gap { after: last, first: met, highest: met.label, put_off: 0 };
                let gap = self.gap.get_or_insert(new);
                gap.highest = gap.highest.max(met.label);
                gap.put_off += 1;
            }
        }
    }
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
