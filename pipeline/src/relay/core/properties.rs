//! Whatever comes in whatever order: everything committed is handed over in order, without a hole.
//!
//! The world here has a log whose transactions end in any order, a Kafka that acknowledges when it likes and may lose what it has
//! acknowledged, a relay that dies at any moment, and requests to go back. What it checks, it checks at each step; at the end nothing fails
//! any more, and all that was committed must have come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use uuid::Uuid;

use super::super::ends::{End, Met};
use super::super::places::Columns;
use super::*;
use crate::label::Label;

const TOPICS: [&str; 2] = ["cups", "pots"];
const PARTITIONS: i16 = 2;

const LIMITS: Limits = Limits {
    lease: Duration::from_secs(3),
    stalled_after: Duration::from_secs(3_600),
    look_every: Duration::from_millis(500),
    under_way: Room { events: 6, bytes: 1_000 },
    waiting: Room { events: 4, bytes: 1_000 },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Committed,
    RolledBack,
}

/// A number of the log, and to which topic and partition each event of its segment goes.
#[derive(Clone, Debug)]
struct Drawn {
    number: i64,
    places: Vec<(usize, i16)>,
    xid: i64,
    state: State,
}

impl Segment for Drawn {
    fn number(&self) -> i64 {
        self.number
    }

    fn events(&self) -> usize {
        self.places.len()
    }

    fn place(&self, index: usize) -> (&str, i16) {
        (TOPICS[self.places[index].0], self.places[index].1)
    }

    fn bytes(&self, _index: usize) -> usize {
        10
    }
}

type Place = (String, i16);

/// A record: its position and the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    ticket: u64,
    position: i64,
    previous: i64,
}

struct World {
    now: Instant,
    log: Vec<Drawn>,
    xids: i64,
    /// Committed, and not told yet.
    untold: Vec<Drawn>,
    row: Progress,
    request: Option<Repeat>,
    kafka: BTreeMap<Place, Vec<Sent>>,
    core: Core<Drawn>,
    /// Handed over to the client.
    under_way: BTreeMap<Place, Vec<Sent>>,
    /// In Kafka, but nobody has been told: tickets and offsets.
    unacknowledged: BTreeMap<Place, Vec<(u64, i64)>>,
    question: Option<Question>,
    answer: Option<Answer<Drawn>>,
    write: Option<Write>,
    written: Option<Written>,
    /// What a look at Kafka has found missing, and nobody has been told.
    missing: Option<Vec<Loss>>,
    /// Every record that has ever come to Kafka.
    arrived: BTreeSet<(Place, i64)>,
    /// Kafka has lost some of them.
    any_lost: bool,
    /// The highest number that this leader has handed over since it last went back.
    handed_over: i64,
}

/// The first of one of the partitions.
fn first<T>(waiting: &mut BTreeMap<Place, Vec<T>>, which: usize) -> Option<(Place, T)> {
    let count = waiting.values().filter(|waiting| !waiting.is_empty()).count().max(1);
    let (place, waiting) =
        waiting.iter_mut().filter(|(_, waiting)| !waiting.is_empty()).nth(which % count)?;
    Some((place.clone(), waiting.remove(0)))
}

fn begin(row: &Progress, now: Instant) -> Core<Drawn> {
    let begin =
        Begin { era: 1, partitions: PARTITIONS, published: row.clone(), published_after: 0, kept_at: now };
    Core::new(begin, LIMITS, now)
}

impl World {
    fn new() -> World {
        let (now, row) = (Instant::now(), Progress { position: 0, tails: Tails::default() });
        World {
            now,
            log: Vec::new(),
            xids: 10,
            untold: Vec::new(),
            core: begin(&row, now),
            row,
            request: None,
            kafka: BTreeMap::new(),
            under_way: BTreeMap::new(),
            unacknowledged: BTreeMap::new(),
            question: None,
            answer: None,
            write: None,
            written: None,
            missing: None,
            arrived: BTreeSet::new(),
            any_lost: false,
            handed_over: 0,
        }
    }

    fn step(&mut self, what: u8, which: usize) {
        match what {
            0..=3 => self.draw(which),
            4..=7 => self.end(which, State::Committed),
            8 => self.end(which, State::RolledBack),
            9..=11 if !self.untold.is_empty() => {
                let segment = self.untold.remove(which % self.untold.len());
                self.core.told(segment);
            }
            12 if !self.untold.is_empty() => {
                self.untold.remove(which % self.untold.len());
            }
            13..=15 => self.act(),
            16..=17 => self.now += Duration::from_millis(which as u64 % 40),
            18 => self.now += Duration::from_millis(260),
            19..=20 => self.look(),
            21..=22 => self.tell_answer(),
            23 => self.store(),
            24 => self.tell_written(),
            25..=27 => self.arrive(which),
            28..=29 => self.acknowledge(which),
            30 => self.die(which),
            31 => self.ask(which),
            32..=33 => self.tell_missing(),
            34 => self.lose(which),
            _ => {}
        }
    }

    fn draw(&mut self, which: usize) {
        self.xids += 1;
        let number = i64::try_from(self.log.len()).unwrap() + 1;
        let places =
            (0..1 + which % 3).map(|n| ((which + n) % 2, i16::try_from((which / 2 + n) % 2).unwrap()));
        self.log.push(Drawn { number, places: places.collect(), xid: self.xids, state: State::Open });
    }

    fn end(&mut self, which: usize, state: State) {
        let open: Vec<usize> = (0..self.log.len()).filter(|n| self.log[*n].state == State::Open).collect();
        let Some(index) = open.get(which % open.len().max(1)) else { return };
        self.log[*index].state = state;
        if state == State::Committed {
            self.untold.push(self.log[*index].clone());
        }
    }

    /// The database executes the question.
    fn look(&mut self) {
        let Some(question) = self.question.clone().filter(|_| self.answer.is_none()) else { return };
        let open = self.log.iter().filter(|segment| segment.state == State::Open);
        let xmin = open.map(|segment| segment.xid).min().unwrap_or(self.xids + 1);
        let xid = question.fence_at.map(|_| {
            self.xids += 1;
            self.xids
        });
        let is_wanted = |segment: &&Drawn| {
            let number = segment.number;
            segment.state == State::Committed
                && number > question.after
                && number <= question.upto
                && !question.except.contains(&number)
        };
        let mut segments: Vec<Drawn> = self.log.iter().filter(is_wanted).cloned().collect();
        let is_all = segments.len() < 4;
        segments.truncate(4);
        self.answer = Some(Answer { segments, is_all, xmin, xid });
    }

    fn tell_answer(&mut self) {
        if let Some(answer) = self.answer.take() {
            self.question = None;
            self.core.answered(answer, self.now);
        }
    }

    /// The database executes the write.
    fn store(&mut self) {
        let Some(write) = self.write.clone().filter(|_| self.written.is_none()) else { return };
        self.written = Some(match write {
            Write::Lease => Written::Kept(self.request.clone()),
            Write::Cursor(progress, places) => {
                self.check_cursor(&progress);
                self.check_places(&places);
                self.row = progress;
                Written::Kept(self.request.clone())
            }
            Write::GoBack(repeat) => {
                let tails = self.tails_at(repeat.after);
                self.row = Progress { position: repeat.after, tails: tails.clone() };
                self.request.take_if(|request| {
                    let is_in =
                        |topics: &Vec<String>| request.topics.iter().flatten().all(|t| topics.contains(t));
                    let is_of_topics =
                        repeat.topics.as_ref().is_none_or(|t| request.topics.is_some() && is_in(t));
                    request.after >= repeat.after && is_of_topics
                });
                Written::WentBack { tails, published_after: 0 }
            }
            Write::TakeIn(repeat) => {
                self.request.take_if(|request| *request == repeat);
                Written::TookIn
            }
        });
    }

    fn tell_written(&mut self) {
        if let Some(written) = self.written.take() {
            if let Some(Write::GoBack(repeat)) = self.write.take() {
                self.handed_over = number_after(repeat.after) - 1;
            }
            self.core.written(written);
        }
    }

    fn tails_at(&self, position: i64) -> Tails {
        let mut tails = Tails::default();
        for (at, (topic, partition)) in self.committed().filter(|(at, _)| *at <= position) {
            tails.put(&topic, partition, at, PARTITIONS);
        }
        tails
    }

    /// Every event that is committed, by position, and where it goes to.
    fn committed(&self) -> impl Iterator<Item = (i64, Place)> {
        let segments = self.log.iter().filter(|segment| segment.state == State::Committed);
        segments.flat_map(|segment| {
            let places = (1..).zip(&segment.places);
            places.map(move |(ordinal, (topic, partition))| {
                (segment.number * SEGMENT_POSITIONS + ordinal, (TOPICS[*topic].to_owned(), *partition))
            })
        })
    }

    /// Does what the core says until it waits.
    fn act(&mut self) {
        loop {
            match self.core.next(self.now) {
                Action::Publish(publication) => self.publish(publication),
                Action::Read(question) => {
                    assert!(self.question.is_none(), "two reads at a time");
                    self.question = Some(question);
                }
                Action::Write(write) => {
                    assert!(self.write.is_none(), "two writes at a time");
                    self.write = Some(write);
                }
                Action::Wait(until) => {
                    assert!(until >= self.now);
                    return;
                }
                Action::Look(published) => self.missing = Some(published.losses(&self.ends())),
                Action::LookBefore { topic, partition, offset } => {
                    let records = &self.kafka[&(topic.clone(), partition)];
                    let before = records.iter().take(usize::try_from(offset).unwrap());
                    let kept = before.map(|record| record.position).max().unwrap_or(0);
                    self.core.looked_before(Loss { topic, partition, kept });
                }
                Action::End => unreachable!("nobody has asked for it"),
                Action::Stalled => panic!("stalled"),
            }
        }
    }

    fn publish(&mut self, publication: Publication<Drawn>) {
        let Publication { segment, records } = publication;
        let passed = usize::try_from(self.handed_over).unwrap()..usize::try_from(segment.number).unwrap() - 1;
        for skipped in &self.log[passed] {
            assert_eq!(
                skipped.state,
                State::RolledBack,
                "{} was left out before {}",
                skipped.number,
                segment.number
            );
        }
        assert!(segment.number > self.handed_over, "{} came twice or late", segment.number);
        self.handed_over = segment.number;
        for Outgoing { index, position, ticket, previous, .. } in records {
            let (topic, partition) = segment.place(index);
            let place = (topic.to_owned(), partition);
            self.under_way.entry(place).or_default().push(Sent { ticket, position, previous });
        }
    }

    /// Kafka takes the first record of a partition.
    fn arrive(&mut self, which: usize) {
        let Some((place, record)) = first(&mut self.under_way, which) else { return };
        let partition = self.kafka.entry(place.clone()).or_default();
        let offset = i64::try_from(partition.len()).unwrap();
        partition.push(record);
        self.arrived.insert((place.clone(), record.position));
        self.unacknowledged.entry(place).or_default().push((record.ticket, offset));
    }

    /// In the order of a partition; some offsets are not told.
    fn acknowledge(&mut self, which: usize) {
        let Some((_, (ticket, offset))) = first(&mut self.unacknowledged, which) else { return };
        let offset = (!which.is_multiple_of(7)).then_some(offset);
        self.core.acknowledged(ticket, offset, self.now);
    }

    /// The relay dies. Of what was under way, some arrives, and some of what the database was told to write is written.
    fn die(&mut self, which: usize) {
        (0..which % 4).for_each(|n| self.arrive(which + n));
        if which.is_multiple_of(3) {
            self.store();
        }
        self.under_way.clear();
        self.unacknowledged.clear();
        self.untold.clear();
        (self.question, self.answer, self.write, self.written) = (None, None, None, None);
        self.missing = None;
        self.core = begin(&self.row, self.now);
        let ends = self.ends();
        ends.iter().for_each(|end| self.core.ends_at(&end.topic, end.partition, end.high));
        self.core.lost(self.core.published().losses(&ends));
        self.handed_over = number_after(self.row.position) - 1;
    }

    /// What a look at the ends of Kafka's partitions shows.
    fn ends(&self) -> Vec<End> {
        let met = |(offset, record): (i64, &Sent)| Met {
            offset,
            label: Label { era: 1, position: record.position },
            event_id: Uuid::nil(),
        };
        let end = |((topic, partition), records): (&Place, &Vec<Sent>)| End {
            topic: topic.clone(),
            partition: *partition,
            low: 0,
            high: i64::try_from(records.len()).unwrap(),
            met: (0..).zip(records).map(met).collect(),
        };
        self.kafka.iter().map(end).collect()
    }

    fn tell_missing(&mut self) {
        if let Some(missing) = self.missing.take() {
            self.core.looked(missing, self.now);
        }
    }

    /// Kafka loses the end of a partition.
    fn lose(&mut self, which: usize) {
        let Some(records) = self.kafka.values_mut().nth(which % 4) else { return };
        records.truncate(records.len().saturating_sub(1 + which % 5));
        self.any_lost = true;
    }

    fn ask(&mut self, which: usize) {
        let after = i64::try_from(which % (self.log.len() + 2)).unwrap() * SEGMENT_POSITIONS + 1;
        let topics = (!which.is_multiple_of(3)).then(|| vec![TOPICS[which % 2].to_owned()]);
        self.request = Some(Repeat { after, topics });
    }

    /// What the cursor stands for is in Kafka, and the last records are where it says.
    fn check_cursor(&self, progress: &Progress) {
        for (position, place) in self.committed().filter(|(at, _)| *at <= progress.position) {
            let is_there = self.arrived.contains(&(place, position));
            assert!(is_there, "the cursor is at {}, and {position} is not in Kafka", progress.position);
        }
        let expected = self.tails_at(progress.position);
        for (topic, lasts) in &progress.tails.0 {
            for (partition, last) in (0..).zip(lasts) {
                assert_eq!(last.position, expected.of(topic, partition).position);
                if let Some(offset) = last.offset.filter(|_| !self.any_lost) {
                    let record = self.kafka[&(topic.clone(), partition)][usize::try_from(offset).unwrap()];
                    assert_eq!(record.position, last.position);
                }
            }
        }
    }

    /// Each segment comes once, as a row can be written once by a statement, and its events lie where it says.
    fn check_places(&self, places: &Places) {
        let Columns { numbers, firsts, lasts, offsets } = places.columns();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        let committed: BTreeMap<i64, Place> = self.committed().collect();
        for (number, (first, last)) in numbers.iter().zip(firsts.into_iter().zip(lasts)) {
            let of_segment = first as usize - 1..last as usize;
            for (ordinal, offset) in (1..).zip(&offsets[of_segment]).filter(|(_, offset)| **offset >= 0) {
                let position = number * SEGMENT_POSITIONS + ordinal;
                let record = self.kafka[&committed[&position]].get(usize::try_from(*offset).unwrap());
                assert!(self.any_lost || record.is_some_and(|record| record.position == position));
            }
        }
    }

    /// Nothing fails any more.
    fn come_to_an_end(&mut self) {
        while self.log.iter().any(|segment| segment.state == State::Open) {
            self.end(0, State::Committed);
        }
        let end = self.committed().last().map_or(0, |(position, _)| position);
        for round in 0..6_000 {
            let missed = self.missed();
            if self.row.position >= end && self.request.is_none() && missed.is_empty() {
                return;
            }
            if round % 50 == 49 {
                missed.iter().for_each(|(place, last)| self.ask_for_missing(place, *last));
            }
            self.act();
            self.look();
            self.tell_answer();
            self.store();
            self.tell_written();
            self.tell_missing();
            (0..4).for_each(|n| self.arrive(n));
            (1..5).for_each(|n| self.acknowledge(n));
            self.now += Duration::from_millis(30);
        }
        let (row, missed) = (&self.row, self.missed());
        panic!("the cursor stays at {} of {end}; missed: {missed:?}; {:?}", row.position, self.request);
    }

    /// What a consumer has applied that reads a partition from its beginning, and whether it has met records before which some are missing.
    fn applied(&self, place: &Place) -> (Vec<i64>, bool) {
        let (mut applied, mut any_gap): (Vec<i64>, bool) = (Vec::new(), false);
        for record in self.kafka.get(place).into_iter().flatten() {
            let last = applied.last().copied().unwrap_or(0);
            if record.position > last {
                if record.previous == last { applied.push(record.position) } else { any_gap = true }
            }
        }
        (applied, any_gap)
    }

    /// The partitions of which consumers have not got everything, and how far they are.
    fn missed(&self) -> Vec<(Place, i64)> {
        let ends: BTreeMap<Place, i64> =
            self.committed().map(|(position, place)| (place, position)).collect();
        let last = |place: &Place| self.applied(place).0.last().copied().unwrap_or(0);
        let all = ends.into_iter().map(|(place, end)| (last(&place), place, end));
        all.filter(|(last, _, end)| last < end).map(|(last, place, _)| (place, last)).collect()
    }

    /// A consumer asks for what it misses, as the row of the cursor takes it.
    fn ask_for_missing(&mut self, (topic, partition): &Place, last: i64) {
        if self.row.position <= last || self.row.tails.of(topic, *partition).position > last {
            let after = self.request.as_ref().map_or(last, |request| request.after.min(last));
            self.request = Some(Repeat { after, topics: None });
        }
    }

    /// A consumer that reads everything applies each event once, in order.
    fn check_consumers(&self) {
        let mut expected: BTreeMap<Place, Vec<i64>> = BTreeMap::new();
        self.committed().for_each(|(position, place)| expected.entry(place).or_default().push(position));
        for (place, positions) in expected {
            let (applied, any_gap) = self.applied(&place);
            assert_eq!(applied, positions, "{place:?}");
            assert!(self.any_lost || !any_gap, "{place:?} has a gap");
        }
    }
}

fn check(steps: Vec<(u8, usize)>) {
    let mut world = World::new();
    for (what, which) in steps {
        world.step(what, which);
    }
    world.come_to_an_end();
    world.check_consumers();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_committed_is_published_in_order_without_a_hole(
        steps in prop::collection::vec((0_u8..34, 0_usize..1_000), 0..400)
    ) {
        check(steps);
    }

    #[test]
    fn what_kafka_loses_is_published_again(
        steps in prop::collection::vec((0_u8..35, 0_usize..1_000), 0..400)
    ) {
        check(steps);
    }
}
