//! One partition of Kafka against the rows of the log that belong there, both read once, side by side.
//!
//! Rows come in the order of their positions. Records do as well, but for repeats: after a take-over the relay
//! sends again what it may have sent before, and after a loss in Kafka it sends again what is missing, so that
//! rows turn up behind records of higher positions. So a row that is not where it should be is only missing
//! once the partition has been read to its end.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::check::Check;
use crate::consumer::{Verdict, judge};
use crate::label::Label;

/// How many missing rows of one partition are told: where there are many, other partitions' tell more.
const TOLD_MAX: usize = 8;

/// A row of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) position: i64,
    pub(super) event_id: Uuid,
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
    pub(super) event_id: Option<Uuid>,
}

/// What was met besides rows in their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Records that the relay did not publish.
    pub(super) foreign: u64,
    /// Records that were sent again.
    pub(super) repeats: u64,
    /// Rows whose records Kafka has thrown away for their age.
    pub(super) expired: u64,
}

/// Records that a consumer puts off, because they do not follow on what it has read.
#[derive(Clone, Copy, Debug)]
struct Gap {
    after: Label,
    first: Published,
    /// Once a consumer has come this far, all of them have been sent again.
    highest: Label,
}

/// The comparison of one partition. It holds a record, and a few words for each row that was not in its place.
#[derive(Debug)]
pub(super) struct Comparison {
    place: String,
    /// Rows above `after` and up to here are in Kafka or should be.
    upto: i64,
    after: i64,
    era: i32,
    /// Kafka has thrown away the partition's beginning.
    begins_late: bool,
    next: Option<Published>,
    /// The highest position that was taken from Kafka.
    highest: i64,
    missing: BTreeMap<i64, Uuid>,
    /// The highest label met, whether taken or not.
    pub(super) last_label: Label,
    /// Where a consumer is that reads the partition from its beginning.
    reader: Option<Label>,
    gap: Option<Gap>,
    pub(super) figures: Figures,
}

impl Comparison {
    /// `begins_late`: the partition's first offset is above 0.
    pub(super) fn new(place: String, after: i64, upto: Label, begins_late: bool) -> Comparison {
        Comparison {
            place,
            after,
            upto: upto.position,
            era: upto.era,
            begins_late,
            next: None,
            highest: 0,
            missing: BTreeMap::new(),
            last_label: Label::START,
            reader: None,
            gap: None,
            figures: Figures::default(),
        }
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
        loop {
            match self.peek(pull)? {
                Some(met) if met.label.position <= row.position => {
                    self.next = None;
                    let before = self.highest;
                    self.highest = before.max(met.label.position);
                    if met.label.position < row.position {
                        self.out_of_place(&met, before, check);
                    } else if met.event_id == Some(row.event_id) {
                        return Ok(());
                    } else if met.label.era >= self.era {
                        self.differs(row, met.event_id, check);
                        return Ok(());
                    }
                }
                // What was thrown away for its age can only have lain before everything that is left.
                _ if self.begins_late && self.highest == 0 => {
                    self.figures.expired += 1;
                    return Ok(());
                }
                _ => {
                    self.missing.insert(row.position, row.event_id);
                    return Ok(());
                }
            }
        }
    }

    /// Reads the partition to its end, after the last row, and counts what was not found.
    pub(super) fn finish<E>(
        &mut self,
        check: &mut Check,
        pull: &mut impl FnMut() -> Result<Option<Met>, E>,
    ) -> Result<(), E> {
        while let Some(met) = self.peek(pull)? {
            self.next = None;
            // What lies above was published while this was running.
            if met.label.position <= self.upto {
                let before = self.highest;
                self.highest = before.max(met.label.position);
                self.out_of_place(&met, before, check);
            }
        }
        self.tell_gap(check);
        self.tell_missing(check);
        Ok(())
    }

    fn tell_gap(&self, check: &mut Check) {
        let Some(Gap { after, first, .. }) = self.gap else { return };
        let after =
            if after == Label::START { "at the beginning".to_owned() } else { format!("after {after}") };
        check.violation(format!(
            "{}: consumers stop {after}, since {} says that {} comes before it",
            self.place, first.label, first.previous
        ));
    }

    fn tell_missing(&mut self, check: &mut Check) {
        let missing = std::mem::take(&mut self.missing);
        let extent = match self.last_label {
            Label::START => "which has none".to_owned(),
            last => format!("which goes up to {last}"),
        };
        for (position, event_id) in missing.iter().take(TOLD_MAX) {
            check.violation(format!(
                "log position {position}, event {event_id}: not in {}, {extent}",
                self.place
            ));
        }
        check.violations_beyond(missing.len().saturating_sub(TOLD_MAX) as u64);
    }

    /// A record below the next row: sent again if it does not lie above all `before`, else not in the log at all.
    fn out_of_place(&mut self, met: &Published, before: i64, check: &mut Check) {
        let position = met.label.position;
        if let Some(event_id) = self.missing.get(&position).copied() {
            if met.event_id == Some(event_id) {
                self.missing.remove(&position);
            } else if met.label.era >= self.era {
                self.missing.remove(&position);
                self.differs(Row { position, event_id }, met.event_id, check);
            }
        } else if position <= before || position <= self.after {
            self.figures.repeats += 1;
        } else if met.label.era >= self.era {
            check.violation(format!("{}: holds {}, which the log does not have", self.place, met.label));
        }
    }

    fn differs(&self, row: Row, found: Option<Uuid>, check: &mut Check) {
        let found = found.map_or_else(|| "none".to_owned(), |id| id.to_string());
        check.violation(format!(
            "log position {}: event {}, but event {found} in {}",
            row.position, row.event_id, self.place
        ));
    }

    fn peek<E>(&mut self, pull: &mut impl FnMut() -> Result<Option<Met>, E>) -> Result<Option<Published>, E> {
        while self.next.is_none() {
            match pull()? {
                None => return Ok(None),
                Some(Met::Foreign) => self.figures.foreign += 1,
                Some(Met::Ours(met)) => {
                    self.read(met);
                    self.next = Some(met);
                }
            }
        }
        Ok(self.next)
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
                if self.gap.is_some_and(|gap| gap.highest <= met.label) {
                    self.gap = None;
                }
            }
            Verdict::Skip => {}
            // What lies above the cursor may still be mended: the relay repeats from the cursor on.
            Verdict::Gap if met.label.position > self.upto => {}
            Verdict::Gap => {
                let gap = self.gap.get_or_insert(Gap { after: last, first: met, highest: met.label });
                gap.highest = gap.highest.max(met.label);
            }
        }
    }
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
