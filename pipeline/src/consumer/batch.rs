//! One batch, one transaction: effects, new events, dead letters and offsets. Most batches are one statement.

use jiff::Timestamp;
use sqlx::{Postgres, Transaction};
use thiserror::Error;
use uuid::Uuid;

use super::gathered::{Gathered, Item};
use super::mark::Progress;
use super::offsets;
use super::search::Search;
use super::{Batch, Handler, Runtime, rejection};
use crate::dead_letters::aside::{self, Aside};
use crate::dead_letters::flood::FloodGuard;
use crate::dead_letters::halts::{self, Standing};
use crate::dead_letters::parked_keys::ParkedKeys;
use crate::dead_letters::{Code, Rejection};
use crate::journal::{JournalError, Keys, Load, Loaded, Lock, Shortfall, Statement, Unwritten, Writes};
use crate::metrics::GroupMetrics;
use crate::pulse::Pulse;
use crate::record::{Received, Record};
use crate::supervised::without_panic;

/// Why a batch was not committed.
#[derive(Debug, Error)]
pub(super) enum BatchError {
    /// The same again, later.
    #[error("{0}")]
    Retry(JournalError),
    /// A partition has another owner: drop everything and join anew.
    #[error("another member owns a partition of this batch")]
    Fenced,
    /// A record can't be applied; it must be found and put aside.
    #[error("{}: {error}", code.name())]
    Reject {
        /// What the record is put aside for.
        code: Code,
        /// What is wrong.
        error: JournalError,
    },
    /// Kafka holds another history than the log: nothing of it is applied.
    #[error(
        "Kafka holds records that the log does not have: the database was restored from an older copy. Stop all \
         relays and workers and run `ordermill relay adopt`"
    )]
    NotInLog,
    /// Too much can't be applied: the group stands still until somebody has looked.
    #[error("the group has stopped; look at its dead letters, then run `ordermill dlq resume`")]
    Halted,
}

impl BatchError {
    /// What does not work where it lasts, without anything that the database or a record says.
    pub(super) fn in_short(&self) -> &'static str {
        match self {
            BatchError::NotInLog => {
                "Kafka holds records that the log does not have, as after a restore: run `ordermill relay adopt`"
            }
            _ => "a batch fails and is tried again",
        }
    }
}

impl From<JournalError> for BatchError {
    fn from(error: JournalError) -> BatchError {
        match (&error, rejection(&error)) {
            (JournalError::Unwritten(Unwritten::Short { shortfall: Shortfall::Fenced, .. }), _) => {
                BatchError::Fenced
            }
            (JournalError::Unwritten(Unwritten::Short { shortfall: Shortfall::NotInLog, .. }), _) => {
                BatchError::NotInLog
            }
            (_, Some(code)) => BatchError::Reject { code, error },
            (_, None) => BatchError::Retry(error),
        }
    }
}

impl From<sqlx::Error> for BatchError {
    fn from(error: sqlx::Error) -> BatchError {
        JournalError::from(error).into()
    }
}

/// How often the batch has been tried, for the dead letters in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempts {
    pub(super) count: u32,
    pub(super) first_at: Timestamp,
}

/// Applies batches.
pub(super) struct Batches<'a, H> {
    pub(super) runtime: &'a Runtime,
    pub(super) handler: &'a H,
    pub(super) pulse: &'a Pulse,
    pub(super) metrics: GroupMetrics,
    pub(super) flood: FloodGuard,
    /// Some key of the group was parked when this was last looked at, or it has not been looked at since partitions came.
    pub(super) any_parked: bool,
}

/// How often a batch is decided anew at once where somebody else was there first; then it waits like after a failure.
const CONFLICTS_MAX: u32 = 20;

/// What a batch's records come to.
struct Sorted<'a, E> {
    events: Vec<&'a Received<E>>,
    asides: Vec<Aside<'a>>,
}

impl<E> Sorted<'_, E> {
    /// Those that can't be applied. What is not the relay's is none of them: it says nothing about the group.
    fn failures(&self) -> u64 {
        let failed = |aside: &&Aside<'_>| {
            aside.rejection.as_ref().is_some_and(|rejection| rejection.code.parks_the_key())
        };
        self.asides.iter().filter(failed).count() as u64
    }

    /// Those that were tried.
    fn tried(&self) -> u64 {
        self.events.len() as u64 + self.failures()
    }
}

/// What was read for a batch, in its transaction.
struct Read {
    transaction: Transaction<'static, Postgres>,
    loaded: Loaded,
    standing: Standing,
}

impl<H: Handler> Batches<'_, H> {
    /// Applies what was gathered, in order, and tells it what has been committed, also where it fails on the way. A record that
    /// can't be applied is found by halving and put aside.
    pub(super) async fn apply(
        &mut self,
        gathered: &mut Gathered<H::Event>,
        attempts: Attempts,
    ) -> Result<(), BatchError> {
        let (mut search, mut conflicts) = (Search::default(), 0);
        // Why the next record is put aside, once it is known that it can't be applied.
        let mut refusal: Option<(Code, String)> = None;
        while !gathered.left().is_empty() {
            // To find many that can't be applied takes a while.
            self.pulse.beat();
            let left = gathered.left();
            let count = if refusal.is_some() { 1 } else { search.next(left.len()).min(left.len()) };
            let (items, progress) = (&left[..count], gathered.progress(count));
            match self.commit(items, &progress, attempts, refusal.clone()).await {
                Ok(()) => {
                    gathered.committed(count);
                    if refusal.take().is_some() {
                        search.put_aside();
                    } else {
                        search.applied(count);
                    }
                }
                Err(BatchError::Reject { code, error }) if items.len() == 1 && refusal.is_none() => {
                    let record = &items[0].record;
                    tracing::error!(
                        group = H::GROUP,
                        place = ?record.place,
                        correlation_id = ?record.correlation_id(),
                        code = code.name(),
                        %error,
                        "dead letter"
                    );
                    refusal = Some((code, error.to_string()));
                }
                Err(BatchError::Reject { .. }) if refusal.is_none() => search.failed(items.len()),
                Err(BatchError::Retry(error)) if error.is_conflict() && conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                }
                Err(BatchError::Retry(JournalError::Unlearnt(words))) => {
                    self.runtime.journal.learn(words.iter().map(String::as_str)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Applies records as one: from what is remembered in one statement, where that can be, or by begin, load, write and
    /// commit. With `refusal`, the records are not applied but put aside for that reason.
    async fn commit(
        &mut self,
        items: &[Item<H::Event>],
        progress: &[Progress],
        attempts: Attempts,
        refusal: Option<(Code, String)>,
    ) -> Result<(), BatchError> {
        let started = std::time::Instant::now();
        let mut keys = Keys::default();
        if refusal.is_none() {
            let events: Vec<_> = items.iter().filter_map(|item| item.received.as_ref().ok()).collect();
            events.iter().for_each(|received| self.handler.keys(&received.event, &mut keys));
            let is_clear = !self.any_parked && events.len() == items.len();
            if is_clear && self.commit_recalled(&events, progress, &keys).await? {
                measure(&self.metrics, items.len(), 0, started.elapsed().as_secs_f64());
                return Ok(());
            }
        }
        let records: Vec<&Record> = items.iter().map(|item| &item.record).collect();
        let received: Vec<_> = items
            .iter()
            .map(|item| refusal.clone().map_or_else(|| item.received.as_ref().map_err(Clone::clone), Err))
            .collect();
        let (read, parked) = self.load(&records, &keys).await?;
        let now = self.runtime.journal.now();
        let sorted = sort(&records, received, parked, |(code, error)| Rejection {
            code,
            error,
            attempts: i32::try_from(attempts.count).unwrap_or(i32::MAX),
            first_failed_at: attempts.first_at,
            last_failed_at: now,
        });
        self.commit_loaded(read, &sorted, progress, now).await?;
        let letters = sorted.asides.iter().filter(|aside| aside.rejection.is_some()).count();
        measure(&self.metrics, items.len(), letters, started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Applies events of which none may be put aside. Answers whether they are applied; if not, there may be something to put aside.
    pub(super) async fn apply_looped_back(
        &mut self,
        events: &[Received<H::Event>],
        progress: &[Progress],
    ) -> Result<bool, BatchError> {
        let started = std::time::Instant::now();
        let (count, events): (usize, Vec<_>) = (events.len(), events.iter().collect());
        let mut keys = Keys::default();
        events.iter().for_each(|received| self.handler.keys(&received.event, &mut keys));
        if !self.commit_recalled(&events, progress, &keys).await? {
            let (read, _) = self.load(&[], &keys).await?;
            if self.any_parked {
                return Ok(false);
            }
            let (now, sorted) = (self.runtime.journal.now(), Sorted { events, asides: Vec::new() });
            self.commit_loaded(read, &sorted, progress, now).await?;
        }
        measure(&self.metrics, count, 0, started.elapsed().as_secs_f64());
        Ok(true)
    }

    /// Decides from what was loaded, writes and commits.
    async fn commit_loaded(
        &mut self,
        Read { mut transaction, loaded, standing }: Read,
        sorted: &Sorted<'_, H::Event>,
        progress: &[Progress],
        now: Timestamp,
    ) -> Result<(), BatchError> {
        let (tried, failures) = (sorted.tried(), sorted.failures());
        if let Some(reason) = self.flood_of(tried, failures, standing, now) {
            // Who waits for a second connection while it holds one, or has a turn, keeps others waiting.
            drop((transaction, loaded));
            return Err(self.halt(&reason, now).await);
        }
        // The others were only read to see whether they wait.
        let is_of_interest = |received: &&Received<H::Event>| self.handler.is_of_interest(&received.event);
        let events: Vec<_> = sorted.events.iter().copied().filter(is_of_interest).collect();
        let mut writes = self.decide(&loaded, &events, now)?;
        let mut statement = Statement::default();
        writes.entries.extend(aside::add(&mut statement, H::GROUP, &sorted.asides));
        offsets::add(&mut statement, H::GROUP, progress, now);
        let stored = self.runtime.journal.write(statement, loaded, writes, now, &mut *transaction).await?;
        transaction.commit().await?;
        let parks = |aside: &Aside<'_>| aside.rejection.as_ref().is_none_or(|why| why.code.parks_the_key());
        self.any_parked |= sorted.asides.iter().any(parks);
        self.flood.count(now, tried, failures);
        self.runtime.committed(self.handler, stored);
        Ok(())
    }

    /// Applies events from what is remembered, in one statement that writes nothing where anything is not as it is taken to be. Answers
    /// whether it is written; if not, all is to be loaded.
    async fn commit_recalled(
        &mut self,
        events: &[&Received<H::Event>],
        progress: &[Progress],
        keys: &Keys,
    ) -> Result<bool, BatchError> {
        let journal = &self.runtime.journal;
        let Some(recalled) = journal.recall(H::tables(), keys).await else { return Ok(false) };
        let now = journal.now();
        // What can't be decided may be decided once it is loaded.
        let Ok(writes) = self.decide(&recalled, events, now) else { return Ok(false) };
        let mut statement = Statement::default();
        Standing::require_free(&mut statement, H::GROUP);
        offsets::add(&mut statement, H::GROUP, progress, now);
        match journal.write_alone(statement, recalled, writes, now).await {
            Ok(stored) => {
                self.flood.count(now, events.len() as u64, 0);
                self.runtime.committed(self.handler, stored);
                Ok(true)
            }
            Err(error) if error.is_conflict() || error.is_about_standing() => Ok(false),
            Err(error) => match BatchError::from(error) {
                // Whichever it is, it is found once all is loaded.
                BatchError::Reject { .. } | BatchError::Retry(JournalError::Unlearnt(_)) => Ok(false),
                error => Err(error),
            },
        }
    }

    fn decide(
        &self,
        loaded: &Loaded,
        events: &[&Received<H::Event>],
        now: Timestamp,
    ) -> Result<Writes, JournalError> {
        if events.is_empty() {
            return Ok(Writes::default());
        }
        let partitions = self.runtime.journal.partitions;
        let batch = Batch { events, now, partitions, tells_effects: false };
        Ok(without_panic(|| self.handler.decide(loaded, &batch))?.writes)
    }

    /// Begins a transaction and loads what the events are about, how the group stands, and which of the keys are parked. The
    /// latter is looked for only where some key of the group is.
    async fn load(&mut self, records: &[&Record], keys: &Keys) -> Result<(Read, ParkedKeys), BatchError> {
        loop {
            let turn = self.runtime.journal.turn(H::tables(), keys).await;
            let mut transaction = self.runtime.journal.begin().await?;
            let mut load = Load::default();
            Standing::ask(&mut load, H::GROUP, self.runtime.journal.now());
            if self.any_parked {
                ParkedKeys::ask(&mut load, H::GROUP, records);
            }
            load.state(H::tables(), keys, Lock::ForUpdate);
            let (loaded, beside) = load.run(&mut transaction).await?;
            let standing = Standing::told(&beside);
            if standing.halted {
                return Err(BatchError::Halted);
            }
            let is_known = self.any_parked || !standing.any_parked;
            self.any_parked = standing.any_parked;
            if is_known {
                let loaded = loaded.in_turn(turn);
                return Ok((Read { transaction, loaded, standing }, ParkedKeys::told(beside)?));
            }
        }
    }

    /// Whether too much can't be applied, and what that is.
    fn flood_of(&mut self, tried: u64, failures: u64, standing: Standing, now: Timestamp) -> Option<String> {
        if standing.unchecked {
            self.flood.reset();
            return None;
        }
        self.flood.refuses(now, tried, failures)
    }

    /// Stops the whole group for that reason. Answers why the batch was not committed.
    async fn halt(&mut self, reason: &str, now: Timestamp) -> BatchError {
        tracing::error!(group = H::GROUP, reason, "the group stops");
        match halts::halt(&self.runtime.journal.pool, H::GROUP, reason, now).await {
            Ok(()) => {
                self.flood.reset();
                BatchError::Halted
            }
            Err(error) => error.into(),
        }
    }
}

/// What can be applied, what can't, and what waits behind that.
fn sort<'a, E>(
    records: &[&'a Record],
    received: Vec<Result<&'a Received<E>, (Code, String)>>,
    mut parked: ParkedKeys,
    rejection: impl Fn((Code, String)) -> Rejection,
) -> Sorted<'a, E> {
    let mut sorted = Sorted { events: Vec::new(), asides: Vec::new() };
    for (record, received) in records.iter().copied().zip(received) {
        // What is not the relay's has no place in the key's history: nothing waits for it, and it waits for nothing.
        if parked.holds(record) && received.as_ref().err().is_none_or(|why| why.0.parks_the_key()) {
            sorted.asides.push(Aside { dead_letter_id: Uuid::now_v7(), record, rejection: None });
            continue;
        }
        match received {
            Ok(received) => sorted.events.push(received),
            Err(why) => {
                if why.0.parks_the_key() {
                    parked.park(record);
                }
                let rejection = Some(rejection(why));
                sorted.asides.push(Aside { dead_letter_id: Uuid::now_v7(), record, rejection });
            }
        }
    }
    sorted
}

fn measure(metrics: &GroupMetrics, records: usize, letters: usize, seconds: f64) {
    #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^52 records")]
    metrics.batch_records.observe(records as f64);
    metrics.batch_seconds.observe(seconds);
    metrics.dead_letters.inc_by(letters as u64);
}
