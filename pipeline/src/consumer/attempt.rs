//! Attempts at messages: all of one, or nothing of it.

use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};

use super::{Batch, Handled, Handler, Runtime, rejection};
use crate::dead_letters::Code;
use crate::dead_letters::working::Attempt;
use crate::journal::{JournalError, Keys, Loaded, Lock, Statement, Stored, load};
use crate::record::{Received, Record};
use crate::supervised::without_panic;

/// Who tries messages, and the time that this happens at.
pub(super) struct Attempter<'a, H> {
    pub(super) runtime: &'a Runtime,
    pub(super) handler: &'a H,
    pub(super) now: Timestamp,
}

impl<H: Handler> Attempter<'_, H> {
    /// Tries to apply messages inside the caller's transaction: together, or, where that can't be, one after the other. Of
    /// what can't be applied nothing is left in the transaction. Where they are `of_one_key`, nothing is applied behind such
    /// a message, and the answer ends with it. Answers what came of each, and what was written because of all.
    ///
    /// # Errors
    /// Where the same may work later.
    pub(super) async fn attempt(
        &self,
        connection: &mut PgConnection,
        records: impl Iterator<Item = &Record>,
        of_one_key: bool,
    ) -> Result<(Vec<Attempt>, Vec<Stored>), JournalError> {
        let mut received: Vec<_> = records.map(Record::receive).collect();
        if let Some(first) = received.iter().position(Result::is_err).filter(|_| of_one_key) {
            received.truncate(first + 1);
        }
        let events: Vec<&Received<H::Event>> = received.iter().flatten().collect();
        if events.len() > 1
            && let Ok((effects, stored)) = self.apply(connection, &events).await?
        {
            return Ok((told(received, &effects), vec![stored]));
        }
        let (mut attempts, mut all_stored) = (Vec::new(), Vec::new());
        for received in received {
            let applied = match received {
                Ok(event) => self.apply(connection, &[&event]).await?,
                Err(why) => Err(why),
            };
            let ends = of_one_key && applied.is_err();
            attempts.push(applied.map(|(effects, stored)| {
                all_stored.push(stored);
                effects.first() == Some(&true)
            }));
            if ends {
                break;
            }
        }
        Ok((attempts, all_stored))
    }

    /// Applies events as one batch: all of it, or nothing of it is left in the transaction.
    async fn apply(
        &self,
        connection: &mut PgConnection,
        events: &[&Received<H::Event>],
    ) -> Result<Result<(Vec<bool>, Stored), (Code, String)>, JournalError> {
        let mut savepoint = connection.begin().await?;
        match self.write(&mut savepoint, events).await {
            Ok(written) => {
                savepoint.commit().await?;
                Ok(Ok(written))
            }
            Err(error) => {
                let Some(code) = rejection(&error) else { return Err(error) };
                savepoint.rollback().await?;
                Ok(Err((code, error.to_string())))
            }
        }
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        events: &[&Received<H::Event>],
    ) -> Result<(Vec<bool>, Stored), JournalError> {
        let loaded = self.load(&mut *connection, events, Lock::ForUpdate).await?;
        let Handled { writes, effects } = self.decide(&loaded, events)?;
        let stored =
            self.runtime.journal.write(Statement::default(), loaded, writes, self.now, connection).await?;
        Ok((effects, stored))
    }

    /// What would come of messages, each after those before it that can be applied. Nothing is locked or written, so what
    /// only the database refuses is not foreseen.
    ///
    /// # Errors
    /// Where the database fails.
    pub(super) async fn foresee(
        &self,
        connection: &mut PgConnection,
        records: impl Iterator<Item = &Record>,
    ) -> Result<Vec<Attempt>, JournalError> {
        let received: Vec<_> = records.map(Record::receive).collect();
        let events: Vec<&Received<H::Event>> = received.iter().flatten().collect();
        let loaded = self.load(connection, &events, Lock::None).await?;
        match self.decide(&loaded, &events) {
            Ok(handled) => return Ok(told(received, &handled.effects)),
            Err(error) if rejection(&error).is_none() => return Err(error),
            Err(_) => {}
        }
        let mut applied = Vec::new();
        let attempts = received.iter().map(|received| {
            applied.push(received.as_ref().map_err(Clone::clone)?);
            match self.decide(&loaded, &applied) {
                Ok(handled) => Ok(handled.effects.last() == Some(&true)),
                Err(error) => {
                    applied.pop();
                    Err((rejection(&error).unwrap_or(Code::Bug), error.to_string()))
                }
            }
        });
        Ok(attempts.collect())
    }

    async fn load(
        &self,
        connection: &mut PgConnection,
        events: &[&Received<H::Event>],
        lock: Lock,
    ) -> Result<Loaded, sqlx::Error> {
        let mut keys = Keys::default();
        events.iter().for_each(|received| self.handler.keys(&received.event, &mut keys));
        load(connection, H::tables(), &keys, lock).await
    }

    fn decide(&self, loaded: &Loaded, events: &[&Received<H::Event>]) -> Result<Handled, JournalError> {
        let partitions = self.runtime.journal.partitions;
        let batch = Batch { events, now: self.now, partitions, tells_effects: true };
        without_panic(|| self.handler.decide(loaded, &batch))
    }
}

/// What came of messages of which all that hold an event were applied together.
fn told<E>(received: Vec<Result<Received<E>, (Code, String)>>, effects: &[bool]) -> Vec<Attempt> {
    let mut effects = effects.iter();
    received.into_iter().map(|received| received.map(|_| effects.next() == Some(&true))).collect()
}
