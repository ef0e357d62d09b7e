//! Applies letters from their rows: what replays have selected, and what waited behind a letter that is done with.
//!
//! Each letter is a transaction of its own with its verdict, so a process that dies in the middle leaves exact
//! verdicts behind, and the next one goes on. The key's row in `parked_key` is locked meanwhile: the consumer of the same
//! group, wherever it runs, waits with later messages of the key, and finds them released or puts them aside.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};

use super::attempt::{Attempt, attempt};
use super::{Appended, Handled, Handler, HandlerError, Runtime};
use crate::dead_letters::working::{self, Head, Key, NextItem, Work};
use crate::dead_letters::{Code, Rejection, State, Verdict, aside};
use crate::log::{self, Entry};
use crate::retry::Retry;
use crate::{database, metrics::GroupLabel};

/// How often the rows are looked at while there is nothing to do.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How many messages that waited are applied in one transaction.
const RELEASED_MAX: i64 = 100;

/// Works until shutdown. Never gives up.
pub(super) async fn run<H: Handler>(runtime: Runtime, handler: Arc<H>) {
    let replayer = Replayer { runtime: &runtime, handler: handler.as_ref() };
    let mut retry = Retry::forever(LOOK_EVERY, Duration::from_secs(5));
    while !runtime.shutdown.is_cancelled() {
        let pause = match replayer.turn().await {
            Ok(true) => {
                retry.succeeded();
                continue;
            }
            Ok(false) => LOOK_EVERY,
            Err(error) => {
                let delay = retry.next_delay();
                tracing::warn!(group = H::GROUP, %error, delay_ms = delay.as_millis(), "dead letters are looked at later");
                delay
            }
        };
        tokio::select! {
            () = runtime.shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Replayer<'a, H> {
    runtime: &'a Runtime,
    handler: &'a H,
}

/// What a transaction has appended, for after its commit.
#[derive(Default)]
struct Effects {
    entries: Vec<Entry>,
}

impl<H: Handler> Replayer<'_, H> {
    /// Does one thing, if there is one to do.
    async fn turn(&self) -> Result<bool, HandlerError> {
        Ok(self.release().await? || self.replay().await?)
    }

    /// Applies what waits for a key whose letter is done with.
    async fn release(&self) -> Result<bool, HandlerError> {
        let now = self.runtime.clock.now();
        let mut transaction = database::begin(&self.runtime.pool).await?;
        let Some(key) = working::releasing_key(&mut transaction, H::GROUP).await? else { return Ok(false) };
        let waiting = working::waiting(&mut transaction, H::GROUP, &key, RELEASED_MAX).await?;
        let mut effects = Effects::default();
        let released = self.apply_waiting(&mut transaction, &key, &waiting, &mut effects, now).await?;
        // The key's row is locked, so nothing comes to wait meanwhile.
        if released && waiting.len() < usize::try_from(RELEASED_MAX).unwrap_or(usize::MAX) {
            working::unpark(&mut transaction, H::GROUP, &key).await?;
        }
        let appended = self.append(&mut transaction, effects, now).await?;
        transaction.commit().await?;
        self.announce(appended);
        Ok(true)
    }

    /// Applies messages of a key, in order, up to the first that fails, for which the key is parked then. Whether all were
    /// applied.
    async fn apply_waiting(
        &self,
        connection: &mut PgConnection,
        key: &Key,
        waiting: &[Work],
        effects: &mut Effects,
        now: Timestamp,
    ) -> Result<bool, HandlerError> {
        for work in waiting {
            match attempt(self.runtime, self.handler, &mut *connection, &work.record, now).await? {
                Attempt::Applied(handled) => {
                    let had_effect = handled.had_effect;
                    effects.entries.extend(handled.entries);
                    working::resolve(&mut *connection, work.dead_letter_id, None, had_effect, now).await?;
                }
                Attempt::Failed(code, error) => {
                    self.log_failure(work, code, &error);
                    working::fail(&mut *connection, work.dead_letter_id, code, &error, now).await?;
                    working::park_for(&mut *connection, H::GROUP, key, work.dead_letter_id).await?;
                    effects.entries.push(letter_entry::<H>(work, code, error, now));
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Tries the next letter that a replay wants.
    async fn replay(&self) -> Result<bool, HandlerError> {
        let now = self.runtime.clock.now();
        let mut transaction = database::begin(&self.runtime.pool).await?;
        let Some(item) = working::next_item(&mut transaction, H::GROUP, now).await? else { return Ok(false) };
        let (work, head) = working::lock(&mut transaction, H::GROUP, item.dead_letter_id).await?;
        if work.state == State::Waiting && head.as_ref().is_some_and(|head| head.releasing) {
            // Its turn comes with the others of its key, which is the next thing to do.
            return Ok(true);
        }
        let mut effects = Effects::default();
        let (verdict, detail) = if item.dry_run {
            let mut attempt = transaction.begin().await?;
            let outcome = self.would(&mut attempt, &item, &work, head, now).await?;
            attempt.rollback().await?;
            outcome
        } else {
            self.decide(&mut transaction, &item, &work, &mut effects, now).await?
        };
        working::decide(&mut transaction, &item, verdict, detail.as_deref(), now).await?;
        let appended = self.append(&mut transaction, effects, now).await?;
        transaction.commit().await?;
        tracing::info!(
            group = H::GROUP,
            replay_id = %item.replay_id,
            dead_letter_id = %item.dead_letter_id,
            order_id = ?work.record.correlation_id(),
            dry_run = item.dry_run,
            verdict = verdict.name(),
            detail,
            "dead letter replayed"
        );
        self.announce(appended);
        Ok(true)
    }

    async fn decide(
        &self,
        connection: &mut PgConnection,
        item: &NextItem,
        work: &Work,
        effects: &mut Effects,
        now: Timestamp,
    ) -> Result<(Verdict, Option<String>), HandlerError> {
        match work.state {
            State::Waiting => return Ok((Verdict::Waiting, None)),
            State::Resolved => return Ok((work.verdict_in(item), None)),
            State::Discarded => return Ok((Verdict::FailedAgain, Some(DISCARDED.to_owned()))),
            State::Parked | State::Replayed => {}
        }
        match attempt(self.runtime, self.handler, &mut *connection, &work.record, now).await? {
            Attempt::Applied(handled) => {
                let Handled { entries, had_effect } = handled;
                effects.entries.extend(entries);
                let replay_id = Some(item.replay_id);
                working::resolve(&mut *connection, work.dead_letter_id, replay_id, had_effect, now).await?;
                working::release(connection, work.dead_letter_id).await?;
                Ok((Verdict::of_effect(had_effect), None))
            }
            Attempt::Failed(code, error) => {
                working::fail(connection, work.dead_letter_id, code, &error, now).await?;
                Ok((Verdict::FailedAgain, Some(format!("{}: {error}", code.name()))))
            }
        }
    }

    /// What a replay would make of a letter. The caller rolls back.
    async fn would(
        &self,
        connection: &mut PgConnection,
        item: &NextItem,
        work: &Work,
        head: Option<Head>,
        now: Timestamp,
    ) -> Result<(Verdict, Option<String>), HandlerError> {
        let mut effects = Effects::default();
        if work.state != State::Waiting {
            return self.decide(connection, item, work, &mut effects, now).await;
        }
        // It would be released by its letter, if the replay has that, too, and all before it can be applied.
        let Some(head) = head.map(|head| head.dead_letter_id) else { return Ok((Verdict::Waiting, None)) };
        if !working::is_selected(&mut *connection, item.replay_id, head).await? {
            return Ok((Verdict::Waiting, None));
        }
        let (first, _) = working::lock(&mut *connection, H::GROUP, head).await?;
        let (verdict, _) = self.decide(&mut *connection, item, &first, &mut effects, now).await?;
        if !matches!(verdict, Verdict::Applied | Verdict::AlreadyApplied) {
            return Ok((Verdict::Waiting, None));
        }
        let before = working::waiting_upto(&mut *connection, H::GROUP, work).await?;
        for each in &before {
            match attempt(self.runtime, self.handler, &mut *connection, &each.record, now).await? {
                Attempt::Applied(handled) if each.dead_letter_id == work.dead_letter_id => {
                    return Ok((Verdict::of_effect(handled.had_effect), None));
                }
                Attempt::Applied(_) => {}
                Attempt::Failed(code, error) if each.dead_letter_id == work.dead_letter_id => {
                    return Ok((Verdict::FailedAgain, Some(format!("{}: {error}", code.name()))));
                }
                Attempt::Failed(..) => return Ok((Verdict::Waiting, None)),
            }
        }
        Ok((Verdict::Waiting, None))
    }

    async fn append(
        &self,
        connection: &mut PgConnection,
        effects: Effects,
        now: Timestamp,
    ) -> Result<Vec<Appended>, HandlerError> {
        let follow_up = effects.entries.iter().filter(|entry| H::follows_up(entry));
        let appended = follow_up.map(|entry| Appended { event_id: entry.event_id, entry: entry.clone() });
        let appended = appended.collect();
        log::append(connection, effects.entries, now).await?;
        Ok(appended)
    }

    fn announce(&self, appended: Vec<Appended>) {
        self.runtime.wake.wake();
        if !appended.is_empty() {
            self.handler.committed(appended);
        }
    }

    fn log_failure(&self, work: &Work, code: Code, error: &str) {
        let label = GroupLabel { group: H::GROUP.to_owned() };
        self.runtime.metrics.dead_letters.get_or_create(&label).inc();
        tracing::error!(
            group = H::GROUP,
            dead_letter_id = %work.dead_letter_id,
            order_id = ?work.record.correlation_id(),
            code = code.name(),
            error,
            "a message that waited behind a dead letter failed"
        );
    }
}

/// Why a replay does not apply what was selected before it was discarded.
const DISCARDED: &str = "it has been discarded meanwhile";

/// What the dead-letter topic is told of a message that waited and has failed now.
fn letter_entry<H: Handler>(work: &Work, code: Code, error: String, now: Timestamp) -> Entry {
    let rejection = Rejection {
        code,
        error,
        attempts: work.attempts + 1,
        first_failed_at: work.first_failed_at.unwrap_or(now),
        last_failed_at: now,
    };
    aside::entry(work.dead_letter_id, H::GROUP, &work.record, &rejection)
}
