//! The loop of one member of a group, on a thread of its own: poll, judge, apply, again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ordermill_wire::{Event, Topic as _};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;

use super::assignment::{Anew, Assignment, State};
use super::batch::{Attempts, BatchError, Batches};
use super::item::{Fate, Item};
use super::offsets::{Owned, Slot};
use super::sequence_check::{Verdict, judge};
use super::watchdog::{self, Watchdog};
use super::{ConsumerConfig, Handler, Runtime, replayer};
use crate::dead_letters::flood::FloodGuard;
use crate::heartbeat::{self, Pulse};
use crate::kafka;
use crate::kafka_usage::STATISTICS_INTERVAL;
use crate::label::Label;
use crate::raw_record::RawRecord;
use crate::record::Record;
use crate::retry::Retry;
use crate::supervised;

/// How long the loop waits for a first record before it looks at other things.
const POLL_FIRST: Duration = Duration::from_millis(100);
/// How often Kafka is told the offsets, for tools that show lag.
const TELL_KAFKA_EVERY: Duration = Duration::from_secs(1);
/// How long the offset may stay before records that were passed over: who looks at offsets sees what a group is done with.
const PASS_OVER_WITHIN: Duration = Duration::from_secs(1);
/// How often the relay is asked again for records that are missing.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How often a Kafka that does not answer is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);
/// How soon a group that has stopped looks whether it may go on.
const LOOK_WHILE_HALTED: Duration = Duration::from_millis(500);
/// How long leaving the group may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs one member of the handler's group until shutdown. Never gives up.
pub async fn run<H: Handler>(runtime: Runtime, config: ConsumerConfig, handler: Arc<H>) {
    let role = format!("worker:{}", H::GROUP);
    let (pulse, beat) = heartbeat::start(&runtime.journal.pool, &role, &config.instance, &runtime.shutdown);
    let (consumer, replayer) = (format!("consumer of {}", H::GROUP), format!("replayer of {}", H::GROUP));
    let consumer = supervised::run(&consumer, &runtime.shutdown, || {
        let (runtime, config, handler) = (runtime.clone(), config.clone(), handler.clone());
        let pulse = pulse.clone();
        tokio::task::spawn_blocking(move || consume(&runtime, &config, handler.as_ref(), &pulse))
    });
    let replayer = supervised::run(&replayer, &runtime.shutdown, || {
        tokio::spawn(replayer::run(runtime.clone(), handler.clone()))
    });
    tokio::join!(consumer, replayer);
    let _ = beat.await;
}

/// Is a member, over and over again, until shutdown.
fn consume<H: Handler>(runtime: &Runtime, config: &ConsumerConfig, handler: &H, pulse: &Pulse) {
    let mut retry = Retry::forever(Duration::from_millis(100), Duration::from_secs(5));
    while !runtime.shutdown.is_cancelled() {
        let joined = Member::join(runtime, config, handler, pulse);
        let outcome = joined.and_then(|mut member| {
            let outcome = member.work(&mut retry);
            member.leave();
            outcome
        });
        if let Err(error) = outcome {
            let delay = retry.next_delay();
            tracing::warn!(group = H::GROUP, %error, delay_ms = delay.as_millis(), "the member joins anew");
            let sleep = async { tokio::time::sleep(delay).await };
            Handle::current().block_on(runtime.shutdown.run_until_cancelled(sleep));
        }
    }
}

struct Member<'a, H> {
    runtime: &'a Runtime,
    batches: Batches<'a, H>,
    pulse: &'a Pulse,
    consumer: BaseConsumer<Assignment>,
    batch_records_max: usize,
    watchdog: Watchdog,
    told_kafka_at: Instant,
    complained_at: Option<Instant>,
}

/// Records in order, with the rebalance count under which they were read.
struct Gathered<E> {
    items: Vec<Item<E>>,
    generation: u64,
    /// When the first of them was read.
    since: Option<Instant>,
    /// Everything that the client had at hand was taken.
    is_all: bool,
}

impl<E> Gathered<E> {
    fn clear(&mut self) {
        (self.items, self.since) = (Vec::new(), None);
    }

    /// Whether a transaction is due: anything of it is to be applied, or what is only passed over has waited long enough.
    fn is_due(&self, records_max: usize) -> bool {
        self.items.iter().any(|item| item.fate != Fate::PassOver)
            || self.items.len() >= records_max
            || self.since.is_some_and(|since| since.elapsed() > PASS_OVER_WITHIN)
    }
}

impl<'a, H: Handler> Member<'a, H> {
    fn join(
        runtime: &'a Runtime,
        config: &ConsumerConfig,
        handler: &'a H,
        pulse: &'a Pulse,
    ) -> Result<Member<'a, H>, Anew> {
        let client = config.kafka.client_with([
            ("group.id", &config.kafka.full_name(H::GROUP)),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            // Partition n of every topic goes to the same member, so one key's topics meet in one place.
            ("partition.assignment.strategy", "range"),
            ("session.timeout.ms", &config.session_timeout_ms.to_string()),
            ("heartbeat.interval.ms", &(config.session_timeout_ms / 4).to_string()),
            ("max.poll.interval.ms", "300000"),
            ("fetch.wait.max.ms", kafka::FETCH_WAIT_MAX_MS),
            ("fetch.error.backoff.ms", "50"),
            ("topic.metadata.refresh.interval.ms", "5000"),
            STATISTICS_INTERVAL,
            ("queued.min.messages", "10000"),
        ]);
        let assignment = Assignment {
            group: H::GROUP,
            kafka: config.kafka.clone(),
            pool: runtime.journal.pool.clone(),
            runtime: Handle::current(),
            lag_records: runtime.metrics.of(H::GROUP).lag_records,
            usage: runtime.metrics.kafka_usage.of(H::GROUP),
            state: std::sync::Mutex::new(State {
                unassigned_since: Some(Instant::now()),
                ..State::default()
            }),
        };
        let consumer: BaseConsumer<Assignment> = client.create_with_context(assignment)?;
        let topics: Vec<String> = H::TOPICS.iter().map(|t| config.kafka.full_name(t.name())).collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics)?;
        let flood = FloodGuard::new(config.flood_limit);
        Ok(Member {
            runtime,
            batches: Batches {
                runtime,
                handler,
                metrics: runtime.metrics.of(H::GROUP),
                flood,
                any_parked: false,
            },
            pulse,
            consumer,
            batch_records_max: config.batch_records_max,
            watchdog: Watchdog::new(
                H::TOPICS.iter().map(|topic| topic.name()).collect(),
                runtime.journal.partitions,
            ),
            told_kafka_at: Instant::now(),
            complained_at: None,
        })
    }

    /// Applies batches until shutdown. An error means that the member must join anew.
    fn work(&mut self, retry: &mut Retry) -> Result<(), Anew> {
        let mut gathered = Gathered { items: Vec::new(), generation: 0, since: None, is_all: false };
        while !self.runtime.shutdown.is_cancelled() {
            // A member that has not been given its part yet is not at work.
            if self.assignment(|state| state.generation) > 0 {
                self.pulse.beat();
            }
            self.gather(&mut gathered)?;
            if let Some(failure) = self.assignment(|state| state.failure.take()) {
                return Err(failure.into());
            }
            if gathered.is_all {
                self.watchdog.turn(&self.consumer)?;
            }
            if !gathered.is_due(self.batch_records_max) {
                self.look_after_gaps();
                continue;
            }
            let began = Instant::now();
            self.apply(&gathered, retry)?;
            gathered.clear();
            self.assignment(|state| watchdog::worked(state, began.elapsed()));
            self.tell_kafka();
        }
        if gathered.items.is_empty() { Ok(()) } else { self.apply(&gathered, retry) }
    }

    fn assignment<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.consumer.context().with_state(change)
    }

    /// Waits for a further record, then takes what is at hand, up to a batch. More is not waited for: while a batch is
    /// applied, the next one gathers in the client.
    fn gather(&mut self, gathered: &mut Gathered<H::Event>) -> Result<(), Anew> {
        let mut wait = POLL_FIRST;
        gathered.is_all = false;
        while gathered.items.len() < self.batch_records_max {
            match self.consumer.poll(wait) {
                None => {
                    gathered.is_all = true;
                    break;
                }
                Some(Err(error)) => self.on_error(error)?,
                Some(Ok(message)) => {
                    self.take(&message, gathered)?;
                    wait = Duration::ZERO;
                }
            }
        }
        // What was read before a rebalance belongs to somebody else now, or will be read again.
        if self.assignment(|state| state.generation) != gathered.generation {
            gathered.clear();
        }
        Ok(())
    }

    /// Judges one message and adds it to the batch.
    fn take(&self, message: &BorrowedMessage<'_>, gathered: &mut Gathered<H::Event>) -> Result<(), Anew> {
        let prefix = &self.consumer.context().kafka.prefix;
        let Some(topic) = message.topic().strip_prefix(prefix) else { return Ok(()) };
        let raw = RawRecord::of(message, topic);
        let record = Record::copy(&raw, message);
        let slot: Slot = (record.place.topic.clone(), record.place.partition);
        let mut restart_at = None;
        let mut ask_for = None;
        self.assignment(|state| {
            if gathered.generation != state.generation {
                gathered.clear();
                gathered.generation = state.generation;
            }
            let Some(owned) = state.owned.get_mut(&slot) else { return };
            owned.behind_since = None;
            let tip = raw.headers.label();
            if let Some(low) = owned.verify_or_start_at.take() {
                restart_at = (tip != owned.tip).then_some(low);
                return;
            }
            let interest = |event: &H::Event| self.batches.handler.is_of_interest(event);
            let Some(item) = judged(owned, &raw, record, interest, &mut ask_for) else { return };
            owned.last = item.label;
            owned.tip = tip;
            owned.next_offset = item.record.place.offset + 1;
            gathered.since.get_or_insert_with(Instant::now);
            gathered.items.push(item);
        });
        if let Some(last) = ask_for {
            tracing::warn!(group = H::GROUP, ?slot, %last, "records are missing; the relay is asked to repeat");
            self.consumer.context().ask_for_repeat(&slot, last);
        }
        if let Some(low) = restart_at {
            tracing::warn!(
                group = H::GROUP,
                ?slot,
                low,
                "not the log that was read before; reading from its start"
            );
            self.consumer.seek(message.topic(), message.partition(), Offset::Offset(low), LEAVE_TIMEOUT)?;
        }
        Ok(())
    }

    fn on_error(&mut self, error: KafkaError) -> Result<(), Anew> {
        match error.rdkafka_error_code() {
            // The stored offset is gone: join anew, and look at what Kafka holds.
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                Err(format!("an offset is gone: {error}").into())
            }
            Some(RDKafkaErrorCode::PollExceeded) => Err(error.into()),
            // Brokers come and go, topics are about to be made: the client tries again by itself, and says so many
            // times a second.
            _ => {
                if self.complained_at.is_none_or(|at| at.elapsed() > COMPLAIN_EVERY) {
                    self.complained_at = Some(Instant::now());
                    tracing::warn!(group = H::GROUP, %error, "Kafka does not answer as it should");
                }
                Ok(())
            }
        }
    }

    /// Applies a batch, again and again if need be, and keeps the membership meanwhile.
    fn apply(&mut self, gathered: &Gathered<H::Event>, retry: &mut Retry) -> Result<(), Anew> {
        let first_at = self.runtime.journal.now();
        let mut left = gathered.items.as_slice();
        loop {
            let attempts = Attempts { count: retry.attempts() + 1, first_at };
            let outcome = Handle::current().block_on(self.batches.apply(&mut left, attempts));
            let delay = match outcome {
                Ok(()) => {
                    retry.succeeded();
                    return Ok(());
                }
                Err(BatchError::Fenced) => return Err(BatchError::Fenced.into()),
                // Not a failure of this batch: it is not counted, and nothing backs off.
                Err(BatchError::Halted) => LOOK_WHILE_HALTED,
                Err(error) => {
                    let delay = retry.next_delay();
                    self.batches.metrics.retries.inc();
                    tracing::warn!(
                        group = H::GROUP,
                        %error,
                        attempt = attempts.count,
                        delay_ms = delay.as_millis(),
                        "a batch failed and is tried again"
                    );
                    delay
                }
            };
            if !self.hold(delay, gathered.generation)? {
                return Ok(());
            }
        }
    }

    /// Waits with all partitions paused, so that the member stays one and nothing overtakes the batch. Answers whether the
    /// batch is still this member's: after a rebalance it is read again by whoever has its partitions then. The member
    /// goes on with its new part; if it left and joined anew, it would drive out others who wait as it does.
    fn hold(&mut self, delay: Duration, generation: u64) -> Result<bool, Anew> {
        let paused = self.consumer.assignment()?;
        self.consumer.pause(&paused)?;
        let until = Instant::now() + delay;
        while Instant::now() < until && !self.runtime.shutdown.is_cancelled() {
            self.pulse.beat();
            let left = until.saturating_duration_since(Instant::now());
            // Whole milliseconds: the client would spend the rest of one in asking again and again.
            let wait = left.min(POLL_FIRST).as_millis() + 1;
            match self.consumer.poll(Duration::from_millis(u64::try_from(wait).unwrap_or(1))) {
                None => {}
                Some(Ok(message)) => {
                    if self.assignment(|state| state.generation) == generation {
                        return Err("a record came while everything was paused".into());
                    }
                    // The first of the new part; it is read again.
                    let offset = Offset::Offset(message.offset());
                    self.consumer.seek(message.topic(), message.partition(), offset, LEAVE_TIMEOUT)?;
                }
                Some(Err(error)) => self.on_error(error)?,
            }
            if self.assignment(|state| state.generation) != generation {
                return Ok(false);
            }
        }
        if self.runtime.shutdown.is_cancelled() {
            return Err("shutdown while a batch was tried again".into());
        }
        self.consumer.resume(&paused)?;
        Ok(true)
    }

    /// Asks again for records that have been missing for a while.
    fn look_after_gaps(&self) {
        let missing: Vec<(Slot, Label)> = self.assignment(|state| {
            let overdue = state.owned.iter_mut().filter_map(|(slot, owned)| {
                let since = owned.gap_since.as_mut().filter(|since| since.elapsed() > ASK_AGAIN_AFTER)?;
                *since = Instant::now();
                Some((slot.clone(), owned.last))
            });
            overdue.collect()
        });
        for (slot, label) in missing {
            self.consumer.context().ask_for_repeat(&slot, label);
        }
    }

    /// Tells Kafka the offsets now and then, for tools that show lag. Nothing depends on it.
    fn tell_kafka(&mut self) {
        if self.told_kafka_at.elapsed() < TELL_KAFKA_EVERY {
            return;
        }
        self.told_kafka_at = Instant::now();
        let kafka = &self.consumer.context().kafka;
        let offset = |((topic, partition), owned): (&Slot, &Owned)| {
            ((kafka.full_name(topic), i32::from(*partition)), Offset::Offset(owned.next_offset))
        };
        let offsets: TopicPartitionList = self.assignment(|state| state.owned.iter().map(offset).collect());
        let _ = self.consumer.commit(&offsets, CommitMode::Async);
    }

    /// Leaves the group. The client's drop can hang, so it has a thread of its own and a deadline.
    fn leave(self) {
        let consumer = self.consumer;
        let (done, left) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            consumer.unsubscribe();
            drop(consumer);
            let _ = done.send(());
        });
        if left.recv_timeout(LEAVE_TIMEOUT).is_err() {
            tracing::warn!(group = H::GROUP, "leaving the group takes too long; not waited for");
        }
    }
}

/// The record with what is to be done with it; `None` while records before it are missing.
fn judged<E: Event>(
    owned: &mut Owned,
    raw: &RawRecord<'_>,
    record: Record,
    is_of_interest: impl Fn(&E) -> bool,
    ask_for: &mut Option<Label>,
) -> Option<Item<E>> {
    let (received, tip) = (record.receive::<E>(), raw.headers.label());
    let passes = received.as_ref().is_ok_and(|received| !is_of_interest(&received.event));
    let fate = if passes { Fate::PassOver } else { Fate::Apply };
    let (label, fate) = match tip {
        // Not the relay's: it moves the offset but not the label, and becomes a dead letter.
        None if owned.gap_since.is_some() => return None,
        None => (owned.last, fate),
        Some(label) => match judge(owned.last, label, raw.headers.previous().unwrap_or(Label::START)) {
            Verdict::Apply => (label, fate),
            // While records are missing the offset stays before the gap, so that a successor finds it too.
            Verdict::Skip if owned.gap_since.is_some() => return None,
            Verdict::Skip => (owned.last, Fate::Skip),
            Verdict::Gap => {
                if owned.gap_since.is_none() {
                    owned.gap_since = Some(Instant::now());
                    *ask_for = Some(owned.last);
                }
                return None;
            }
        },
    };
    owned.gap_since = None;
    Some(Item { epoch: owned.epoch, before: owned.last, label, tip, received, fate, record })
}
