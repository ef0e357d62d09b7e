//! Which segments are final: the log's numbers, followed one by one.
//!
//! Numbers come from a sequence that gives each to one transaction, in rising order. So if everything up to K has been taken and
//! K + 1 is known to be committed, K + 1 is final at once: nothing can appear at or below it any more. Only where a
//! number is missing below one that is known, its transaction is open or was rolled back. Then:
//!
//! 1. take the highest number M that is known: it was drawn, so every number up to it was;
//! 2. then draw a transaction id X. Every writer has an id before it draws a number (the column order of `log_segment`
//!    sees to that), so whoever drew one of those numbers has an id below X. (The snapshot's xmax would not do: it is one above the
//!    highest id that has *ended*, and ids above it may be at work.);
//! 3. as soon as a snapshot's xmin is at least X, all of them have ended, and what that snapshot does not show of the numbers up to M
//!    is a hole for good.
//!
//! Taking the log by number keeps every key's order, since a key's numbers are drawn under its lock. Taking it by
//! transaction id would not (docs/adr/0002, 0016).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a number may be missing before it is looked for in the database: it may be on its way here.
pub(super) const MISSING_MAX: Duration = Duration::from_millis(5);
/// How often at most, and at least, it is looked whether the transactions have ended that a hole waits for.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(2);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(20);

/// How many numbers a question leaves out.
const EXCEPT_MAX: usize = 1_000;

/// A segment of the log, as far as decisions need to know it.
pub(crate) trait Segment {
    /// Its number.
    fn number(&self) -> i64;
    /// How many events it has.
    fn events(&self) -> usize;
    /// The topic and the partition of the event at that index.
    fn place(&self, index: usize) -> (&str, i16);
    /// About how many bytes that event takes.
    fn bytes(&self, index: usize) -> usize;
}

/// How many segments that are told may wait, as they were told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// What is to be read: segments above a number, up to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) after: i64,
    pub(crate) upto: i64,
    /// These are known.
    pub(crate) except: Vec<i64>,
    /// A transaction id is to be drawn. Every number up to here had been drawn before.
    pub(crate) fence_at: Option<i64>,
}

/// What one snapshot has shown.
pub(crate) struct Answer<S> {
    /// By number.
    pub(crate) segments: Vec<S>,
    /// Whether these are all that were asked for and visible; otherwise all up to the last one.
    pub(crate) is_all: bool,
    /// Every transaction of a lower id had ended.
    pub(crate) xmin: i64,
    /// The id that was drawn.
    pub(crate) xid: Option<i64>,
}

/// Every number up to `upto` has ended once every transaction below `xid` has.
#[derive(Clone, Copy, Debug)]
struct Fence {
    upto: i64,
    xid: i64,
    set_at: Instant,
}

/// A number that is missing below one that is known.
#[derive(Clone, Copy, Debug)]
struct Missing {
    number: i64,
    since: Instant,
    /// When the database did not show it, for the last time.
    looked_at: Option<Instant>,
}

/// The segments that are known to be committed and not taken yet.
pub(super) struct Numbers<S> {
    room: Room,
    /// The lowest number that is not taken.
    next: i64,
    waiting: BTreeMap<i64, S>,
    events: usize,
    bytes: usize,
    /// The highest number that is known to have been drawn.
    highest: i64,
    /// Every transaction that drew a number up to here has ended.
    ended_upto: i64,
    /// Of the numbers up to here, those that do not wait are holes.
    holes_upto: i64,
    fence: Option<Fence>,
    missing: Option<Missing>,
}

impl<S: Segment> Numbers<S> {
    /// Begins at `next`; everything below has ended.
    pub(super) fn new(next: i64, room: Room) -> Numbers<S> {
        Numbers {
            room,
            next,
            waiting: BTreeMap::new(),
            events: 0,
            bytes: 0,
            highest: next - 1,
            ended_upto: next - 1,
            holes_upto: next - 1,
            fence: None,
            missing: None,
        }
    }

    /// Goes back to `next`. What has ended stays so.
    pub(super) fn begin_again_at(&mut self, next: i64) {
        self.next = next;
        self.holes_upto = next - 1;
        self.missing = None;
    }

    /// The highest number that is known.
    pub(super) fn highest(&self) -> i64 {
        self.highest
    }

    /// Whether that number is of no use any more, or here.
    fn is_known(&self, number: i64) -> bool {
        number < self.next || number <= self.holes_upto || self.waiting.contains_key(&number)
    }

    /// A segment was committed. It is dropped where there is no room: it will be read.
    pub(super) fn told(&mut self, segment: S) {
        let number = segment.number();
        self.drawn(number);
        if !self.is_known(number) && (number == self.next || !self.is_full()) {
            self.keep(segment);
        }
    }

    fn is_full(&self) -> bool {
        self.events >= self.room.events || self.bytes >= self.room.bytes
    }

    /// That number was drawn.
    pub(super) fn drawn(&mut self, number: i64) {
        self.highest = self.highest.max(number);
    }

    fn keep(&mut self, segment: S) {
        self.events += segment.events();
        self.bytes += bytes_of(&segment);
        self.waiting.insert(segment.number(), segment);
    }

    /// The next segment, if it is final.
    pub(super) fn take(&mut self) -> Option<S> {
        self.pass_over_holes();
        let segment = self.waiting.remove(&self.next)?;
        self.events = self.events.saturating_sub(segment.events());
        self.bytes = self.bytes.saturating_sub(bytes_of(&segment));
        self.next += 1;
        Some(segment)
    }

    fn pass_over_holes(&mut self) {
        if self.next <= self.holes_upto {
            let first = self.waiting.keys().next().copied().unwrap_or(i64::MAX);
            self.next = self.next.max(first.min(self.holes_upto + 1));
        }
    }

    /// Everything below is taken or a hole.
    pub(super) fn next(&mut self) -> i64 {
        self.pass_over_holes();
        self.next
    }

    /// The number that is missing below one that is known, if there is one.
    fn missing(&mut self, now: Instant) -> Option<&mut Missing> {
        let number = self.next();
        if self.waiting.contains_key(&number) || number > self.highest {
            self.missing = None;
        } else if self.missing.is_none_or(|missing| missing.number != number) {
            self.missing = Some(Missing { number, since: now, looked_at: None });
        }
        self.missing.as_mut()
    }

    /// When the database is to be asked for what is missing, and what; none where nothing is.
    pub(super) fn due(&mut self, now: Instant) -> Option<(Instant, Question)> {
        let missing = *self.missing(now)?;
        let question = self.question_about_known();
        if missing.number <= self.ended_upto {
            return Some((now, question));
        }
        self.fence.take_if(|fence| fence.upto < missing.number);
        Some(match (self.fence, missing.looked_at) {
            (Some(fence), Some(looked_at)) => {
                let waited = now.saturating_duration_since(fence.set_at) / 4;
                (looked_at + waited.clamp(LOOK_AGAIN_MIN, LOOK_AGAIN_MAX), question)
            }
            (Some(_), None) => (missing.since + MISSING_MAX, question),
            (None, _) => (missing.since + MISSING_MAX, Question { fence_at: Some(self.highest), ..question }),
        })
    }

    /// What lies above all that is known.
    pub(super) fn question(&self) -> Question {
        Question { upto: i64::MAX, ..self.question_about_known() }
    }

    /// What is missing of the numbers that are known to have been drawn.
    fn question_about_known(&self) -> Question {
        let except: Vec<i64> = self.waiting.keys().take(EXCEPT_MAX).copied().collect();
        let next = self.waiting.keys().nth(EXCEPT_MAX);
        let upto = next.map_or(self.highest, |next| next - 1);
        // Where there is no room for more, only what is missing before that.
        let first = self.waiting.keys().next().filter(|_| self.is_full());
        let upto = first.map_or(upto, |first| upto.min(first - 1));
        Question { after: self.next - 1, upto, except, fence_at: None }
    }

    /// Takes in what the database has shown. Answers which numbers nobody had told.
    pub(super) fn answered(&mut self, question: &Question, answer: Answer<S>, now: Instant) -> Vec<i64> {
        let shown_upto =
            if answer.is_all { question.upto } else { answer.segments.last().map_or(0, Segment::number) };
        let mut untold = Vec::new();
        for segment in answer.segments {
            let number = segment.number();
            self.drawn(number);
            if !self.is_known(number) {
                untold.push(number);
                self.keep(segment);
            }
        }
        if let (Some(upto), Some(xid)) = (question.fence_at, answer.xid) {
            self.fence = Some(Fence { upto, xid, set_at: now });
        }
        if let Some(fence) = self.fence.take_if(|fence| fence.xid <= answer.xmin) {
            self.ended_upto = self.ended_upto.max(fence.upto);
        }
        // What was asked for is what is still wanted, unless there was a step back meanwhile: to before it, or to before what was known
        // then and so left out.
        let is_of_use = |number: &i64| *number < self.next || self.waiting.contains_key(number);
        if question.after < self.next && question.except.iter().all(is_of_use) {
            self.holes_upto = self.holes_upto.max(shown_upto.min(self.ended_upto));
            let missing = self.missing(now).filter(|missing| missing.number <= shown_upto);
            if let Some(missing) = missing {
                missing.looked_at = Some(now);
            }
        }
        untold
    }

    /// For how long transactions that are open have held up what was committed: a number that is missing before it may be theirs.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        let has_come =
            |missing: &Missing| missing.number < self.next || self.waiting.contains_key(&missing.number);
        let missing = self.missing.filter(|missing| !has_come(missing));
        let since = missing.zip(self.fence).map(|(missing, fence)| missing.since.max(fence.set_at));
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

fn bytes_of(segment: &impl Segment) -> usize {
    (0..segment.events()).map(|index| segment.bytes(index)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Segment for i64 {
        fn number(&self) -> i64 {
            *self
        }

        fn events(&self) -> usize {
            1
        }

        fn place(&self, _index: usize) -> (&str, i16) {
            ("cups", 0)
        }

        fn bytes(&self, _index: usize) -> usize {
            10
        }
    }

    const ROOM: Room = Room { events: 3, bytes: 1_000 };

    fn taken(numbers: &mut Numbers<i64>) -> Vec<i64> {
        std::iter::from_fn(|| numbers.take()).collect()
    }

    fn answer(segments: &[i64], xmin: i64, xid: Option<i64>) -> Answer<i64> {
        Answer { segments: segments.to_vec(), is_all: true, xmin, xid }
    }

    #[test]
    fn what_follows_on_what_is_taken_is_final_at_once_in_whatever_order_it_is_told() {
        let mut numbers = Numbers::new(1, ROOM);
        [2, 3, 1].into_iter().for_each(|number| numbers.told(number));
        assert_eq!(taken(&mut numbers), [1, 2, 3]);
        numbers.told(2);
        assert!(taken(&mut numbers).is_empty());
        assert_eq!(numbers.due(Instant::now()), None);
    }

    fn question(after: i64, upto: i64, except: &[i64], fence_at: Option<i64>) -> Question {
        Question { after, upto, except: except.to_vec(), fence_at }
    }

    #[test]
    fn a_missing_number_is_waited_for_then_read_and_fenced() {
        let (mut numbers, begin) = (Numbers::new(1, ROOM), Instant::now());
        numbers.told(3);
        let fenced = question(0, 3, &[3], Some(3));
        assert_eq!(numbers.due(begin), Some((begin + MISSING_MAX, fenced.clone())));
        // One has been read, the other is not there, and transactions below the drawn id are open.
        let later = begin + MISSING_MAX;
        assert_eq!(numbers.answered(&fenced, answer(&[1], 50, Some(60)), later), [1]);
        assert_eq!(taken(&mut numbers), [1]);
        let again = question(1, 3, &[3], None);
        assert_eq!(numbers.due(later), Some((later + MISSING_MAX, again.clone())));
        numbers.answered(&again, answer(&[], 59, None), later);
        assert!(taken(&mut numbers).is_empty());
        numbers.answered(&again, answer(&[], 60, None), later);
        assert_eq!(taken(&mut numbers), [3]);
    }

    #[test]
    fn open_transactions_hold_nothing_up_once_the_number_that_was_missing_has_come() {
        let (mut numbers, begin) = (Numbers::new(1, ROOM), Instant::now());
        let (second, later) = (Duration::from_secs(1), begin + Duration::from_secs(20));
        numbers.told(3);
        let (_, question) = numbers.due(begin).unwrap();
        numbers.answered(&question, answer(&[], 50, Some(60)), begin);
        assert_eq!(numbers.waited(later), later - begin);
        numbers.told(1);
        assert_eq!(numbers.waited(later), Duration::ZERO);
        assert_eq!(taken(&mut numbers), [1]);
        assert_eq!(numbers.waited(later), Duration::ZERO);
        assert!(numbers.due(later).is_some());
        assert_eq!(numbers.waited(later + second), second, "the next one is missing since then");
        numbers.told(2);
        assert_eq!(taken(&mut numbers), [2, 3]);
        assert_eq!(numbers.due(later + second), None);
        assert_eq!(numbers.waited(later + second), Duration::ZERO);
    }

    #[test]
    fn one_statement_is_enough_for_many_holes_where_no_transaction_is_open() {
        let (mut numbers, now) = (Numbers::new(1, Room { events: 100, ..ROOM }), Instant::now());
        [2, 4, 7].into_iter().for_each(|number| numbers.told(number));
        let (_, question) = numbers.due(now).unwrap();
        numbers.answered(&question, answer(&[], 50, Some(50)), now);
        assert_eq!(taken(&mut numbers), [2, 4, 7]);
    }

    #[test]
    fn a_fence_says_nothing_of_numbers_that_were_drawn_after_it() {
        let (mut numbers, now) = (Numbers::new(1, ROOM), Instant::now());
        numbers.told(2);
        let question = question(0, i64::MAX, &[], Some(2));
        // While the question was on its way, 4 was committed, and whoever has 3 is at work.
        numbers.answered(&question, answer(&[2, 4], 50, Some(50)), now);
        assert_eq!(taken(&mut numbers), [2]);
        assert_eq!(numbers.next(), 3);
    }

    #[test]
    fn what_has_no_room_is_dropped_and_read_but_never_the_next_one() {
        let (mut numbers, now) = (Numbers::new(1, ROOM), Instant::now());
        (2..=9).rev().for_each(|number| numbers.told(number));
        numbers.told(1);
        assert_eq!(taken(&mut numbers), [1]);
        let (_, question) = numbers.due(now).unwrap();
        assert_eq!((question.after, question.upto, question.except.as_slice()), (1, 6, [7, 8, 9].as_slice()));
        numbers.answered(&question, answer(&[2, 3, 4, 5, 6], 50, None), now);
        assert_eq!(taken(&mut numbers), [2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn an_answer_that_is_cut_short_says_nothing_of_what_lies_behind_it() {
        let (mut numbers, now) = (Numbers::new(1, ROOM), Instant::now());
        numbers.drawn(9);
        let question = question(0, i64::MAX, &[], Some(9));
        let short = Answer { segments: vec![1, 3], is_all: false, xmin: 50, xid: Some(50) };
        numbers.answered(&question, short, now);
        assert_eq!(taken(&mut numbers), [1, 3]);
        assert_eq!(numbers.next(), 4);
        // The transactions are known to have ended, so any later snapshot tells.
        let question = numbers.question();
        numbers.answered(&question, answer(&[7, 9], 1, None), now);
        assert_eq!(taken(&mut numbers), [7, 9]);
    }

    #[test]
    fn an_answer_that_comes_after_a_step_back_makes_no_hole_of_what_it_left_out() {
        let (mut numbers, now) = (Numbers::new(11, ROOM), Instant::now());
        [12, 13].into_iter().for_each(|number| numbers.told(number));
        let (_, late) = numbers.due(now).unwrap();
        assert_eq!(late, question(10, 13, &[12, 13], Some(13)));
        numbers.told(11);
        assert_eq!(taken(&mut numbers), [11, 12, 13]);
        numbers.begin_again_at(11);
        numbers.answered(&late, answer(&[11], 60, Some(60)), now);
        assert_eq!(taken(&mut numbers), [11]);
        let (_, anew) = numbers.due(now).unwrap();
        numbers.answered(&anew, answer(&[12, 13], 60, Some(60)), now);
        assert_eq!(taken(&mut numbers), [12, 13]);
    }

    #[test]
    fn after_a_step_back_holes_are_looked_for_anew() {
        let (mut numbers, now) = (Numbers::new(5, ROOM), Instant::now());
        numbers.told(5);
        assert_eq!(taken(&mut numbers), [5]);
        let late = numbers.question();
        numbers.begin_again_at(2);
        numbers.answered(&late, answer(&[], 50, None), now);
        assert_eq!(numbers.next(), 2);
        let question = numbers.question();
        numbers.answered(&question, answer(&[2, 4, 5], 50, None), now);
        assert_eq!(taken(&mut numbers), [2, 4, 5], "3 had ended when it began");
    }
}
