//! The reading of one partition, as a state machine: told which record was met, it says what is to be done with it, and
//! how far the partition is.
//!
//! There are three marks, each at or behind the next: what is stored, what may be stored, and what was read. What may be
//! stored ends before the first record that is still to be applied. What is stored is what a successor begins with.

use std::time::Instant;

use uuid::Uuid;

use super::mark::{Mark, Progress, Tip};
use super::sequence_check::{Verdict, judge};
use crate::label::Label;
use crate::loopback::Lies;
use crate::partition::Slot;

/// A record that was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) offset: i64,
    /// None of a foreign record.
    pub(super) own: Option<Own>,
}

/// What is known of a record that is the relay's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) label: Label,
    pub(super) previous: Label,
    pub(super) event_id: Uuid,
}

/// What is to be done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is applied, and then the partition stands there.
    Apply(Mark),
    /// It is foreign, and becomes a dead letter; then the partition stands there.
    PutAside(Mark),
    /// It is of no interest to the group.
    PassOver,
    /// It was applied before.
    Skip,
    /// It is foreign, and only counted.
    Count,
    /// Nothing: it has been met before, or what lies before it is missing.
    Leave,
    /// Nothing, and the relay is asked for what follows this label.
    AskFor(Label),
    /// This is not the log that was read before: reading begins anew at this offset.
    BeginAt(i64),
}

/// What it means where a record lies that has looped back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// Reading goes on behind it.
    Next,
    /// Nothing new.
    Known,
    /// The record is still to be read.
    NotRead,
    /// Something else lies between, and is to be fetched.
    Beyond,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) offset: i64,
    /// The relay is asked for what follows this label: Kafka does not hold what comes next.
    pub(super) ask_for: Option<Label>,
}

/// A partition that this member owns.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    epoch: i64,
    stored: Mark,
    /// Where reading goes on behind what is stored: there, but where that was another log.
    begun: Mark,
    storable: Mark,
    read: Mark,
    /// The next record must be the tip; if it is not, reading begins at this offset.
    verify_or_begin_at: Option<i64>,
    /// Records between the last one and what was met since are missing.
    is_missing: bool,
    /// Since when something may be stored and is not.
    unstored_since: Option<Instant>,
    /// How many records of the relay's were met.
    met: u64,
    /// The offset behind the last record that was met, whoever wrote it.
    at: i64,
}

/// What a watch sees of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// The highest label that was applied, passed over, or read and is about to be.
    pub(super) label: Label,
    /// How many records of the relay's were met.
    pub(super) met: u64,
    pub(super) is_missing: bool,
    pub(super) next_offset: i64,
    /// The offset behind the last record that was met, whoever wrote it.
    pub(super) at: i64,
}

impl Reading {
    /// Of a partition that was just taken over.
    pub(super) fn new(epoch: i64, stored: Mark) -> Reading {
        Reading {
            epoch,
            stored,
            begun: stored,
            storable: stored,
            read: stored,
            verify_or_begin_at: None,
            is_missing: false,
            unstored_since: None,
            met: 0,
            at: 0,
        }
    }

    /// Where to begin, given the offsets that Kafka holds, `low` included, `high` not. Nothing has been read yet.
    pub(super) fn start(&mut self, low: i64, high: i64) -> Start {
        let next = self.read.next_offset;
        if next < low || next > high {
            // Kafka has lost or thrown away what was read, and perhaps more. Who has read nothing can't tell.
            let ask_for = (next > 0).then_some(self.read.label);
            self.begin_at(low);
            return Start { offset: low, ask_for };
        }
        match self.read.tip.filter(|tip| tip.offset >= low) {
            Some(tip) => {
                self.verify_or_begin_at = Some(low);
                Start { offset: tip.offset, ask_for: None }
            }
            None => Start { offset: next, ask_for: None },
        }
    }

    fn begin_at(&mut self, offset: i64) {
        self.read = Mark { next_offset: offset, tip: None, ..self.read };
        (self.storable, self.begun) = (self.read, self.read);
    }

    /// The label behind which the next record comes; none while records are missing, or it is not known yet whether this is the log that
    /// was read before.
    pub(super) fn awaited(&self) -> Option<Label> {
        let is_known = self.verify_or_begin_at.is_none() && !self.is_missing;
        is_known.then_some(self.read.label)
    }

    /// Judges a record of the relay's that loops back: where it lies is told later, see [`Reading::lies`].
    pub(super) fn meet_looped_back(
        &mut self,
        own: &Own,
        is_of_interest: impl FnOnce() -> bool,
        now: Instant,
    ) -> Fate {
        if self.awaited().is_none_or(|last| judge(last, own.label, own.previous) != Verdict::Apply) {
            return Fate::Leave;
        }
        self.met += 1;
        let mark = Mark { label: own.label, event_id: Some(own.event_id), ..self.read };
        self.go_on(mark, is_of_interest, now)
    }

    /// Goes on behind the next record.
    fn go_on(&mut self, mark: Mark, is_of_interest: impl FnOnce() -> bool, now: Instant) -> Fate {
        if is_of_interest() {
            self.read = mark;
            return Fate::Apply(mark);
        }
        self.pass(mark, now);
        Fate::PassOver
    }

    /// Kafka has put a record there that loops back.
    pub(super) fn lies(&mut self, lies: Lies, now: Instant) -> Placed {
        let Lies { label, offset } = lies;
        if self.awaited().is_none() || offset < self.read.next_offset {
            return Placed::Known;
        }
        if offset > self.read.next_offset {
            return Placed::Beyond;
        }
        if label > self.read.label {
            return Placed::NotRead;
        }
        self.at = offset + 1;
        let tip = Some(Tip { label, offset });
        self.pass(Mark { tip, next_offset: offset + 1, ..self.read }, now);
        Placed::Next
    }

    /// Forgets what was read and is not stored: it is read again. Answers whether something may have been read: where it is not known yet
    /// whether this is the log that was read before, that is still to be seen.
    pub(super) fn reread(&mut self) -> bool {
        if self.verify_or_begin_at.is_some() {
            return false;
        }
        (self.read, self.storable) = (self.begun, self.begun);
        (self.is_missing, self.unstored_since) = (false, None);
        true
    }

    /// Judges a record. Whether it is of interest is asked only where it is the next one, and whether there is room for one
    /// more foreign record only of such.
    pub(super) fn meet(
        &mut self,
        met: &Met,
        is_of_interest: impl FnOnce() -> bool,
        has_room: impl FnOnce() -> bool,
        now: Instant,
    ) -> Fate {
        self.met += u64::from(met.own.is_some());
        self.at = met.offset + 1;
        if let Some(low) = self.verify_or_begin_at.take() {
            let tip = met.own.map(|own| Tip { label: own.label, offset: met.offset });
            if tip == self.read.tip {
                return Fate::Leave;
            }
            self.begin_at(low);
            return Fate::BeginAt(low);
        }
        let next_offset = met.offset + 1;
        let Some(own) = met.own else {
            if met.offset < self.read.next_offset {
                // It lies behind the tip, and was done with before.
                return Fate::Leave;
            }
            return self.meet_foreign(Mark { next_offset, ..self.read }, has_room, now);
        };
        let tip = Some(Tip { label: own.label, offset: met.offset });
        match judge(self.read.label, own.label, own.previous) {
            Verdict::Apply => {
                self.is_missing = false;
                let mark = Mark { label: own.label, event_id: Some(own.event_id), tip, next_offset };
                self.go_on(mark, is_of_interest, now)
            }
            // While records are missing the offset stays before them, so that a successor misses them, too.
            Verdict::Skip | Verdict::Gap if self.is_missing => Fate::Leave,
            // It was on its way when it became known where it lies.
            Verdict::Skip if met.offset < self.read.next_offset => Fate::Leave,
            Verdict::Skip => {
                self.pass(Mark { tip, next_offset, ..self.read }, now);
                Fate::Skip
            }
            Verdict::Gap => {
                self.is_missing = true;
                Fate::AskFor(self.read.label)
            }
        }
    }

    /// A foreign record moves the offset and nothing else.
    fn meet_foreign(&mut self, mark: Mark, has_room: impl FnOnce() -> bool, now: Instant) -> Fate {
        if self.is_missing {
            return Fate::Count;
        }
        if has_room() {
            self.read = mark;
            return Fate::PutAside(mark);
        }
        self.pass(mark, now);
        Fate::Count
    }

    /// Moves behind a record with which nothing is to be done. Where nothing before it is, either, that may be stored.
    fn pass(&mut self, mark: Mark, now: Instant) {
        let is_clear = self.storable == self.read;
        self.read = mark;
        if is_clear {
            self.storable = mark;
            self.unstored_since.get_or_insert(now);
        }
    }

    /// Takes in that this was stored.
    pub(super) fn stored(&mut self, mark: Mark) {
        (self.stored, self.storable, self.begun) = (mark, mark, mark);
        self.unstored_since = None;
    }

    /// Takes in that it could not be stored.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.unstored_since = self.unstored_since.map(|_| now);
    }

    pub(super) fn unstored_since(&self) -> Option<Instant> {
        self.unstored_since
    }

    /// What is to be stored once everything that was read has been applied.
    pub(super) fn progress(&self, slot: Slot) -> Option<Progress> {
        self.upto(slot, self.read)
    }

    /// What may be stored now.
    pub(super) fn storable(&self, slot: Slot) -> Option<Progress> {
        self.upto(slot, self.storable)
    }

    fn upto(&self, slot: Slot, upto: Mark) -> Option<Progress> {
        let (epoch, before) = (self.epoch, (self.stored.label, self.stored.next_offset));
        (upto != self.stored).then_some(Progress { slot, epoch, before, upto })
    }

    /// The offset that is stored.
    pub(super) fn stored_offset(&self) -> i64 {
        self.stored.next_offset
    }

    pub(super) fn view(&self) -> View {
        let Mark { label, next_offset, .. } = self.read;
        View { label, met: self.met, is_missing: self.is_missing, next_offset, at: self.at }
    }
}

#[cfg(test)]
#[path = "reading_stories.rs"]
mod stories;
#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
