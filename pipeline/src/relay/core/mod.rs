//! The relay's decisions, without Kafka and without a database: told what has happened, it says what is to be done.
//!
//! Whoever drives it carries out what [`Core::next`] answers until that is [`Action::Wait`], then waits for something to happen or for the
//! moment that was named. Of reads, of writes to the cursor's row and of looks at Kafka there is one of each at a time; their
//! outcomes are told back. Where one of them fails, the driver gives up the lead, and whoever leads next begins at the cursor that
//! is stored.

mod numbers;
#[cfg(test)]
mod properties;
mod repeat;
mod slots;
#[cfg(test)]
mod tests;
mod window;

use std::time::{Duration, Instant};

use super::places::Places;
use super::published::{Last, Loss, Published, Tails};
use crate::log::SEGMENT_POSITIONS;
use crate::others::Others;
use numbers::Numbers;
use slots::{Lasts, Slots};
use window::{SetBack, Window};

pub(crate) use numbers::{Answer, Question, Room, Segment};
pub(crate) use repeat::{Only, Repeat};

/// How far the stored cursor may be behind the acknowledgements.
const CURSOR_BEHIND_MAX: Duration = Duration::from_millis(250);
/// How many steps the cursor may be behind what was handed over or left out.
const STEPS_MAX: usize = 100_000;
/// The pause between two looks at the log while other processes commit.
const PAUSE: Duration = Duration::from_millis(20);
/// The same while only this process does, which tells of it.
const PAUSE_IF_TOLD: Duration = Duration::from_millis(250);
/// How often at most, and at least, it is looked whether something is acknowledged that is waited for.
const ACKNOWLEDGED_MIN: Duration = Duration::from_millis(2);
const ACKNOWLEDGED_MAX: Duration = Duration::from_millis(50);

/// What a leader keeps to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long a leader that says nothing stays leader.
    pub(crate) lease: Duration,
    /// How long Kafka may acknowledge nothing of what is under way.
    pub(crate) stalled_after: Duration,
    /// How often it is looked whether Kafka holds what was published last.
    pub(crate) look_every: Duration,
    /// How much may be under way.
    pub(crate) under_way: Room,
    /// How much may wait of what is told.
    pub(crate) waiting: Room,
}

/// Where a leader begins.
#[derive(Clone, Debug)]
pub(crate) struct Begin {
    pub(crate) era: i32,
    pub(crate) partitions: i16,
    pub(crate) published: Progress,
    /// Nothing up to here has been published in this era.
    pub(crate) published_after: i64,
    /// When the lease began at the earliest.
    pub(crate) kept_at: Instant,
}

/// A cursor: everything up to its position was acknowledged, and these are the last records of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) position: i64,
    pub(crate) tails: Tails,
}

/// What is to be done.
pub(crate) enum Action<S> {
    /// Hand these records over, in this order.
    Publish(Publication<S>),
    /// Read the log.
    Read(Question),
    /// Write the cursor's row.
    Write(Write),
    /// Look which record lies before one that came to lie before others.
    LookBefore { topic: String, partition: i16, offset: i64 },
    /// Look whether Kafka holds what was published last. A consumer that misses records asks for them by itself; this is for topics that
    /// nobody of ours reads, or that our groups have read to their end while others have not.
    Look(Published),
    /// Kafka acknowledges nothing: the leader begins anew.
    Stalled,
    /// Everything is at its end, as was asked for.
    End,
    /// Wait until something happens, at most until then.
    Wait(Instant),
}

/// Records of a segment.
pub(crate) struct Publication<S> {
    pub(crate) segment: S,
    pub(crate) records: Vec<Outgoing>,
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// Its event among those of the segment.
    pub(crate) index: usize,
    /// The number of its partition.
    pub(crate) slot: usize,
    /// The event's position.
    pub(crate) position: i64,
    /// By what its acknowledgement is told.
    pub(crate) ticket: u64,
    /// The position of the record before it in its partition; 0 for none.
    pub(crate) previous: i64,
}

/// A write to the cursor's row. Each keeps the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// Nothing but that.
    Lease,
    /// The cursor is there now, and there lie the records that it has passed since the last write.
    Cursor(Progress, Places),
    /// The cursor goes back, and the request is forgotten.
    GoBack(Repeat),
    /// The request is forgotten: what it asks for is published anyway.
    TakeIn(Repeat),
}

/// What came of a write.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    /// The lease or the cursor is written, and this is asked for.
    Kept(Option<Repeat>),
    /// The cursor has gone back.
    WentBack { tails: Tails, published_after: i64 },
    /// The request is forgotten.
    TookIn,
}

/// The state of a leader.
pub(crate) struct Core<S> {
    limits: Limits,
    era: i32,
    published_after: i64,
    slots: Slots,
    numbers: Numbers<S>,
    others: Others<i64>,
    /// When what nobody has told of was looked for.
    looked_at: Option<Instant>,
    window: Window,
    /// Everything up to here was handed over,
    position: i64,
    /// and of that, these are the last records.
    handed_over: Lasts,
    /// Of a stretch of the log, only some topics are published again.
    only: Option<Only>,
    /// Where the last records of partitions lie that are left out meanwhile.
    known: Lasts,
    /// What is asked to be published again and not begun.
    asked: Option<Repeat>,
    /// Counts how often the cursor was moved back.
    steps_back: u64,
    kept_at: Instant,
    /// The stored cursor, and when it was written.
    stored: i64,
    stored_at: Option<Instant>,
    writing: Option<(Write, Instant)>,
    reading: Option<Question>,
    /// The last answer was cut short.
    has_more: bool,
    set_back: Vec<SetBack>,
    looking_before: bool,
    look_due: Instant,
    /// A look is under way; how often the cursor had been moved back when it began.
    looking: Option<u64>,
    stopping: bool,
}

/// The number of the first segment that is not wholly below a position.
fn number_after(position: i64) -> i64 {
    // The last position that a segment can have ends it.
    ((position + 1) / SEGMENT_POSITIONS).max(1)
}

/// The last position that a segment can have.
fn end_of(number: i64) -> i64 {
    number * SEGMENT_POSITIONS + SEGMENT_POSITIONS - 1
}

impl<S: Segment> Core<S> {
    pub(crate) fn new(begin: Begin, limits: Limits, now: Instant) -> Core<S> {
        let mut slots = Slots::new(begin.partitions);
        let Progress { position, tails } = begin.published;
        let lasts = slots.lasts(&tails);
        Core {
            limits,
            era: begin.era,
            published_after: begin.published_after,
            slots,
            numbers: Numbers::new(number_after(position), limits.waiting),
            others: Others::default(),
            looked_at: None,
            window: Window::new(position, lasts.clone(), now),
            position,
            handed_over: lasts,
            only: None,
            known: Lasts::default(),
            asked: None,
            steps_back: 0,
            kept_at: begin.kept_at,
            stored: position,
            stored_at: None,
            writing: None,
            reading: None,
            has_more: false,
            set_back: Vec::new(),
            looking_before: false,
            look_due: now + limits.look_every,
            looking: None,
            stopping: false,
        }
    }

    /// Records of that partition lie below that offset.
    pub(crate) fn ends_at(&mut self, topic: &str, partition: i16, offset: i64) {
        let slot = self.slots.slot(topic, partition);
        self.window.ends_at(slot, offset);
    }

    /// What is committed will be told, unless looks show something else.
    pub(crate) fn expect_word(&mut self) {
        self.others.told();
    }

    /// This process has committed a segment.
    pub(crate) fn told(&mut self, segment: S) {
        self.others.told();
        self.others.word(&segment.number());
        self.numbers.told(segment);
    }

    /// This process has committed a segment of that number, which is not at hand any more.
    pub(crate) fn told_of(&mut self, number: i64) {
        self.others.told();
        self.others.word(&number);
        self.numbers.drawn(number);
    }

    /// The database has answered.
    pub(crate) fn answered(&mut self, answer: Answer<S>, now: Instant) {
        let Some(question) = self.reading.take() else { return };
        self.has_more = !answer.is_all;
        let untold = self.numbers.answered(&question, answer, now);
        self.others.found(untold, now);
    }

    /// Kafka has acknowledged a record; its offset may not be known.
    pub(crate) fn acknowledged(&mut self, ticket: u64, offset: Option<i64>, now: Instant) {
        self.window.acknowledged(ticket, offset, now);
        self.set_back.extend(self.window.set_back());
    }

    /// The cursor's row is written.
    pub(crate) fn written(&mut self, written: Written) {
        let Some((write, began_at)) = self.writing.take() else { return };
        self.kept_at = began_at;
        match (write, written) {
            (Write::Cursor(progress, _), Written::Kept(asked)) => {
                (self.stored, self.stored_at) = (progress.position, Some(began_at));
                self.asked(asked);
            }
            (_, Written::Kept(asked)) => self.asked(asked),
            (Write::GoBack(repeat), Written::WentBack { tails, published_after }) => {
                self.went_back(&repeat, &tails, published_after);
            }
            _ => {}
        }
    }

    fn asked(&mut self, repeat: Option<Repeat>) {
        self.asked = match (self.asked.take(), repeat) {
            (Some(former), Some(repeat)) => Some(former.and(repeat)),
            (former, repeat) => former.or(repeat),
        };
    }

    /// Nothing is under way. Everything above is published again.
    fn went_back(&mut self, repeat: &Repeat, tails: &Tails, published_after: i64) {
        self.known.keep_latest(self.window.lasts());
        let mut lasts = self.slots.lasts(tails);
        lasts.complete(&self.known);
        self.only = Only::next(self.only.take(), repeat, self.published_after, self.position);
        self.published_after = published_after;
        self.window.begin_again_at(repeat.after, lasts.clone());
        self.numbers.begin_again_at(number_after(repeat.after));
        (self.position, self.handed_over, self.stored) = (repeat.after, lasts, repeat.after);
        self.steps_back += 1;
    }

    /// A look at what lies before a record has shown up to where the partition still holds what was published.
    pub(crate) fn looked_before(&mut self, loss: Loss) {
        self.looking_before = false;
        self.lost(vec![loss]);
    }

    /// A look has shown what Kafka has lost, or nothing. Answers what is published again for it.
    pub(crate) fn looked(&mut self, losses: Vec<Loss>, now: Instant) -> Vec<Loss> {
        let began = self.looking.take();
        self.look_due = now + self.limits.look_every;
        // Since the cursor was moved back, the last records may be ones that were sent again.
        let losses = if began == Some(self.steps_back) { losses } else { Vec::new() };
        self.lost(losses.clone());
        losses
    }

    /// What is missing is to be published again, in its topics.
    pub(crate) fn lost(&mut self, losses: Vec<Loss>) {
        let after = losses.iter().map(|loss| loss.kept).min();
        let Some(after) = after else { return };
        let topics = losses.into_iter().map(|loss| loss.topic).collect::<std::collections::BTreeSet<_>>();
        self.asked(Some(Repeat { after, topics: Some(topics.into_iter().collect()) }));
    }

    /// Publishes nothing more: what is under way is waited for, and the cursor written.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// How far this leader has come.
    pub(crate) fn published(&self) -> Published {
        Published { era: self.era, tails: self.slots.tails(self.window.lasts()), after: self.published_after }
    }

    /// How many segments are known and not acknowledged.
    pub(crate) fn lag_segments(&self) -> i64 {
        (self.numbers.highest() - number_after(self.window.position()) + 1).max(0)
    }

    /// Since when Kafka has acknowledged nothing of what is under way; none where nothing is.
    pub(crate) fn stands_since(&self) -> Option<Instant> {
        self.window.stands_since()
    }

    /// For how long transactions that are open have held up what was committed.
    pub(crate) fn waited_for_transactions(&self, now: Instant) -> Duration {
        self.numbers.waited(now)
    }

    /// What is to be done next.
    pub(crate) fn next(&mut self, now: Instant) -> Action<S> {
        let stalls_at = self.window.stands_since().map(|since| since + self.limits.stalled_after);
        if stalls_at.is_some_and(|at| at <= now) {
            return Action::Stalled;
        }
        if !self.looking_before
            && let Some(SetBack { slot, offset }) = self.set_back.pop()
        {
            self.looking_before = true;
            let (topic, partition) = self.slots.place(slot);
            return Action::LookBefore { topic: topic.to_owned(), partition, offset };
        }
        if let Some(write) = self.write(now) {
            self.writing = Some((write.clone(), now));
            return Action::Write(write);
        }
        if self.may_publish(now)
            && let Some(publication) = self.publish(now)
        {
            return Action::Publish(publication);
        }
        if let Some(question) = self.read_due(now).and_then(|(at, question)| (at <= now).then_some(question))
        {
            if question.upto == i64::MAX {
                self.others.look(now);
                self.looked_at = Some(now);
            }
            self.reading = Some(question.clone());
            return Action::Read(question);
        }
        if self.looking.is_none() && !self.stopping && self.look_due <= now {
            self.looking = Some(self.steps_back);
            return Action::Look(self.published());
        }
        if self.stopping && self.writing.is_none() && self.window.under_way().0 == 0 {
            return Action::End;
        }
        Action::Wait(self.wait_until(now))
    }

    /// Whether something is to be published again that was handed over.
    fn is_to_go_back(&self) -> bool {
        self.asked.as_ref().is_some_and(|repeat| repeat.after < self.position)
    }

    fn is_going_back(&self) -> bool {
        matches!(self.writing, Some((Write::GoBack(_), _)))
    }

    /// The write that is due.
    fn write(&mut self, now: Instant) -> Option<Write> {
        if self.writing.is_some() {
            return None;
        }
        let is_stored = self.stored == self.window.position();
        if !self.stopping {
            // What is under way is waited for first: its acknowledgements would be taken for those of what is sent again.
            let is_ready = !self.is_to_go_back() || self.window.under_way().0 == 0;
            if let Some(repeat) = self.asked.take_if(|_| is_ready) {
                if repeat.after < self.position {
                    return Some(Write::GoBack(repeat));
                }
                // What lies ahead may be handed over while this is written.
                self.only = self.only.take().and_then(|only| only.with(&repeat));
                return Some(Write::TakeIn(repeat));
            }
        }
        let is_due = self.cursor_due().is_none_or(|at| at <= now) || self.stopping;
        // Until the cursor has gone back before what Kafka has lost, the row is the only thing that tells of it.
        let is_losing = self.looking_before || !self.set_back.is_empty() || self.is_to_go_back();
        if !is_stored && is_due && !is_losing {
            let tails = self.slots.tails(self.window.lasts());
            let progress = Progress { position: self.window.position(), tails };
            return Some(Write::Cursor(progress, self.window.take_places()));
        }
        (self.lease_due() <= now && !self.stopping).then_some(Write::Lease)
    }

    /// When the cursor may be written again; at any time where it was not yet.
    fn cursor_due(&self) -> Option<Instant> {
        self.stored_at.map(|at| at + CURSOR_BEHIND_MAX)
    }

    fn lease_due(&self) -> Instant {
        self.kept_at + self.limits.lease / 6
    }

    fn is_room(&self) -> bool {
        let (records, bytes) = self.window.under_way();
        records < self.limits.under_way.events
            && bytes < self.limits.under_way.bytes
            && self.window.steps() < STEPS_MAX
    }

    /// Whoever has not kept the lease publishes nothing more: another may lead.
    fn may_publish(&self, now: Instant) -> bool {
        !self.stopping
            && !self.is_to_go_back()
            && !self.is_going_back()
            && now < self.kept_at + self.limits.lease
            && self.is_room()
    }

    /// The next segment, if it is final.
    fn publish(&mut self, now: Instant) -> Option<Publication<S>> {
        let Some(segment) = self.numbers.take() else {
            let passed = self.numbers.next() - 1;
            if passed > 0 {
                self.reached(end_of(passed));
            }
            return None;
        };
        let number = segment.number();
        let mut records = Vec::with_capacity(segment.events());
        for (index, ordinal) in (0..segment.events()).zip(1..) {
            let position = number * SEGMENT_POSITIONS + ordinal;
            // The cursor may have been moved into a segment.
            if position <= self.position {
                continue;
            }
            let (topic, partition) = segment.place(index);
            let slot = self.slots.slot(topic, partition);
            let previous = self.handed_over.put(slot, Last { position, offset: None }).position;
            if self.only.as_ref().is_some_and(|only| only.leaves_out(topic, position)) {
                let offset = self.known.offset_of(slot, position);
                self.window.leave_out(slot, Last { position, offset });
                continue;
            }
            let ticket = self.window.hand_over(slot, position, segment.bytes(index), now);
            records.push(Outgoing { index, slot, position, ticket, previous });
        }
        self.reached(end_of(number));
        Some(Publication { segment, records })
    }

    fn reached(&mut self, position: i64) {
        if position > self.position {
            self.position = position;
            self.window.end(position);
            self.only.take_if(|only| only.upto <= position);
        }
    }

    /// When the database is to be asked, and what.
    fn read_due(&mut self, now: Instant) -> Option<(Instant, Question)> {
        // What is at hand is published first.
        let is_idle =
            self.reading.is_none() && !self.stopping && !self.is_to_go_back() && !self.is_going_back();
        if !is_idle || !self.is_room() {
            return None;
        }
        if let Some(due) = self.numbers.due(now) {
            return Some(due);
        }
        let pause = if self.others.is_all_told(now) { PAUSE_IF_TOLD } else { PAUSE };
        let at = self.looked_at.filter(|_| !self.has_more).map_or(now, |at| at + pause);
        Some((at, self.numbers.question()))
    }

    /// Until when nothing is to be done unless something happens.
    fn wait_until(&mut self, now: Instant) -> Instant {
        let cursor_due = self.cursor_due().filter(|at| *at > now);
        // Whatever there may be to wait for, the lease is.
        let mut until = now + self.limits.lease;
        if self.looking.is_none() && !self.stopping {
            until = until.min(self.look_due);
        }
        if self.writing.is_none() {
            until = until.min(self.lease_due());
            let is_stored = self.stored == self.window.position();
            until = cursor_due.filter(|_| !is_stored).map_or(until, |at| until.min(at));
        }
        until = self.read_due(now).map_or(until, |(at, _)| until.min(at));
        if let Some(since) = self.window.stands_since() {
            // Nobody says when something is acknowledged, so it is looked for when that is of use.
            let is_waited_for = self.stopping || self.is_to_go_back() || !self.is_room();
            let waited = now.saturating_duration_since(since) / 2;
            let soon = now + waited.clamp(ACKNOWLEDGED_MIN, ACKNOWLEDGED_MAX);
            until = until.min(cursor_due.filter(|_| !is_waited_for).unwrap_or(soon));
            until = until.min(since + self.limits.stalled_after);
        }
        until.max(now)
    }
}
