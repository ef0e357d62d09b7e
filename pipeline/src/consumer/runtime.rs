//! The loop of one member of a group, on a thread of its own: poll, judge, apply, again.

mod looped_back;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ordermill_wire::Topic as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;

use super::assignment::{Anew, Assignment, State};
use super::batch::{Attempts, BatchError, Batches};
use super::feed::Feed;
use super::foreign_cap::ForeignCap;
use super::gathered::Gathered;
use super::membership::Membership;
use super::reader::Reader;
use super::taking::{Taken, meet_canary, take};
use super::watchdog::Watchdog;
use super::watching::watch;
use super::{ConsumerConfig, Handler, Runtime, replayer};
use crate::canary;
use crate::dead_letters::flood::FloodGuard;
use crate::kafka;
use crate::kafka_usage::STATISTICS_INTERVAL;
use crate::label::Label;
use crate::pacing::pause_after;
use crate::partition::Slot;
use crate::pulse::Pulse;
use crate::readiness::worker_role;
use crate::retry::Retry;
use crate::supervised;

/// How long the loop waits for a first record before it looks at other things.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How often Kafka is told the offsets, for tools that show lag.
const TELL_KAFKA_EVERY: Duration = Duration::from_secs(1);
/// How often a Kafka that does not answer is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);
/// How soon a group that has stopped looks whether it may go on.
const LOOK_WHILE_HALTED: Duration = Duration::from_millis(500);
/// How many bytes are worth a request of a group that is patient.
const PATIENT_BYTES: &str = "262144";
/// How long leaving the group may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs one member of the handler's group until shutdown. Never gives up.
pub async fn run<H: Handler>(runtime: Runtime, config: ConsumerConfig, handler: Arc<H>) {
    let role = worker_role(H::GROUP);
    let (pulse, replayer_pulse) = (runtime.signs.pulse(&role), runtime.signs.pulse(&role));
    let (consumer, replayer) = (format!("consumer of {}", H::GROUP), format!("replayer of {}", H::GROUP));
    let consumer = supervised::run(&consumer, &runtime.shutdown, || {
        let (runtime, config, handler) = (runtime.clone(), config.clone(), handler.clone());
        let pulse = pulse.clone();
        tokio::task::spawn_blocking(move || consume(&runtime, &config, handler.as_ref(), &pulse))
    });
    let replayer = supervised::run(&replayer, &runtime.shutdown, || {
        tokio::spawn(replayer::run(runtime.clone(), handler.clone(), replayer_pulse.clone()))
    });
    tokio::join!(consumer, replayer);
    runtime.signs.leave(&role).await;
}

/// Is a member, over and over again, until shutdown.
fn consume<H: Handler>(runtime: &Runtime, config: &ConsumerConfig, handler: &H, pulse: &Pulse) {
    let mut retry = Retry::forever(Duration::from_millis(100), Duration::from_secs(5));
    let topics = H::TOPICS.iter().map(|topic| topic.name());
    let partitions = 0..runtime.journal.partitions;
    let all = topics.flat_map(|topic| partitions.clone().map(move |partition| Slot { topic, partition }));
    let mut lasting = Lasting {
        watchdog: Watchdog::new(all.collect(), Instant::now()),
        foreign_cap: ForeignCap::default(),
        canary: Label::START,
        membership: Membership::default(),
    };
    while !runtime.shutdown.is_cancelled() {
        lasting.watchdog.joins(Instant::now());
        let joined = Member::join(runtime, config, handler, pulse, &mut lasting);
        let outcome = joined.and_then(|mut member| {
            let outcome = member.work(&mut retry);
            member.leave();
            outcome
        });
        if let Err(error) = outcome {
            let delay = retry.next_delay();
            tracing::warn!(group = H::GROUP, %error, delay_ms = delay.as_millis(), "the member joins anew");
            if lasting.membership.ends() {
                pulse.fails("it joins its group again and again");
            } else {
                // What did not work is another's now, or is tried anew.
                pulse.works();
            }
            let sleep = async { tokio::time::sleep(delay).await };
            Handle::current().block_on(runtime.shutdown.run_until_cancelled(sleep));
        }
    }
}

/// What outlives a member that joins anew.
struct Lasting {
    watchdog: Watchdog,
    foreign_cap: ForeignCap,
    /// The last canary that was met.
    canary: Label,
    membership: Membership,
}

struct Member<'a, H> {
    runtime: &'a Runtime,
    batches: Batches<'a, H>,
    pulse: &'a Pulse,
    consumer: BaseConsumer<Assignment>,
    feed: Feed,
    /// The last rebalance that was noticed.
    generation: u64,
    batch_records_max: usize,
    lasting: &'a mut Lasting,
    told_kafka: Vec<(Slot, i64)>,
    told_kafka_at: Instant,
    complained_at: Option<Instant>,
}

impl<'a, H: Handler> Member<'a, H> {
    fn join(
        runtime: &'a Runtime,
        config: &ConsumerConfig,
        handler: &'a H,
        pulse: &'a Pulse,
        lasting: &'a mut Lasting,
    ) -> Result<Member<'a, H>, Anew> {
        let client = config.kafka.client_with([
            ("group.id", &config.kafka.full_name(H::GROUP)),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("isolation.level", kafka::READ_UNCOMMITTED),
            // Partition n of every topic goes to the same member, so one key's topics meet in one place.
            ("partition.assignment.strategy", "range"),
            ("session.timeout.ms", &config.session_timeout_ms.to_string()),
            ("heartbeat.interval.ms", &(config.session_timeout_ms / 3).to_string()),
            ("max.poll.interval.ms", "300000"),
            ("fetch.wait.max.ms", kafka::FETCH_WAIT_MAX_MS),
            // Until then the broker gathers for who is patient.
            ("fetch.min.bytes", if H::IS_PATIENT { PATIENT_BYTES } else { "1" }),
            ("fetch.error.backoff.ms", "50"),
            ("topic.metadata.refresh.interval.ms", "5000"),
            STATISTICS_INTERVAL,
            ("queued.min.messages", "10000"),
        ]);
        let metrics = runtime.metrics.of(H::GROUP);
        let topics: Vec<&'static str> = H::TOPICS.iter().map(|topic| topic.name()).collect();
        let canary = config.kafka.full_name(canary::TOPIC);
        let names = topics.iter().map(|topic| config.kafka.full_name(topic)).chain([canary.clone()]);
        let names: Vec<String> = names.collect();
        let inbox = runtime.journal.wake().loopback().listen(topics.clone(), H::IS_PATIENT);
        let assignment = Assignment {
            group: H::GROUP,
            topics,
            canary,
            pulse: pulse.clone(),
            kafka: config.kafka.clone(),
            pool: runtime.journal.pool.clone(),
            clock: runtime.journal.clock.clone(),
            runtime: Handle::current(),
            shutdown: runtime.shutdown.clone(),
            lag_records: metrics.lag_records.clone(),
            usage: runtime.metrics.kafka_usage.of(H::GROUP),
            inbox: inbox.clone(),
            state: std::sync::Mutex::new(State { reader: Reader::new(Instant::now()), failure: None }),
        };
        let mut consumer: BaseConsumer<Assignment> = client.create_with_context(assignment)?;
        // Whoever waits at the inbox is called for what the client has, as well.
        let called = inbox.clone();
        consumer.set_nonempty_callback(move || called.wake());
        consumer.subscribe(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        let flood = FloodGuard::new(config.flood_limit);
        Ok(Member {
            runtime,
            batches: Batches { runtime, handler, pulse, metrics, flood, any_parked: true },
            pulse,
            consumer,
            feed: Feed::new(inbox, H::IS_PATIENT),
            generation: 0,
            batch_records_max: config.batch_records_max,
            lasting,
            told_kafka: Vec::new(),
            told_kafka_at: Instant::now(),
            complained_at: None,
        })
    }

    /// Applies batches until shutdown. An error means that the member must join anew.
    fn work(&mut self, retry: &mut Retry) -> Result<(), Anew> {
        while !self.runtime.shutdown.is_cancelled() {
            // A member that has not been given its part yet is not at work.
            if self.assignment(|state| state.reader.generation()) > 0 {
                self.pulse.beat();
                // Whoever comes round has no batch left that fails.
                if self.lasting.membership.is_for_good(Instant::now()) {
                    self.pulse.works();
                }
            }
            // A batch that was held may have seen one.
            self.notice_rebalance();
            let any_looped_back = self.apply_what_loops_back(retry)?;
            let taken = self.take_what_is_there()?;
            if let Some(failure) = self.assignment(|state| state.failure.take()) {
                return Err(failure.into());
            }
            watch(&mut self.lasting.watchdog, &self.consumer, taken.is_all)?;
            let passed_over = self.assignment(|state| state.reader.take_passed_over());
            if passed_over > 0 {
                self.batches.flood.count(self.runtime.journal.now(), passed_over, 0);
            }
            if !taken.items.is_empty() {
                let (began, applied) = (Instant::now(), taken.items.len());
                self.apply(taken, retry)?;
                let took = began.elapsed();
                self.lasting.watchdog.worked(took);
                std::thread::sleep(pause_after(applied, took));
            } else if self.assignment(|state| state.reader.is_due(Instant::now())) {
                self.store()?;
            } else if !any_looped_back && taken.is_all {
                self.feed.inbox().wait(WAIT_MAX);
            }
            self.tell_kafka();
        }
        Ok(())
    }

    fn assignment<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.consumer.context().with_state(change)
    }

    /// Takes what the client has at hand, up to a batch: while one is applied, the next one gathers in the client.
    fn take_what_is_there(&mut self) -> Result<Taken<H::Event>, Anew> {
        let generation = self.assignment(|state| state.reader.generation());
        let mut taken = Taken { items: Vec::new(), may_wait: false, generation, is_all: false };
        let keys = self.consumer.context().kafka.keyring.keys();
        // Nothing is said where there was an event that is none of ours, as well.
        let mut nothing = 0;
        for _ in 0..self.batch_records_max {
            match self.consumer.poll(Duration::ZERO) {
                None if nothing == 0 => nothing += 1,
                None => {
                    taken.is_all = true;
                    break;
                }
                Some(Err(error)) => self.on_error(error)?,
                Some(Ok(message)) => {
                    let context = self.consumer.context();
                    let is_settled = context.with_state(|state| state.reader.generation()) == self.generation;
                    let Some(slot) = context.slot(message.topic(), message.partition()) else {
                        meet_canary(context, &keys, &message, &mut self.lasting.canary);
                        continue;
                    };
                    // What was on its way when the partition began to loop back.
                    if is_settled && self.feed.has(slot) {
                        continue;
                    }
                    let cap = &mut self.lasting.foreign_cap;
                    take(&self.consumer, &self.batches, cap, &keys, &message, &mut taken)?;
                }
            }
        }
        // What was read before a rebalance belongs to somebody else now, or will be read again.
        if self.assignment(|state| state.reader.generation()) != taken.generation {
            taken.items.clear();
        }
        self.notice_rebalance();
        Ok(taken)
    }

    /// Of partitions that are new here it is not known yet which keys are parked; and each is fetched at first.
    fn notice_rebalance(&mut self) {
        let generation = self.assignment(|state| state.reader.generation());
        if std::mem::replace(&mut self.generation, generation) != generation {
            self.batches.any_parked = true;
            self.feed.ends_all();
        }
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

    /// Applies a batch, again and again if need be, and keeps the membership meanwhile. What was passed over since the
    /// last one is stored with it.
    fn apply(&mut self, taken: Taken<H::Event>, retry: &mut Retry) -> Result<(), Anew> {
        let first_at = self.runtime.journal.now();
        let progress = self.assignment(|state| state.reader.progress());
        let mut gathered = Gathered::new(taken.items, progress);
        loop {
            let attempts = Attempts { count: retry.attempts() + 1, first_at };
            let outcome = Handle::current().block_on(self.batches.apply(&mut gathered, attempts));
            self.assignment(|state| state.reader.stored(gathered.stored()));
            let delay = match outcome {
                Ok(()) => {
                    self.succeeded(retry);
                    return Ok(());
                }
                Err(BatchError::Fenced) => return Err(BatchError::Fenced.into()),
                // Not a failure of this batch: it is not counted, and nothing backs off.
                Err(BatchError::Halted) => LOOK_WHILE_HALTED,
                Err(error) => {
                    let delay = retry.next_delay();
                    self.batches.metrics.retries.inc();
                    self.pulse.fails(error.in_short());
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
            if !self.hold(delay, taken.generation)? {
                return Ok(());
            }
        }
    }

    /// Something was applied.
    fn succeeded(&mut self, retry: &mut Retry) {
        retry.succeeded();
        self.lasting.membership.works();
        self.pulse.works();
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
            let wait = left.min(WAIT_MAX).as_millis() + 1;
            match self.consumer.poll(Duration::from_millis(u64::try_from(wait).unwrap_or(1))) {
                None => {}
                Some(Ok(message)) => {
                    if self.assignment(|state| state.reader.generation()) == generation {
                        return Err("a record came while everything was paused".into());
                    }
                    // The first of the new part; it is read again.
                    let offset = Offset::Offset(message.offset());
                    self.consumer.seek(message.topic(), message.partition(), offset, LEAVE_TIMEOUT)?;
                }
                Some(Err(error)) => self.on_error(error)?,
            }
            if self.assignment(|state| state.reader.generation()) != generation {
                return Ok(false);
            }
        }
        if self.runtime.shutdown.is_cancelled() {
            return Err("shutdown while a batch was tried again".into());
        }
        self.consumer.resume(&paused)?;
        // But for what loops back.
        self.consumer.pause(&self.consumer.context().list(self.feed.slots()))?;
        Ok(true)
    }

    /// Stores how far the partitions are while there is nothing to apply.
    fn store(&self) -> Result<(), Anew> {
        match self.consumer.context().store() {
            Err(BatchError::Fenced) => Err(BatchError::Fenced.into()),
            Err(error) => {
                tracing::warn!(group = H::GROUP, %error, "offsets are stored later");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Tells Kafka the offsets now and then, for tools that show lag. Nothing depends on it.
    fn tell_kafka(&mut self) {
        if self.told_kafka_at.elapsed() < TELL_KAFKA_EVERY {
            return;
        }
        self.told_kafka_at = Instant::now();
        let offsets: Vec<(Slot, i64)> = self.assignment(|state| state.reader.offsets().collect());
        if offsets == self.told_kafka {
            return;
        }
        let kafka = &self.consumer.context().kafka;
        let named = |(slot, offset): &(Slot, i64)| {
            ((kafka.full_name(slot.topic), i32::from(slot.partition)), Offset::Offset(*offset))
        };
        let list: TopicPartitionList = offsets.iter().map(named).collect();
        let _ = self.consumer.commit(&list, CommitMode::Async);
        self.told_kafka = offsets;
    }

    /// Stores what may be stored, and leaves the group. The client's drop can hang, so it has a thread of its own and a deadline.
    fn leave(self) {
        if let Err(error) = self.consumer.context().store_at_last() {
            tracing::warn!(group = H::GROUP, %error, "offsets are not stored before the group is left");
        }
        let consumer = self.consumer;
        // A client that hangs must not keep what loops back.
        consumer.context().inbox.close();
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
