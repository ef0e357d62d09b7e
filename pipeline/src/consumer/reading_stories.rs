//! The reading of a partition in any story of a log, its relay, Kafka, and members that come and go.

use std::collections::{BTreeSet, VecDeque};

use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{foreign, id, own, slot};
use super::*;

/// What happens next in a story.
#[derive(Clone, Debug)]
enum Step {
    /// The relay publishes so many more; that many of the last ones Kafka loses at once.
    Publish {
        count: usize,
        lost: usize,
    },
    /// The relay of the member's process hands so many more to Kafka's client and to the member.
    LoopBack {
        count: usize,
    },
    /// Kafka acknowledges so many of them.
    Acknowledge {
        count: usize,
    },
    /// A batch fails, and what is not stored is read again.
    Fail,
    /// The relay publishes again what it has published last.
    Repeat {
        count: usize,
    },
    /// Somebody else writes.
    Foreign {
        count: usize,
    },
    /// A transaction leaves a control record.
    Control,
    /// The member reads so many records.
    Read {
        count: usize,
    },
    /// A batch of what was read is committed, or only its beginning.
    Commit {
        part: usize,
    },
    /// What was passed over is stored.
    Store,
    /// The member gives the partition up in order; or it dies. Another takes it over.
    Rebalance,
    Die,
    /// Kafka throws away its oldest records.
    Expire {
        count: usize,
    },
    /// Kafka loses everything; then the relay publishes all of it again.
    Wipe,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_usize, 0..2_usize).prop_map(|(count, lost)| Step::Publish { count, lost }),
        5 => (1..6_usize).prop_map(|count| Step::LoopBack { count }),
        4 => (1..9_usize).prop_map(|count| Step::Acknowledge { count }),
        1 => Just(Step::Fail),
        1 => (1..8_usize).prop_map(|count| Step::Repeat { count }),
        2 => (1..4_usize).prop_map(|count| Step::Foreign { count }),
        1 => Just(Step::Control),
        6 => (1..9_usize).prop_map(|count| Step::Read { count }),
        4 => (0..9_usize).prop_map(|part| Step::Commit { part }),
        2 => Just(Step::Store),
        1 => Just(Step::Rebalance),
        1 => Just(Step::Die),
        1 => (1..9_usize).prop_map(|count| Step::Expire { count }),
        1 => Just(Step::Wipe),
    ]
}

/// Every third event is of no interest.
fn is_of_interest(position: i64) -> bool {
    position % 3 != 0
}

/// A log of one partition, whose positions have leaps, its relay, Kafka, a group's row, and the member that reads.
struct World {
    /// How many events were published.
    published: i64,
    /// What Kafka holds from `low` on; none for a control record.
    records: Vec<Option<Met>>,
    low: i64,
    /// The ordinals of events that Kafka's client has and Kafka has not,
    under_way: VecDeque<i64>,
    /// and where others lie, as the member is still to hear.
    places: VecDeque<Lies>,
    row: Mark,
    reading: Reading,
    /// The offset at which the client reads on.
    at: i64,
    /// What was read and is to be applied.
    items: Vec<(Met, Mark)>,
    applied: Vec<i64>,
    /// The offsets of foreign records that were put aside, since Kafka was wiped last.
    letters: BTreeSet<i64>,
    room: bool,
}

/// The position of the n-th event; 0 for none.
fn position(n: i64) -> i64 {
    n * 7
}

impl World {
    fn new() -> World {
        let row = Mark { label: Label::START, event_id: None, tip: None, next_offset: 0 };
        let mut world = World {
            published: 0,
            records: Vec::new(),
            low: 0,
            under_way: VecDeque::new(),
            places: VecDeque::new(),
            row,
            reading: Reading::new(1, row),
            at: 0,
            items: Vec::new(),
            applied: Vec::new(),
            letters: BTreeSet::new(),
            room: true,
        };
        world.take_over();
        world
    }

    fn high(&self) -> i64 {
        self.low + i64::try_from(self.records.len()).unwrap()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish { count, lost } => {
                self.acknowledge(usize::MAX);
                let count = i64::try_from(count).unwrap();
                let kept = count - i64::try_from(lost).unwrap().min(count);
                self.publish(self.published + 1, self.published + kept);
                self.published += count;
            }
            Step::LoopBack { count } => (0..count).for_each(|_| self.loop_back()),
            Step::Acknowledge { count } => self.acknowledge(count),
            Step::Fail => {
                self.items.clear();
                if self.reading.reread() {
                    self.at = self.reading.view().next_offset;
                }
            }
            Step::Repeat { count } => {
                self.acknowledge(usize::MAX);
                let first = self.published + 1 - i64::try_from(count).unwrap();
                self.publish(first.max(1), self.published);
            }
            Step::Foreign { count } => (0..count).for_each(|_| {
                let offset = self.high();
                self.records.push(Some(foreign(offset)));
            }),
            Step::Control => self.records.push(None),
            Step::Read { count } => self.read(count),
            Step::Commit { part } => self.commit(part),
            Step::Store => self.store(),
            Step::Rebalance => {
                self.store();
                self.take_over();
            }
            Step::Die => self.take_over(),
            Step::Expire { count } => {
                let count = count.min(self.records.len());
                self.records.drain(..count);
                self.low += i64::try_from(count).unwrap();
            }
            Step::Wipe => {
                (self.records, self.low, self.letters) = (Vec::new(), 0, BTreeSet::new());
                self.under_way.clear();
                self.publish(1, self.published);
                self.take_over();
            }
        }
    }

    /// Publishes the events of these ordinals.
    fn publish(&mut self, from: i64, to: i64) {
        for n in from..=to {
            let met = own(self.high(), position(n), position(n - 1));
            self.records.push(Some(met));
        }
    }

    /// Hands the next event over.
    fn loop_back(&mut self) {
        self.published += 1;
        let n = self.published;
        self.under_way.push_back(n);
        let met = own(i64::MAX, position(n), position(n - 1));
        let interest = || is_of_interest(position(n));
        match self.reading.meet_looped_back(&met.own.unwrap(), interest, Instant::now()) {
            Fate::Apply(mark) => self.items.push((met, mark)),
            // It is fetched.
            Fate::Leave => {}
            fate => assert_eq!(fate, Fate::PassOver),
        }
    }

    /// Kafka takes the first so many of what is under way, and the member hears of it.
    fn acknowledge(&mut self, count: usize) {
        for n in self.under_way.drain(..count.min(self.under_way.len())).collect::<Vec<_>>() {
            let offset = self.high();
            self.publish(n, n);
            self.places.push_back(Lies { label: super::tests::label(position(n)), offset });
        }
        while let Some(lies) = self.places.front() {
            if matches!(self.reading.lies(*lies, Instant::now()), Placed::NotRead | Placed::Beyond) {
                break;
            }
            self.places.pop_front();
        }
    }

    fn take_over(&mut self) {
        self.items.clear();
        self.places.clear();
        self.reading = Reading::new(self.reading.epoch + 1, Mark { event_id: None, ..self.row });
        let start = self.reading.start(self.low, self.high());
        self.at = start.offset;
        if let Some(label) = start.ask_for {
            self.ask_for(label);
        }
    }

    fn ask_for(&mut self, label: Label) {
        self.acknowledge(usize::MAX);
        self.publish(label.position / 7 + 1, self.published);
    }

    fn read(&mut self, count: usize) {
        for _ in 0..count {
            // A client whose place is gone joins anew.
            if self.at < self.low {
                self.take_over();
            }
            let Ok(index) = usize::try_from(self.at - self.low) else { return };
            let Some(record) = self.records.get(index).copied() else { return };
            self.at += 1;
            let Some(met) = record else { continue };
            let before = self.reading.read.label;
            let met_position = met.own.map(|own| own.label.position);
            self.room = !self.room;
            let room = self.room;
            let interest = || is_of_interest(met_position.unwrap());
            match self.reading.meet(&met, interest, || room, Instant::now()) {
                Fate::Apply(mark) | Fate::PutAside(mark) => self.items.push((met, mark)),
                Fate::AskFor(label) => self.ask_for(label),
                Fate::BeginAt(offset) => self.at = offset,
                Fate::PassOver | Fate::Skip | Fate::Count | Fate::Leave => {}
            }
            if met.own.is_none() {
                assert_eq!(self.reading.read.label, before, "a foreign record has changed a label");
            }
        }
    }

    /// Commits the first so many records of the batch with their progress, or all with what was passed over behind.
    fn commit(&mut self, part: usize) {
        let whole = part >= self.items.len();
        let items: Vec<_> = self.items.drain(..part.min(self.items.len())).collect();
        let upto = if whole { Some(self.reading.read) } else { items.last().map(|(_, mark)| *mark) };
        for (met, _) in &items {
            match met.own {
                Some(own) => self.applied.push(own.label.position),
                None => assert!(self.letters.insert(met.offset), "{met:?} is put aside twice"),
            }
        }
        if let Some(upto) = upto {
            self.put(upto);
        }
    }

    fn store(&mut self) {
        if let Some(progress) = self.reading.storable(slot()) {
            self.put(progress.upto);
        }
    }

    /// Writes the row as the database does.
    fn put(&mut self, upto: Mark) {
        if let Some(progress) = self.reading.upto(slot(), upto) {
            assert_eq!(
                progress.before,
                (self.row.label, self.row.next_offset),
                "the owner is taken for another one"
            );
            let is_new = progress.upto.label != self.row.label;
            assert_eq!(
                progress.event_id(),
                is_new.then(|| id(upto.label.position)),
                "the log is asked for another"
            );
        }
        assert!(upto.label >= self.row.label, "the stored label goes back");
        self.row = upto;
        self.reading.stored(upto);
        self.assert_stored_is_done();
    }

    /// Nothing up to the stored label is still to be applied.
    fn assert_stored_is_done(&self) {
        let due = (1..=self.row.label.position / 7).map(position).filter(|p| is_of_interest(*p));
        assert_eq!(self.applied, due.collect::<Vec<_>>());
    }

    /// Lets everything come to rest, and answers whether it did.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.acknowledge(usize::MAX);
            self.read(usize::MAX / 2);
            self.commit(usize::MAX);
            if self.row.label.position == position(self.published) {
                return;
            }
            // As the watchdog does where nothing comes.
            self.ask_for(self.reading.view().label);
        }
        panic!("it does not come to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_record_is_applied_once_in_order_and_the_stored_label_stays_behind(
        steps in vec(step(), 1..60),
    ) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        world.settle();
        world.assert_stored_is_done();
        if let Some(last) = world.records.iter().rposition(Option::is_some) {
            prop_assert_eq!(world.reading.stored_offset(), world.low + i64::try_from(last).unwrap() + 1);
        }
    }
}
