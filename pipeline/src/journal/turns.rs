//! Turns: who in this process changes the same documents does it one after another.
//!
//! Of two who decide at once from what is remembered, one has decided in vain. Where that has happened lately, whoever wants to
//! decide waits here until nobody before has any of the same documents. It costs no connection and no lock in the database, and what is decided
//! from is remembered by then as the one before has left it. So whoever has the turn may have to wait for a connection yet, and all behind it wait as well:
//! those who decide must not have to wait for anybody who only reads (`Journal::over`).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::load::Key;

/// Who has turns, and who waits. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    queues: Arc<Mutex<Queues>>,
}

/// A turn at some documents, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Turns,
    ticket: u64,
    keys: BTreeSet<Key>,
    has_waited: bool,
}

#[derive(Debug, Default)]
struct Queues {
    last_ticket: u64,
    /// Of each document, the tickets in their order. The first is the one whose turn it may be.
    of: HashMap<Key, VecDeque<u64>>,
    waiting: HashMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// At how many documents others are before it.
    behind: usize,
    called: oneshot::Sender<()>,
}

impl Turns {
    /// Waits for the turn at all of these. Tickets for all of them are drawn at once, so nobody waits in a circle.
    pub(super) async fn take(&self, keys: BTreeSet<Key>) -> Turn {
        let (ticket, called) = self.lock().draw(&keys);
        let turn = Turn { turns: self.clone(), ticket, keys, has_waited: called.is_some() };
        if let Some(called) = called {
            // It is called or dropped with its ticket, which only this turn does.
            let _ = called.await;
        }
        turn
    }

    /// What it guards is whole after each of its steps.
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Whether it is the turn at all of these.
    pub(super) fn is_at(&self, keys: &BTreeSet<Key>) -> bool {
        keys.is_subset(&self.keys)
    }

    /// Whether somebody else was before it.
    pub(super) fn has_waited(&self) -> bool {
        self.has_waited
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().leave(self.ticket, &self.keys);
    }
}

impl Queues {
    /// A ticket, and the call to wait for where others are before it.
    fn draw(&mut self, keys: &BTreeSet<Key>) -> (u64, Option<oneshot::Receiver<()>>) {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let mut behind = 0;
        for key in keys {
            let queue = self.of.entry(*key).or_default();
            behind += usize::from(!queue.is_empty());
            queue.push_back(ticket);
        }
        let wait = (behind > 0).then(|| {
            let (called, call) = oneshot::channel();
            self.waiting.insert(ticket, Waiting { behind, called });
            call
        });
        (ticket, wait)
    }

    /// Whoever has that ticket goes, after its turn or before, and those come up who were behind it.
    fn leave(&mut self, ticket: u64, keys: &BTreeSet<Key>) {
        self.waiting.remove(&ticket);
        for key in keys {
            let Some(queue) = self.of.get_mut(key) else { continue };
            let was_first = queue.front() == Some(&ticket);
            queue.retain(|other| *other != ticket);
            let next = queue.front().copied();
            if next.is_none() {
                self.of.remove(key);
            }
            if let Some(next) = next.filter(|_| was_first) {
                self.come_up(next);
            }
        }
    }

    fn come_up(&mut self, ticket: u64) {
        let Some(waiting) = self.waiting.get_mut(&ticket) else { return };
        waiting.behind -= 1;
        if waiting.behind == 0
            && let Some(Waiting { called, .. }) = self.waiting.remove(&ticket)
        {
            // Who has gone meanwhile leaves by its own drop.
            let _ = called.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    fn keys(of: &[u128]) -> BTreeSet<Key> {
        of.iter().map(|key| ("cups", Uuid::from_u128(*key))).collect()
    }

    #[tokio::test]
    async fn whoever_wants_the_same_waits_and_nobody_else() {
        let turns = Turns::default();
        let first = turns.take(keys(&[1, 2])).await;
        let mut second = Box::pin(turns.take(keys(&[2, 3])));
        assert!((&mut second).now_or_never().is_none());
        let other = turns.take(keys(&[4])).now_or_never().expect("nobody else has it");
        assert!(!first.has_waited() && !other.has_waited());
        // Nobody overtakes the second where it still waits.
        let mut third = Box::pin(turns.take(keys(&[3])));
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        let second = (&mut second).now_or_never().expect("it is its turn");
        assert!(second.has_waited() && second.is_at(&keys(&[3])) && !second.is_at(&keys(&[1])));
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        assert!((&mut third).now_or_never().is_some());
        drop((third, other));
        let queues = turns.lock();
        assert!(queues.of.is_empty() && queues.waiting.is_empty());
    }

    #[tokio::test]
    async fn whoever_gives_up_holds_nobody_up() {
        let turns = Turns::default();
        let first = turns.take(keys(&[1])).await;
        let mut second = Box::pin(turns.take(keys(&[1, 2])));
        let mut third = Box::pin(turns.take(keys(&[2])));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        drop(second);
        assert!((&mut third).now_or_never().is_some(), "it had waited for the second alone");
        let mut fourth = Box::pin(turns.take(keys(&[1])));
        assert!((&mut fourth).now_or_never().is_none());
        drop(first);
        assert!((&mut fourth).now_or_never().is_some());
    }
}
