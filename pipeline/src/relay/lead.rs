//! Leading: what `core` decides is carried out, and what comes of it told back.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::canaries::{Canaries, Refusals};
use super::core::{Action, Answer, Begin, Core, Limits, Question, Room, Write, Written};
use super::ends::{self, Depth, Subject};
use super::leadership::Leadership;
use super::published::{Loss, Published};
use super::publisher::Publisher;
use super::sender::Delivery;
use super::{Beside, Relay, RelayError, log_end};
use crate::log::{self, Appended, Wanted};
use crate::retry::Retry;
use crate::topics;
use crate::wake::Heard;

/// How many events are read at once.
const READ_EVENTS: usize = 4_000;
/// How much may be under way.
const UNDER_WAY: Room = Room { events: 10_000, bytes: 16 * 1024 * 1024 };
/// How much may wait that was told.
const WAITING: Room = Room { events: 10_000, bytes: 16 * 1024 * 1024 };
/// How often a relay that begins shows that it is at work.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// How long what is under way is waited for at the end.
const END_WITHIN: Duration = Duration::from_secs(2);
/// What a relay waits for.
const NOT_ACKNOWLEDGED: &str = "Kafka has not acknowledged what was sent";
const CANARIES_REFUSED: &str = "Kafka refuses the canaries: look at the topic `canary`";
const HELD_UP: &str = "a transaction that is open holds up what was committed: see `ordermill relay status`";

/// Something that was begun; nothing where nothing is.
type Work<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// What has come of it, once it has.
async fn done<T>(work: &mut Work<T>) -> T {
    let outcome = match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    };
    *work = None;
    outcome
}

/// What a leader has begun.
#[derive(Default)]
struct Begun {
    reading: Work<Result<Answer<Appended>, sqlx::Error>>,
    writing: Work<Result<Written, RelayError>>,
    looking: Work<Vec<Loss>>,
    looking_before: Work<Result<Loss, KafkaError>>,
}

impl Relay {
    /// Publishes until shutdown, or until something fails.
    pub(super) async fn lead(
        &self,
        leadership: &Leadership,
        begin: Begin,
        retry: &mut Retry,
    ) -> Result<(), RelayError> {
        // What it signs with and what it takes for its own must be of today.
        self.config.kafka.keyring.refresh(&self.pool).await?;
        // Every topic that something is or was published to, without prefix.
        let known = self.config.topics.iter();
        let topics: BTreeSet<String> = known.chain(begin.published.tails.0.keys()).cloned().collect();
        let topics = Vec::from_iter(topics);
        let partitions = begin.partitions;
        self.preparing(leadership, topics::ensure_named(&self.config.kafka, partitions, &topics)).await??;
        let subject = Subject { kafka: self.config.kafka.clone(), topics, partitions };
        let look = subject.look(begin.era, begin.published.tails.clone(), Depth::Behind);
        let ends = self.preparing(leadership, look).await??;
        if let Some((topic, found)) = ends::foreign(&self.pool, begin.era, &ends).await? {
            return Err(RelayError::KafkaAhead { topic, found, end: log_end(&self.pool).await? });
        }
        let (instance, epoch, era) = (&self.config.instance, leadership.epoch, begin.era);
        tracing::info!(instance, epoch, era, position = begin.published.position, "the relay leads");
        self.metrics.relay_leading.set(1);
        let limits = Limits {
            lease: self.config.lease,
            stalled_after: self.config.stalled_after,
            look_every: self.config.look_every,
            under_way: UNDER_WAY,
            waiting: WAITING,
        };
        let mut core = Core::new(begin, limits, Instant::now());
        if self.config.beside == Beside::ApiAndWorkers {
            core.expect_word();
        }
        for end in &ends {
            core.ends_at(&end.topic, end.partition, end.high);
        }
        let losses = core.published().losses(&ends);
        tell(&losses);
        core.lost(losses);
        let publisher = Publisher::new(&self.config, era, &self.metrics.kafka_usage, self.wake.loopback())?;
        let canaries = Canaries::new(leadership.epoch, *self.refusals(), Instant::now());
        let begun = Begun::default();
        let leader = Leader { relay: self, leadership, subject, core, publisher, canaries, begun };
        leader.run(retry).await
    }

    /// Waits for what comes before publishing and may take longer than the lease.
    async fn preparing<T>(
        &self,
        leadership: &Leadership,
        work: impl Future<Output = T>,
    ) -> Result<T, RelayError> {
        let beat = async {
            loop {
                self.pulse.beat();
                tokio::time::sleep(BEAT_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            outcome = leadership.keeping(work) => outcome,
            () = self.shutdown.cancelled() => Err(RelayError::ShutDown),
            () = beat => Err(RelayError::ShutDown),
        }
    }
}

struct Leader<'a> {
    relay: &'a Relay,
    leadership: &'a Leadership,
    subject: Subject,
    core: Core<Appended>,
    publisher: Publisher,
    canaries: Canaries,
    begun: Begun,
}

impl Leader<'_> {
    async fn run(mut self, retry: &mut Retry) -> Result<(), RelayError> {
        let (shutdown, metrics) = (&self.relay.shutdown, &self.relay.metrics);
        let ear = self.relay.wake.ear();
        let mut ends_at = None;
        loop {
            self.relay.pulse.beat();
            if shutdown.is_cancelled() && ends_at.is_none() {
                self.core.stop();
                ends_at = Some(Instant::now() + END_WITHIN);
            }
            self.hear(ear.heard());
            if self.take_in_deliveries()? > 0 {
                retry.succeeded();
            }
            let Some(until) = self.act().await? else { return Ok(()) };
            let now = Instant::now();
            if ends_at.is_some_and(|at| at <= now) {
                return Err(RelayError::ShutDown);
            }
            metrics.relay_lag_segments.set(self.core.lag_segments());
            let waited = self.core.waited_for_transactions(now).as_millis();
            metrics.relay_fence_wait_ms.set(i64::try_from(waited).unwrap_or(i64::MAX));
            let until = if ends_at.is_none() { self.send_canaries(now)?.min(until) } else { until };
            self.relay.pulse.waits(self.waits_in_vain(now));
            self.relay.pulse.quiet_since(self.canaries.quiet_since());
            let Begun { reading, writing, looking, looking_before } = &mut self.begun;
            tokio::select! {
                biased;
                answer = done(reading) => self.core.answered(answer?, Instant::now()),
                written = done(writing) => self.core.written(written?),
                losses = done(looking) => {
                    tell(&self.core.looked(losses, Instant::now()));
                }
                loss = done(looking_before) => {
                    let loss = loss?;
                    tell(std::slice::from_ref(&loss));
                    self.core.looked_before(loss);
                }
                () = ear.wait() => {}
                () = shutdown.cancelled(), if ends_at.is_none() => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
    }

    /// Since when others have kept the relay waiting, if they have.
    fn waits_in_vain(&self, now: Instant) -> Option<(Instant, &'static str)> {
        let acknowledgements = self.core.stands_since().into_iter().chain(self.canaries.sent_at());
        let acknowledgements = acknowledgements.map(|since| (since, NOT_ACKNOWLEDGED));
        let refused = self.canaries.refused_since().map(|since| (since, CANARIES_REFUSED));
        let waited = self.core.waited_for_transactions(now);
        let transactions = (waited > Duration::ZERO).then(|| now.checked_sub(waited)).flatten();
        let transactions = transactions.map(|since| (since, HELD_UP));
        acknowledgements.chain(refused).chain(transactions).min_by_key(|(since, _)| *since)
    }

    /// Sends a canary where one is due. Answers until when there is no other to send.
    fn send_canaries(&mut self, now: Instant) -> Result<Instant, RelayError> {
        if let Some(number) = self.canaries.next(now) {
            self.publisher.send_canary(number);
        }
        // A client that hangs is found before anybody waits for a record.
        let stalled_after = self.relay.config.stalled_after;
        if self.canaries.sent_at().is_some_and(|at| now.saturating_duration_since(at) >= stalled_after) {
            return Err(RelayError::Stalled(stalled_after));
        }
        Ok(self.canaries.due_at().unwrap_or(now + stalled_after))
    }

    fn hear(&mut self, Heard { segments, dropped }: Heard) {
        segments.into_iter().for_each(|segment| self.core.told(segment));
        dropped.into_iter().for_each(|number| self.core.told_of(number));
    }

    /// Answers how many records were acknowledged.
    fn take_in_deliveries(&mut self) -> Result<u64, RelayError> {
        let (mut count, now) = (0, Instant::now());
        for delivery in self.publisher.deliveries() {
            match delivery {
                Delivery::Record { ticket, outcome: Ok(offset) } => {
                    self.core.acknowledged(ticket, offset, now);
                    count += 1;
                }
                Delivery::Record { outcome: Err(error), .. } => {
                    tracing::warn!(%error, "a record could not be sent");
                    return Err(error);
                }
                Delivery::Canary(Ok(())) => {
                    self.canaries.acknowledged();
                    *self.relay.refusals() = Refusals::default();
                }
                Delivery::Canary(Err(error)) => {
                    tracing::warn!(%error, "a canary could not be sent");
                    self.relay.refusals().refused(now);
                    return Err(error);
                }
            }
        }
        if count > 0 {
            self.canaries.moved(now);
        }
        self.relay.metrics.relay_records.inc_by(count);
        Ok(count)
    }

    /// Does what is to be done; answers until when to wait then, or nothing at the end.
    async fn act(&mut self) -> Result<Option<Instant>, RelayError> {
        loop {
            match self.core.next(Instant::now()) {
                Action::Publish(publication) => self.publisher.publish(publication)?,
                Action::Read(question) => self.begun.reading = Some(self.read(question)),
                Action::Write(write) => self.begun.writing = Some(self.write(write)),
                Action::Look(published) => self.begun.looking = Some(self.look(published)),
                Action::LookBefore { topic, partition, offset } => {
                    self.begun.looking_before = Some(self.look_before(topic, partition, offset));
                }
                Action::Stalled => return Err(RelayError::Stalled(self.relay.config.stalled_after)),
                Action::End => return Ok(None),
                Action::Wait(until) => return Ok(Some(until)),
            }
        }
    }

    fn read(
        &self,
        question: Question,
    ) -> Pin<Box<dyn Future<Output = Result<Answer<Appended>, sqlx::Error>> + Send>> {
        let (pool, words) = (self.relay.pool.clone(), self.relay.words.clone());
        let Question { after, upto, except, fence_at } = question;
        Box::pin(async move {
            let wanted = Wanted { after, upto, except, draw: fence_at.is_some() };
            let mut connection = pool.acquire().await?;
            let log::Seen { segments, is_all, xmin, xid } =
                log::read(&mut connection, &words, &wanted, READ_EVENTS).await?;
            Ok(Answer { segments, is_all, xmin, xid })
        })
    }

    fn write(&self, write: Write) -> Pin<Box<dyn Future<Output = Result<Written, RelayError>> + Send>> {
        if let Write::GoBack(repeat) = &write {
            tracing::warn!(after = repeat.after, topics = ?repeat.topics, "the relay publishes again");
            self.relay.metrics.relay_repeats.inc();
        }
        let leadership = self.leadership.clone();
        let (keyring, pool) = (self.relay.config.kafka.keyring.clone(), self.relay.pool.clone());
        Box::pin(async move {
            if matches!(write, Write::GoBack(_)) {
                // It may be asked for since a key was revoked: that one must not sign it again.
                keyring.refresh(&pool).await?;
            }
            leadership.write(&write).await
        })
    }

    fn look(&self, published: Published) -> Pin<Box<dyn Future<Output = Vec<Loss>> + Send>> {
        let subject = self.subject.clone();
        Box::pin(async move {
            match subject.look(published.era, published.tails.clone(), Depth::Last).await {
                Ok(ends) => published.losses(&ends),
                Err(error) => {
                    tracing::debug!(%error, "Kafka does not say what it holds");
                    Vec::new()
                }
            }
        })
    }

    /// What Kafka has lost where a record came to lie before others.
    fn look_before(
        &self,
        topic: String,
        partition: i16,
        offset: i64,
    ) -> Pin<Box<dyn Future<Output = Result<Loss, KafkaError>> + Send>> {
        let kafka = self.relay.config.kafka.clone();
        let Published { era, after, .. } = self.core.published();
        let name = topic.clone();
        let kept = ends::on_a_thread(move || ends::highest_before(&kafka, (&name, partition, offset), era));
        Box::pin(async move {
            let kept = kept.await.unwrap_or(Err(KafkaError::Canceled))?.unwrap_or(0).max(after);
            Ok(Loss { topic, partition, kept })
        })
    }
}

/// Says what is published again.
fn tell(losses: &[Loss]) {
    for Loss { topic, partition, kept } in losses {
        tracing::warn!(topic, partition, kept, "Kafka lost acknowledged records; they are published again");
    }
}
