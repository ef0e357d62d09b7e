//! Applies letters from their rows: what replays have selected, and what waited behind a letter that is done with.
//!
//! Letters and their verdicts are one transaction, so a process that dies in the middle leaves exact verdicts behind, and
//! the next one goes on. The keys' rows in `parked_key` are locked meanwhile: the consumer of the same group, wherever it
//! runs, waits with later messages of the key, and finds them released or puts them aside. A dry run locks none of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Level;
use uuid::Uuid;

use super::attempt::{Attempter, On};
use super::dry_run::{DryRuns, Foretold};
use super::{Handler, Runtime};
use crate::dead_letters::verdicts::{Decision, Sifted};
use crate::dead_letters::working::{self, Letter, Task, Work};
use crate::dead_letters::{Code, Rejection, Verdict, aside, halts};
use crate::journal::{JournalError, Loaded, Statement, Stored, Writes};
use crate::metrics::GroupLabel;
use crate::pulse::Pulse;
use crate::retry::Retry;

/// How often the rows are looked at while there is nothing to do, but letters that are not done with.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The same while there are none.
const LOOK_SELDOM: Duration = Duration::from_secs(2);
/// How often the figures of what is put aside are brought up to date.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// How many letters are applied in one transaction.
const LETTERS_MAX: i64 = 100;

/// Works until shutdown. Never gives up.
pub(super) async fn run<H: Handler>(runtime: Runtime, handler: Arc<H>, pulse: Pulse) {
    let mut replayer = Replayer {
        runtime: &runtime,
        handler: handler.as_ref(),
        has_rate: false,
        any_letters: false,
        dry_runs: DryRuns::default(),
    };
    let mut retry = Retry::forever(LOOK_EVERY, Duration::from_secs(5));
    let mut counted_at: Option<Instant> = None;
    while !runtime.shutdown.is_cancelled() {
        if counted_at.is_none_or(|at| at.elapsed() > COUNT_EVERY) {
            counted_at = Some(Instant::now());
            count::<H>(&runtime).await;
        }
        let turn = replayer.turn().await;
        if turn.is_ok() {
            pulse.works();
        }
        let pause = match turn {
            Ok(true) => {
                retry.succeeded();
                continue;
            }
            Ok(false) => replayer.until_due().await,
            Err(JournalError::Unlearnt(words))
                if runtime.journal.learn(words.iter().map(String::as_str)).await.is_ok() =>
            {
                continue;
            }
            Err(error) => {
                let delay = retry.next_delay();
                let delay_ms = delay.as_millis();
                tracing::warn!(group = H::GROUP, %error, delay_ms, "dead letters are looked at later");
                pulse.fails("dead letters can't be looked at or applied");
                delay
            }
        };
        runtime.shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// Shows how much is put aside. Where the database does not answer, the figures stay.
async fn count<H: Handler>(runtime: &Runtime) {
    let Ok((open, halted)) = halts::figures(&runtime.journal.pool, H::GROUP).await else { return };
    let label = GroupLabel { group: H::GROUP.to_owned() };
    runtime.metrics.dead_letters_open.get_or_create(&label).set(open);
    runtime.metrics.halted.get_or_create(&label).set(halted.into());
}

struct Replayer<'a, H> {
    runtime: &'a Runtime,
    handler: &'a H,
    /// What was replayed last takes only so many letters a second.
    has_rate: bool,
    /// There are letters that are not done with.
    any_letters: bool,
    dry_runs: DryRuns,
}

impl<'a, H: Handler> Replayer<'a, H> {
    /// Does one thing, if there is one to do.
    async fn turn(&mut self) -> Result<bool, JournalError> {
        let working::Ahead { any_work, any_letters } =
            working::ahead(&self.runtime.journal.pool, H::GROUP).await?;
        self.any_letters = any_letters;
        if !any_work {
            self.dry_runs = DryRuns::default();
        }
        Ok(any_work && (self.release().await? || self.replay().await?))
    }

    /// How long there is nothing to do: where a replay has a rate, until its next letter.
    async fn until_due(&mut self) -> Duration {
        if !self.has_rate {
            return if self.any_letters { LOOK_EVERY } else { LOOK_SELDOM };
        }
        let due = working::next_due(&self.runtime.journal.pool, H::GROUP).await.unwrap_or_default();
        self.has_rate = due.is_some();
        let wait = due.map(|due| due.duration_since(self.runtime.journal.now()));
        wait.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
    }

    async fn begin(&self) -> Result<(Work, Attempter<'a, H>), JournalError> {
        let now = self.runtime.journal.now();
        let transaction = self.runtime.journal.begin().await?;
        let work = Work { transaction, group: H::GROUP.to_owned(), now };
        Ok((work, Attempter { runtime: self.runtime, handler: self.handler, now }))
    }

    /// Applies what waits for a key whose letter is done with, in order, up to the first that fails, for which the key is parked
    /// then.
    async fn release(&self) -> Result<bool, JournalError> {
        let (mut work, attempts) = self.begin().await?;
        let Some(key) = work.releasing_key().await? else { return Ok(false) };
        let waiting = work.waiting(&key, LETTERS_MAX).await?;
        let (outcomes, mut stored) =
            attempts.attempt(On::Rows(&mut work.transaction), &waiting, true).await?;
        let applied = work.settle(&waiting, &outcomes, None).await?.len();
        // The key's row is locked, so nothing comes to wait meanwhile.
        let all_applied = applied == waiting.len() && (applied as u64) < LETTERS_MAX.unsigned_abs();
        if all_applied {
            work.unpark(&key).await?;
        }
        let mut failures =
            waiting.iter().zip(outcomes).filter_map(|(letter, outcome)| Some((letter, outcome.err()?)));
        if let Some((letter, (code, error))) = failures.next() {
            work.park_for(&key, letter.dead_letter_id).await?;
            stored.push(self.tell_of(&mut work, letter, code, error).await?);
        }
        work.transaction.commit().await?;
        tracing::info!(
            group = H::GROUP,
            applied,
            all_applied,
            "messages that waited behind a dead letter applied"
        );
        stored.into_iter().for_each(|stored| self.runtime.committed(self.handler, stored));
        Ok(true)
    }

    /// Tries the next letters that a replay wants.
    async fn replay(&mut self) -> Result<bool, JournalError> {
        let (mut work, attempts) = self.begin().await?;
        let Some(task) = work.next_task(LETTERS_MAX).await? else { return Ok(false) };
        self.has_rate = task.has_rate;
        if task.dry_run {
            return self.foresee(work, &attempts, &task).await;
        }
        let letters = work.lock(&task.dead_letter_ids).await?;
        let (decisions, stored) = decide(&mut work, &attempts, &task, letters).await?;
        work.decide(&task, &decisions).await?;
        work.transaction.commit().await?;
        self.log_decisions(&task, &decisions);
        stored.into_iter().for_each(|stored| self.runtime.committed(self.handler, stored));
        Ok(true)
    }

    /// Says what would come of the next letters that a replay wants. Answers whether it has come any further.
    async fn foresee(
        &mut self,
        mut work: Work,
        attempts: &Attempter<'_, H>,
        task: &Task,
    ) -> Result<bool, JournalError> {
        let Foretold { decisions, went_on } = self.dry_runs.decide(&mut work, attempts, task).await?;
        if decisions.is_empty() {
            // Of its rate nothing is used up.
            work.transaction.rollback().await?;
            return Ok(went_on);
        }
        work.decide(task, &decisions).await?;
        work.transaction.commit().await?;
        self.log_decisions(task, &decisions);
        Ok(true)
    }

    /// Tells operators and the dead-letter topic of a message that waited and has failed now; answers what was stored.
    async fn tell_of(
        &self,
        work: &mut Work,
        letter: &Letter,
        code: Code,
        error: String,
    ) -> Result<Stored, JournalError> {
        let label = GroupLabel { group: H::GROUP.to_owned() };
        self.runtime.metrics.dead_letters.get_or_create(&label).inc();
        tracing::error!(
            group = H::GROUP,
            dead_letter_id = %letter.dead_letter_id,
            correlation_id = ?letter.record.correlation_id(),
            code = code.name(),
            error = code.told(&error),
            "a message that waited behind a dead letter failed"
        );
        let (first_failed_at, last_failed_at) = (work.now, work.now);
        let rejection = Rejection { code, error, attempts: 1, first_failed_at, last_failed_at };
        let entry = aside::entry(letter.dead_letter_id, H::GROUP, &letter.record, &rejection);
        let told = Writes { entries: vec![entry], ..Writes::default() };
        let journal = &self.runtime.journal;
        journal.write(Statement::default(), Loaded::default(), told, work.now, &mut *work.transaction).await
    }

    fn log_decisions(&self, task: &Task, decisions: &[Decision]) {
        for Decision { dead_letter_id, verdict, detail } in decisions {
            let (replay_id, dry_run, verdict) = (task.replay_id, task.dry_run, verdict.name());
            // Why one has failed stands with the replay: that may quote the message.
            if tracing::enabled!(Level::DEBUG) || detail.is_some() {
                tracing::info!(group = H::GROUP, %replay_id, %dead_letter_id, dry_run, verdict, "replayed");
            }
        }
        let count = decisions.len();
        tracing::info!(group = H::GROUP, replay_id = %task.replay_id, dry_run = task.dry_run, count, "letters replayed");
    }
}

/// Applies letters, and says what came of each.
async fn decide<H: Handler>(
    work: &mut Work,
    attempts: &Attempter<'_, H>,
    task: &Task,
    letters: Vec<Letter>,
) -> Result<(Vec<Decision>, Vec<Stored>), JournalError> {
    let Sifted { mut decisions, failed, waiting } = Sifted::of(task, letters);
    // What waits behind a letter that is being tried or released is left for later.
    let is_tried = |id: Uuid| failed.iter().any(|letter| letter.dead_letter_id == id);
    let is_left = |letter: &&Letter| !letter.waits_for.is_some_and(is_tried);
    let waits = |letter: &Letter| Decision::plain(letter.dead_letter_id, Verdict::Waiting);
    decisions.extend(waiting.iter().filter(is_left).map(waits));
    let (outcomes, stored) = attempts.attempt(On::Rows(&mut work.transaction), &failed, false).await?;
    let applied = work.settle(&failed, &outcomes, Some(task.replay_id)).await?;
    work.release(&applied).await?;
    decisions.extend(failed.iter().zip(outcomes).map(|(letter, outcome)| Decision::of(letter, outcome)));
    Ok((decisions, stored))
}
