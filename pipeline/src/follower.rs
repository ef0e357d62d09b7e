//! Follows a topic from its end on, without a group: every process sees every record, and no offsets are kept. For what
//! a process keeps in memory and could read from the database at any time.
//!
//! Whoever follows is told the events, and up to when it has been told all of them. That is known from the log, not from
//! Kafka's silence: at some moment the log ended at M. Once the relay's cursor is at M or above, everything up to M has
//! been published, and the cursor's row says what was published last to each partition. When the follower has met that
//! in each, it has been told everything that was committed before that moment. While the relay, Kafka or the follower is
//! behind or away, this is not reached, and nobody has to notice which of them it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ordermill_wire::{Event, Topic as _};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::authenticity::Keys;
use crate::kafka::{self, KafkaConfig};
use crate::label::Label;
use crate::raw_record::{RawRecord, Stamp};
use crate::relay::Cursor;
use crate::retry::Retry;

/// How often the log and the relay's cursor are looked at, while somebody asks for what the follower knows.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The same while nobody does.
const LOOK_SELDOM: Duration = Duration::from_secs(5);
/// How long the broker holds a request for records while there are none. It is always the same partitions that are read, from where
/// they ended, so nothing else waits for the answer.
const FETCH_WAIT_MAX_MS: &str = "5000";
/// How many looks are remembered whose log has not been published yet.
const LOOKS_MAX: usize = 64;
/// How long records that are in Kafka may take to come before the follower begins anew.
const MISSING_MAX: Duration = Duration::from_secs(5);
/// How long a poll waits; so long does the thread outlive its follower at most.
const POLL: Duration = Duration::from_millis(100);
/// How long the broker has to say where a partition ends.
const ENDS_TIMEOUT: Duration = Duration::from_secs(2);
/// How many records wait between the thread and the follower.
const QUEUE_MAX: usize = 1_000;

/// What follows a topic.
pub trait Follower: Send + Sync + 'static {
    /// What it learns of.
    type Event: Event;
    /// The topic.
    const TOPIC: <Self::Event as Event>::Topic;

    /// What was learned before may be out of date: events may have been missed that happened before now.
    fn restarted(&self);

    /// An event happened, the `sequence`-th of its aggregate, at that time.
    fn learned(&self, event: &Self::Event, sequence: i32, at: Timestamp);

    /// Everything that was committed before that moment, since the last [`Follower::restarted`], has been told.
    fn complete_until(&self, moment: Instant);

    /// Whether somebody has asked lately, so that it matters to know of everything soon.
    fn is_asked(&self) -> bool;
}

/// What the thread that reads says.
enum Read<E> {
    /// It is at the end of every partition, and what comes from now on will be told.
    Begun,
    /// A record of the relay's. Others are nothing to a follower.
    Record(Box<Published<E>>),
    Failed(KafkaError),
}

/// A record that the relay has published.
struct Published<E> {
    partition: i16,
    label: Label,
    previous: Label,
    sequence: i32,
    at: Timestamp,
    /// None where this program can't read it.
    event: Option<Arc<E>>,
}

impl<E: Event> Published<E> {
    fn of(message: &BorrowedMessage<'_>, topic: &str, keys: &Keys) -> Option<Published<E>> {
        let raw = RawRecord::of(message, topic, keys);
        let stamp = raw.stamp().ok()?;
        let Stamp { label, previous, sequence, at, .. } = stamp;
        let event = raw.decode_stamped(&stamp).ok().map(|received| received.event);
        Some(Published { partition: raw.partition, label, previous, sequence, at, event })
    }
}

/// Follows until shutdown. Never gives up.
pub async fn run<F: Follower>(
    pool: PgPool,
    kafka: KafkaConfig,
    partitions: i16,
    follower: Arc<F>,
    shutdown: CancellationToken,
) {
    let mut retry = Retry::forever(Duration::from_millis(100), Duration::from_secs(2));
    let follow = async {
        loop {
            let reads = read(kafka.clone(), F::TOPIC.name(), partitions);
            let mut following = Following::new(follower.as_ref(), partitions);
            let failure = following.follow(&pool, reads).await;
            if following.begun.is_some() {
                retry.succeeded();
            }
            let delay = retry.next_delay();
            tracing::warn!(
                topic = F::TOPIC.name(),
                failure,
                delay_ms = delay.as_millis(),
                "following begins anew"
            );
            tokio::time::sleep(delay).await;
        }
    };
    let _: Option<()> = shutdown.run_until_cancelled(follow).await;
}

/// How far the following of a topic is.
struct Following<'a, F> {
    follower: &'a F,
    /// The era of the log, and how far it was, at the last look.
    log: Option<(i32, i64)>,
    /// The last position met in each partition; 0 for none.
    seen: Vec<i64>,
    /// What had been published to each partition when the following began; of it nothing is expected any more.
    begun: Option<Vec<i64>>,
    /// Where the log ended at some moments; not all of it is published yet. Oldest first.
    looks: VecDeque<(Instant, i64)>,
    awaited: Option<Awaited>,
    looked_at: Option<Instant>,
}

/// What must be met in each partition to have been told everything that was committed before a moment.
struct Awaited {
    moment: Instant,
    tails: Vec<i64>,
    since: Instant,
}

impl<'a, F: Follower> Following<'a, F> {
    fn new(follower: &'a F, partitions: i16) -> Following<'a, F> {
        let seen = vec![0; usize::from(partitions.unsigned_abs())];
        let looks = VecDeque::new();
        Following { follower, log: None, seen, begun: None, looks, awaited: None, looked_at: None }
    }

    /// Follows until something fails, and answers what.
    async fn follow(&mut self, pool: &PgPool, mut reads: mpsc::Receiver<Read<F::Event>>) -> String {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_reading = false;
        loop {
            let outcome = tokio::select! {
                read = reads.recv() => match read {
                    Some(Read::Begun) => {
                        is_reading = true;
                        Ok(())
                    }
                    Some(Read::Record(record)) => self.take(&record),
                    Some(Read::Failed(failure)) => Err(failure.to_string()),
                    None => Err("the thread that reads has ended".to_owned()),
                },
                _ = ticks.tick(), if is_reading => self.look(pool).await,
            };
            if let Err(failure) = outcome.and_then(|()| self.complete()) {
                return failure;
            }
        }
    }

    /// Looks how far log and relay are, where it is time to.
    async fn look(&mut self, pool: &PgPool) -> Result<(), String> {
        let now = Instant::now();
        if !self.is_time_to_look(now) {
            return Ok(());
        }
        self.looked_at = Some(now);
        match Cursor::read(pool).await {
            Ok(Some(cursor)) => self.looked(now, cursor),
            unknown => {
                tracing::debug!(?unknown, "cannot see how far the relay is");
                Ok(())
            }
        }
    }

    fn is_time_to_look(&self, now: Instant) -> bool {
        let is_seldom = |at: Instant| now.duration_since(at) >= LOOK_SELDOM;
        self.begun.is_none() || self.follower.is_asked() || self.looked_at.is_none_or(is_seldom)
    }

    fn looked(&mut self, now: Instant, cursor: Cursor) -> Result<(), String> {
        // A log that has another era, or has become shorter, is another log: what was told of the former may be wrong.
        if self.log.is_some_and(|(era, end)| era != cursor.era || end > cursor.log_end) {
            return Err("the log is not the one that was followed".to_owned());
        }
        self.log = Some((cursor.era, cursor.log_end));
        if self.looks.len() < LOOKS_MAX {
            self.looks.push_back((now, cursor.log_end));
        }
        let mut published = None;
        while let Some((moment, log_end)) = self.looks.front().copied()
            && log_end <= cursor.position
        {
            published = Some(moment);
            self.looks.pop_front();
        }
        let Some(moment) = published else { return Ok(()) };
        let mut tails = cursor.tails_of(F::TOPIC.name());
        tails.resize(self.seen.len(), 0);
        if self.begun.is_none() {
            // Everything that was published before the first look, and may so have been missed, was committed before it.
            self.follower.restarted();
            self.begun = Some(tails);
        } else if self.awaited.is_none() {
            self.awaited = Some(Awaited { moment, tails, since: now });
        }
        Ok(())
    }

    /// Takes a record that was read.
    fn take(&mut self, record: &Published<F::Event>) -> Result<(), String> {
        let Published { label, previous, .. } = *record;
        match self.log {
            // What an earlier era has left.
            Some((era, _)) if label.era < era => return Ok(()),
            Some((era, _)) if label.era > era => return Err(format!("{label} begins a new era")),
            _ => {}
        }
        let partition = usize::from(record.partition.unsigned_abs());
        let known = self.known(partition);
        // A repeat tells nothing new.
        if label.position <= known {
            return Ok(());
        }
        if known > 0 && previous.position > known {
            return Err(format!("records are missing before {label} in partition {partition}"));
        }
        if let Some(seen) = self.seen.get_mut(partition) {
            *seen = label.position;
        }
        match &record.event {
            Some(event) => self.follower.learned(event, record.sequence, record.at),
            // A newer program may write what this one can't read. What it says stands in the tables by now.
            None => self.follower.restarted(),
        }
        Ok(())
    }

    /// Up to where nothing can have been missed in that partition.
    fn known(&self, partition: usize) -> i64 {
        let begun = self.begun.as_ref().and_then(|begun| begun.get(partition)).copied().unwrap_or(0);
        self.seen.get(partition).copied().unwrap_or(0).max(begun)
    }

    /// Tells the follower how far it is, where something was awaited and has come.
    fn complete(&mut self) -> Result<(), String> {
        let Some(Awaited { moment, tails, since }) = &self.awaited else { return Ok(()) };
        if tails.iter().enumerate().all(|(partition, tail)| *tail <= self.known(partition)) {
            self.follower.complete_until(*moment);
            self.awaited = None;
        } else if since.elapsed() > MISSING_MAX {
            return Err("records that were published do not come".to_owned());
        }
        Ok(())
    }
}

/// Reads a topic on a thread of its own, which ends when the receiver is dropped. A client that hangs while it ends
/// holds up nobody.
fn read<E: Event>(kafka: KafkaConfig, topic: &'static str, partitions: i16) -> mpsc::Receiver<Read<E>> {
    let (reads, receiver) = mpsc::channel(QUEUE_MAX);
    std::thread::spawn(move || {
        if let Err(failure) = read_into(&reads, &kafka, topic, partitions) {
            let _ = reads.blocking_send(Read::Failed(failure));
        }
    });
    receiver
}

fn read_into<E: Event>(
    reads: &mpsc::Sender<Read<E>>,
    config: &KafkaConfig,
    topic: &str,
    partitions: i16,
) -> Result<(), KafkaError> {
    let settings = [("fetch.wait.max.ms", FETCH_WAIT_MAX_MS), ("fetch.error.backoff.ms", "50")];
    let consumer = config.reader(kafka::FOLLOWER, settings)?;
    let name = config.full_name(topic);
    let mut ends = TopicPartitionList::new();
    for partition in 0..i32::from(partitions) {
        let (_, high) = kafka::bounds(&consumer, &name, partition, ENDS_TIMEOUT)?;
        ends.add_partition_offset(&name, partition, Offset::Offset(high))?;
    }
    consumer.assign(&ends)?;
    let mut is_open = reads.blocking_send(Read::Begun).is_ok();
    while is_open && !reads.is_closed() {
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                if let Some(record) = Published::of(&message, topic, &config.keyring.keys()) {
                    is_open = reads.blocking_send(Read::Record(Box::new(record))).is_ok();
                }
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    return Err(error);
                }
                // The client tries again by itself; what does not come is noticed by who waits for it.
                _ => std::thread::sleep(POLL),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use ordermill_schemas::{Event, Topic};

    use super::*;

    /// Remembers what it was told.
    #[derive(Default)]
    struct Told {
        is_asked: bool,
        restarts: Mutex<u32>,
        complete: Mutex<Option<Instant>>,
    }

    impl Follower for Told {
        type Event = Event;
        const TOPIC: Topic = Topic::Products;

        fn restarted(&self) {
            *self.restarts.lock().unwrap() += 1;
        }

        fn learned(&self, _: &Event, _: i32, _: Timestamp) {}

        fn complete_until(&self, moment: Instant) {
            *self.complete.lock().unwrap() = Some(moment);
        }

        fn is_asked(&self) -> bool {
            self.is_asked
        }
    }

    fn progress(log_end: i64, position: i64, tails: &[i64]) -> Cursor {
        Cursor::with_tails(log_end, position, Told::TOPIC.name(), tails)
    }

    #[test]
    fn nothing_is_complete_before_what_the_log_had_is_published() {
        let told = Told::default();
        let mut following = Following::new(&told, 2);
        let (first, second) = (Instant::now(), Instant::now());
        following.looked(first, progress(7, 6, &[3, 4])).unwrap();
        assert_eq!((*told.restarts.lock().unwrap(), following.begun.clone()), (0, None));
        following.looked(first, progress(7, 7, &[7, 4])).unwrap();
        assert_eq!((*told.restarts.lock().unwrap(), following.begun.clone()), (1, Some(vec![7, 4])));
        // Something was committed, and is not published yet.
        following.looked(second, progress(8, 7, &[7, 4])).unwrap();
        following.complete().unwrap();
        assert_eq!(*told.complete.lock().unwrap(), None);
        // Published, but not met: it lies in the second partition.
        following.looked(Instant::now(), progress(9, 8, &[7, 8])).unwrap();
        following.complete().unwrap();
        assert_eq!(*told.complete.lock().unwrap(), None);
        following.seen[1] = 8;
        following.complete().unwrap();
        assert_eq!(*told.complete.lock().unwrap(), Some(second), "what was committed later may be missing");
    }

    #[test]
    fn a_quiet_log_is_complete_at_every_look() {
        let told = Told::default();
        let mut following = Following::new(&told, 2);
        for _ in 0..3 {
            let now = Instant::now();
            following.looked(now, progress(7, 7, &[])).unwrap();
            following.complete().unwrap();
            let complete = *told.complete.lock().unwrap();
            assert!(complete.is_none_or(|moment| moment == now));
        }
        assert!(told.complete.lock().unwrap().is_some());
    }

    #[test]
    fn it_is_looked_often_until_it_has_begun_and_while_somebody_asks_and_else_seldom() {
        let now = Instant::now();
        for (is_asked, has_begun, looked_before, is_time) in [
            (false, false, LOOK_EVERY, true),
            (true, true, LOOK_EVERY, true),
            (false, true, LOOK_EVERY, false),
            (false, true, LOOK_SELDOM, true),
        ] {
            let told = Told { is_asked, ..Told::default() };
            let mut following = Following::new(&told, 1);
            following.begun = has_begun.then(|| vec![0]);
            following.looked_at = now.checked_sub(looked_before);
            assert_eq!(following.is_time_to_look(now), is_time, "{is_asked} {has_begun} {looked_before:?}");
        }
    }

    #[test]
    fn who_waits_in_vain_for_what_was_published_begins_anew() {
        let told = Told::default();
        let mut following = Following::new(&told, 1);
        let long_ago = Instant::now().checked_sub(MISSING_MAX * 2).unwrap();
        following.looked(long_ago, progress(1, 1, &[1])).unwrap();
        following.looked(long_ago, progress(2, 2, &[2])).unwrap();
        assert!(following.complete().is_err());
        assert_eq!(*told.complete.lock().unwrap(), None);
    }

    #[test]
    fn a_log_of_another_era_or_one_that_has_become_shorter_is_followed_anew() {
        for other in [Cursor { era: 2, ..progress(7, 7, &[7]) }, progress(6, 6, &[6])] {
            let told = Told::default();
            let mut following = Following::new(&told, 1);
            following.looked(Instant::now(), progress(7, 7, &[7])).unwrap();
            assert!(following.looked(Instant::now(), other).is_err());
        }
    }
}
