//! Single decisions of a leader.

use std::time::{Duration, Instant};

use super::*;

const LIMITS: Limits = Limits {
    lease: Duration::from_secs(3),
    stalled_after: Duration::from_secs(60),
    look_every: Duration::from_secs(30),
    under_way: Room { events: 2, bytes: 1_000 },
    waiting: Room { events: 10, bytes: 1_000 },
};

/// A leader from the log's beginning on, with what it has done.
struct Leader {
    core: Core<i64>,
    now: Instant,
    published: Vec<Outgoing>,
    reads: Vec<Question>,
    writes: Vec<Write>,
    looks: usize,
}

impl Leader {
    fn new() -> Leader {
        let now = Instant::now();
        let published = Progress { position: 0, tails: Tails::default() };
        let begin = Begin { era: 1, partitions: 1, published, published_after: 0, kept_at: now };
        let core = Core::new(begin, LIMITS, now);
        Leader { core, now, published: Vec::new(), reads: Vec::new(), writes: Vec::new(), looks: 0 }
    }

    /// Does what is to be done; answers until when it waits then.
    fn act(&mut self) -> Option<Duration> {
        loop {
            match self.core.next(self.now) {
                Action::Publish(publication) => self.published.extend(publication.records),
                Action::Read(question) => self.reads.push(question),
                Action::Write(write) => self.writes.push(write),
                Action::Look(_) => self.looks += 1,
                Action::Wait(until) => return Some(until - self.now),
                Action::LookBefore { .. } | Action::Stalled | Action::End => return None,
            }
        }
    }

    /// The read that is under way shows nothing.
    fn nothing_read(&mut self) {
        let answer = Answer { segments: Vec::new(), is_all: true, xmin: 1, xid: None };
        self.core.answered(answer, self.now);
    }

    fn acknowledge(&mut self) {
        for (record, offset) in std::mem::take(&mut self.published).into_iter().zip(0..) {
            self.core.acknowledged(record.ticket, Some(record.position + offset), self.now);
        }
    }

    fn pass(&mut self, time: Duration) -> Option<Duration> {
        self.now += time;
        self.act()
    }
}

#[test]
fn what_is_told_is_published_without_a_statement_and_the_cursor_follows_at_most_four_times_a_second() {
    let mut leader = Leader::new();
    leader.act();
    leader.nothing_read();
    let mut cursors = 0;
    for number in 1..=100 {
        leader.core.told(number);
        leader.pass(Duration::from_millis(5));
        assert_eq!(leader.published.len(), 1, "at once");
        leader.acknowledge();
        leader.pass(Duration::from_millis(5));
        let writes = std::mem::take(&mut leader.writes);
        cursors += writes.iter().filter(|write| matches!(write, Write::Cursor(..))).count();
        if !writes.is_empty() {
            leader.core.written(Written::Kept(None));
        }
        if leader.reads.len() > 1 {
            leader.nothing_read();
        }
    }
    assert!((3..=5).contains(&cursors), "{cursors} in a second");
    // The first was before anything was told.
    assert!(leader.reads.len() <= 5, "{:?}", leader.reads);
}

/// How often a leader reads within a second in which nothing is committed.
fn reads_at_rest(leader: &mut Leader) -> usize {
    let before = leader.reads.len();
    for _ in 0..200 {
        leader.pass(Duration::from_millis(5));
        leader.nothing_read();
        leader.core.written(Written::Kept(None));
    }
    leader.reads.len() - before
}

#[test]
fn at_rest_a_leader_reads_four_times_a_second_where_what_is_committed_is_told_and_often_where_it_may_not_be()
{
    let mut leader = Leader::new();
    assert!(reads_at_rest(&mut leader) >= 40, "nobody has ever told it anything");
    leader.core.expect_word();
    assert!(reads_at_rest(&mut leader) <= 5);
    // A read was faster than the word of a commit, whose segment was not kept for it.
    leader.pass(Duration::from_millis(250));
    leader.core.answered(Answer { segments: vec![1], is_all: true, xmin: 1, xid: None }, leader.now);
    leader.core.told_of(1);
    leader.act();
    leader.acknowledge();
    assert!(reads_at_rest(&mut leader) <= 5);
    // Of another commit no word ever comes.
    leader.pass(Duration::from_millis(250));
    leader.core.answered(Answer { segments: vec![2], is_all: true, xmin: 1, xid: None }, leader.now);
    leader.act();
    leader.acknowledge();
    assert!(reads_at_rest(&mut leader) >= 30, "others commit, too");
    leader.pass(Duration::from_secs(2));
    let reads: usize = (0..10).map(|_| reads_at_rest(&mut leader)).sum();
    assert!(reads >= 300, "{reads}: for a while");
    assert!(reads_at_rest(&mut leader) <= 5, "they have stopped");
}

#[test]
fn the_first_cursor_after_a_rest_is_written_as_soon_as_it_is_acknowledged() {
    let mut leader = Leader::new();
    leader.act();
    leader.nothing_read();
    leader.core.told(1);
    let wait = leader.act().unwrap();
    assert!(wait <= Duration::from_millis(2), "{wait:?}: acknowledgements are looked for");
    leader.acknowledge();
    leader.act();
    let Some(Write::Cursor(progress, _)) = leader.writes.last() else { panic!("{:?}", leader.writes) };
    assert_eq!(progress.position, 199_999);
    let last = progress.tails.of("cups", 0);
    assert_eq!((last.position, last.offset), (100_001, Some(100_001)));
}

#[test]
fn no_more_than_a_window_is_under_way() {
    let mut leader = Leader::new();
    (1..=5).for_each(|number| leader.core.told(number));
    leader.act();
    assert_eq!(leader.published.len(), 2);
    leader.acknowledge();
    leader.act();
    assert_eq!(leader.published.len(), 2, "two more");
}

#[test]
fn going_back_waits_for_what_is_under_way_and_then_sends_the_same_again() {
    let mut leader = Leader::new();
    leader.core.told(1);
    leader.act();
    let first = leader.published.clone();
    leader.core.lost(vec![Loss { topic: "cups".to_owned(), partition: 0, kept: 0 }]);
    leader.core.told(2);
    leader.act();
    assert_eq!((leader.published.len(), leader.writes.len()), (1, 0));
    leader.acknowledge();
    leader.act();
    let repeat = Repeat { after: 0, topics: Some(vec!["cups".to_owned()]) };
    assert_eq!(leader.writes, [Write::GoBack(repeat)]);
    leader.core.written(Written::WentBack { tails: Tails::default(), published_after: 0 });
    leader.core.told(1);
    leader.act();
    let of = |records: &[Outgoing]| records.iter().map(|r| (r.position, r.previous)).collect::<Vec<_>>();
    assert_eq!(of(&leader.published), [of(&first), vec![(200_001, 100_001)]].concat());
}

#[test]
fn what_is_asked_for_above_everything_handed_over_is_published_anyway() {
    let mut leader = Leader::new();
    leader.core.told(1);
    leader.act();
    leader.acknowledge();
    leader.act();
    let repeat = Repeat { after: 199_999, topics: None };
    leader.core.written(Written::Kept(Some(repeat.clone())));
    leader.act();
    assert_eq!(leader.writes.last(), Some(&Write::TakeIn(repeat)));
}

#[test]
fn whoever_could_not_keep_the_lease_publishes_nothing_more() {
    let mut leader = Leader::new();
    leader.act();
    leader.pass(Duration::from_secs(1));
    assert_eq!(leader.writes, [Write::Lease]);
    leader.pass(Duration::from_secs(2));
    leader.core.told(1);
    leader.act();
    assert!(leader.published.is_empty());
    leader.core.written(Written::Kept(None));
    // The lease began when the write did.
    leader.act();
    assert_eq!(leader.published.len(), 1);
}

#[test]
fn a_kafka_that_acknowledges_nothing_is_given_up() {
    let mut leader = Leader::new();
    leader.core.told(1);
    leader.act();
    leader.pass(Duration::from_secs(30));
    leader.core.written(Written::Kept(None));
    leader.now += Duration::from_secs(31);
    assert!(matches!(leader.core.next(leader.now), Action::Stalled));
}

#[test]
fn at_the_end_what_is_under_way_is_waited_for_and_the_cursor_written() {
    let mut leader = Leader::new();
    leader.core.told(1);
    leader.act();
    leader.core.stop();
    leader.core.told(2);
    assert!(leader.act().is_some(), "it waits");
    leader.acknowledge();
    leader.act();
    assert!(matches!(leader.writes.last(), Some(Write::Cursor(..))));
    assert!(leader.published.is_empty());
    leader.core.written(Written::Kept(None));
    assert!(matches!(leader.core.next(leader.now), Action::End));
}

#[test]
fn what_a_look_finds_missing_is_asked_for_unless_the_cursor_has_gone_back_meanwhile() {
    let mut leader = Leader::new();
    leader.core.told(1);
    leader.act();
    leader.acknowledge();
    leader.act();
    leader.core.written(Written::Kept(None));
    let loss = || vec![Loss { topic: "cups".to_owned(), partition: 0, kept: 0 }];
    leader.pass(Duration::from_secs(2));
    leader.core.written(Written::Kept(None));
    leader.pass(Duration::from_secs(30));
    assert_eq!(leader.looks, 1);
    leader.core.written(Written::Kept(None));
    assert_eq!(leader.core.looked(loss(), leader.now).len(), 1);
    leader.act();
    assert!(matches!(leader.writes.last(), Some(Write::GoBack(_))), "{:?}", leader.writes);
    leader.core.written(Written::WentBack { tails: Tails::default(), published_after: 0 });
    leader.pass(Duration::from_secs(31));
    assert_eq!(leader.looks, 2);
}
