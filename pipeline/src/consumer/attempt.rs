//! Attempts at letters: all of one, or nothing of it. Each is tried twice at most, together with others and alone.

use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};

use super::{Batch, Handled, Handler, Runtime, rejection};
use crate::dead_letters::Code;
use crate::dead_letters::verdicts::Attempt;
use crate::dead_letters::working::Letter;
use crate::journal::{Foreseen, JournalError, Keys, Loaded, Lock, Statement, Stored, load};
use crate::record::Received;
use crate::supervised::without_panic;

/// Who tries letters, and the time that this happens at.
pub(super) struct Attempter<'a, H> {
    pub(super) runtime: &'a Runtime,
    pub(super) handler: &'a H,
    pub(super) now: Timestamp,
}

/// What letters are tried on.
pub(super) enum On<'a> {
    /// On the rows, inside the caller's transaction.
    Rows(&'a mut PgConnection),
    /// On documents in memory, by that connection where they are not known yet. Nothing is locked or written, so what only the
    /// database refuses is not foreseen.
    Memory(&'a mut PgConnection, &'a mut Foreseen),
}

/// What came of events that were tried as one: whether each changed anything, and what was written because of them; or why they
/// can't be applied.
type Applied = Result<(Vec<bool>, Option<Stored>), (Code, String)>;

impl<H: Handler> Attempter<'_, H> {
    /// Tries to apply letters: together, or, where that can't be, one after the other. Of what can't be applied nothing is
    /// left. Where they are `of_one_key`, nothing is applied behind such a letter, and the answer ends with it. Answers what
    /// came of each, and what was written because of all.
    ///
    /// # Errors
    /// Where the same may work later.
    pub(super) async fn attempt(
        &self,
        mut on: On<'_>,
        letters: &[Letter],
        of_one_key: bool,
    ) -> Result<(Vec<Attempt>, Vec<Stored>), JournalError> {
        let mut received: Vec<_> = letters.iter().map(|letter| letter.record.receive()).collect();
        if let Some(first) = received.iter().position(Result::is_err).filter(|_| of_one_key) {
            received.truncate(first + 1);
        }
        let events: Vec<&Received<H::Event>> = received.iter().flatten().collect();
        if events.len() > 1
            && let Ok((effects, stored)) = self.apply(&mut on, &events).await?
        {
            return Ok((told(received, &effects), stored.into_iter().collect()));
        }
        let (mut attempts, mut all_stored) = (Vec::new(), Vec::new());
        for received in received {
            let applied = match received {
                Ok(event) => self.apply(&mut on, &[&event]).await?,
                Err(why) => Err(why),
            };
            let ends = of_one_key && applied.is_err();
            attempts.push(applied.map(|(effects, stored)| {
                all_stored.extend(stored);
                effects.first() == Some(&true)
            }));
            if ends {
                break;
            }
        }
        Ok((attempts, all_stored))
    }

    /// Applies events as one: all of it, or nothing of it is left.
    async fn apply(&self, on: &mut On<'_>, events: &[&Received<H::Event>]) -> Result<Applied, JournalError> {
        match on {
            On::Rows(connection) => self.apply_to_rows(connection, events).await,
            On::Memory(connection, foreseen) => self.foresee(connection, foreseen, events).await,
        }
    }

    async fn apply_to_rows(
        &self,
        connection: &mut PgConnection,
        events: &[&Received<H::Event>],
    ) -> Result<Applied, JournalError> {
        let mut savepoint = connection.begin().await?;
        match self.write(&mut savepoint, events).await {
            Ok((effects, stored)) => {
                savepoint.commit().await?;
                Ok(Ok((effects, Some(stored))))
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
        let loaded = load(&mut *connection, H::tables(), &self.keys(events), Lock::ForUpdate).await?;
        let Handled { writes, effects } = self.decide(&loaded, events)?;
        let stored =
            self.runtime.journal.write(Statement::default(), loaded, writes, self.now, connection).await?;
        Ok((effects, stored))
    }

    async fn foresee(
        &self,
        connection: &mut PgConnection,
        foreseen: &mut Foreseen,
        events: &[&Received<H::Event>],
    ) -> Result<Applied, JournalError> {
        let loaded = foreseen.load(connection, H::tables(), &self.keys(events)).await?;
        match self.decide(&loaded, events) {
            Ok(Handled { writes, effects }) => {
                foreseen.take_in(writes.changes);
                Ok(Ok((effects, None)))
            }
            Err(error) => match rejection(&error) {
                Some(code) => Ok(Err((code, error.to_string()))),
                None => Err(error),
            },
        }
    }

    fn keys(&self, events: &[&Received<H::Event>]) -> Keys {
        let mut keys = Keys::default();
        events.iter().for_each(|received| self.handler.keys(&received.event, &mut keys));
        keys
    }

    fn decide(&self, loaded: &Loaded, events: &[&Received<H::Event>]) -> Result<Handled, JournalError> {
        let partitions = self.runtime.journal.partitions;
        let batch = Batch { events, now: self.now, partitions, tells_effects: true };
        without_panic(|| self.handler.decide(loaded, &batch))
    }
}

/// What came of letters of which all that hold an event were applied together.
fn told<E>(received: Vec<Result<Received<E>, (Code, String)>>, effects: &[bool]) -> Vec<Attempt> {
    let mut effects = effects.iter();
    received.into_iter().map(|received| received.map(|_| effects.next() == Some(&true))).collect()
}
