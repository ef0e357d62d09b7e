//! Waiting until an order, a claim or a replay has come to rest, for all who wait with one query.
//!
//! What this process commits is told to it, and those who wait for it are looked for at once. What other processes commit is not,
//! so all are looked for now and then: often where that finds anything, seldom where it does not.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ordermill_pipeline::dead_letters::replays;
use ordermill_pipeline::wake::Changed;
use ordermill_store::{coupons, orders};
use prometheus_client::metrics::gauge::Gauge;
use sqlx::PgPool;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Notify, broadcast, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The pause between two looks at all that is awaited while other processes bring any of it to rest.
const PAUSE: Duration = Duration::from_millis(20);
/// The same while only this process does.
const PAUSE_IF_TOLD: Duration = Duration::from_millis(500);
/// How long after other processes have brought something to rest they may do so again at any time.
const OTHERS_FOR: Duration = Duration::from_secs(10);
/// The pause for replays, of which few people wait for few, and which take long.
const PAUSE_FOR_REPLAYS: Duration = Duration::from_millis(200);
/// The pause after the database failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Awaited {
    /// Orders, until they rest.
    Orders,
    /// Claims of coupons, until they are decided.
    Claims,
    /// Replays of dead letters, until every letter has its verdict.
    Replays,
}

impl Awaited {
    /// Which of them have come to rest.
    async fn resting(self, pool: &PgPool, ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
        match self {
            Awaited::Orders => orders::resting(pool, ids).await,
            Awaited::Claims => coupons::decided(pool, ids).await,
            Awaited::Replays => replays::done(pool, ids).await,
        }
    }

    /// The pause between two looks at all of them, where what comes to rest is told here, and where it is not.
    const fn pause(self, is_told: bool) -> Duration {
        match self {
            Awaited::Orders | Awaited::Claims if is_told => PAUSE_IF_TOLD,
            Awaited::Orders | Awaited::Claims => PAUSE,
            Awaited::Replays => PAUSE_FOR_REPLAYS,
        }
    }
}

/// Who brings to rest what is awaited, as far as looks have shown it.
#[derive(Debug, Default)]
struct Seen {
    /// This process was told of something that had come to rest.
    is_told: bool,
    /// What looks have found at rest before this process was told of it. It may be on its way.
    untold: HashSet<Uuid>,
    /// When something was found of which it was never told.
    others_at: Option<Instant>,
}

impl Seen {
    /// This process was told that these have changed.
    fn told(&mut self, changed: &HashSet<Uuid>) {
        self.untold.retain(|id| !changed.contains(id));
    }

    /// All that is awaited is looked at again: what was found by the last look has been told since, or never is.
    fn looks_again(&mut self, now: Instant) {
        if !std::mem::take(&mut self.untold).is_empty() {
            self.others_at = Some(now);
        }
    }

    /// Whether it is enough to look seldom at what nobody has told of.
    fn is_enough_told(&self, now: Instant) -> bool {
        self.is_told && self.others_at.is_none_or(|at| now.duration_since(at) > OTHERS_FOR)
    }
}

/// Who waits for which order, claim or replay. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    what: Awaited,
    waiters: Arc<Mutex<Waiters>>,
    arrived: Arc<Notify>,
    stop: CancellationToken,
    count: Gauge,
}

#[derive(Debug, Default)]
struct Waiters {
    next_ticket: u64,
    /// Nobody has looked for these yet: they may have come to rest before anybody waited for them.
    entered: HashSet<Uuid>,
    /// Since when there are such.
    entered_at: Option<Instant>,
    by_id: HashMap<Uuid, Vec<(u64, oneshot::Sender<()>)>>,
}

/// A place among those who wait, given up when it is dropped: at the end, or when the client has gone.
struct Ticket<'a> {
    waiting: &'a Waiting,
    id: Uuid,
    number: u64,
}

impl Waiting {
    /// Nobody waits yet; every wait ends with `stop`.
    pub(crate) fn new(what: Awaited, count: Gauge, stop: CancellationToken) -> Waiting {
        Waiting { what, waiters: Arc::default(), arrived: Arc::default(), stop, count }
    }

    /// Returns when it rests, `at_most` is over, or the process stops; the caller looks which.
    pub(crate) async fn until_rest(&self, id: Uuid, at_most: Duration) {
        let (_ticket, rested) = self.enter(id);
        tokio::select! {
            // An error is as good as rest: the caller looks in both cases.
            _ = rested => {}
            () = tokio::time::sleep(at_most) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn enter(&self, id: Uuid) -> (Ticket<'_>, oneshot::Receiver<()>) {
        let (rested, receiver) = oneshot::channel();
        let mut waiters = self.lock();
        let number = waiters.next_ticket;
        waiters.next_ticket += 1;
        waiters.by_id.entry(id).or_default().push((number, rested));
        waiters.entered.insert(id);
        waiters.entered_at.get_or_insert_with(Instant::now);
        drop(waiters);
        self.count.inc();
        self.arrived.notify_one();
        (Ticket { waiting: self, id, number }, receiver)
    }

    /// All that is awaited.
    fn awaited(&self) -> Vec<Uuid> {
        let mut waiters = self.lock();
        (waiters.entered, waiters.entered_at) = (HashSet::new(), None);
        waiters.by_id.keys().copied().collect()
    }

    /// What is awaited of these, and what nobody has looked for yet.
    fn awaited_of(&self, changed: &HashSet<Uuid>) -> Vec<Uuid> {
        let mut waiters = self.lock();
        waiters.entered_at = None;
        let entered = std::mem::take(&mut waiters.entered);
        changed.union(&entered).filter(|id| waiters.by_id.contains_key(id)).copied().collect()
    }

    fn is_any_awaited(&self) -> bool {
        !self.lock().by_id.is_empty()
    }

    fn release(&self, resting: &[Uuid]) {
        let mut waiters = self.lock();
        for id in resting {
            for (_, rested) in waiters.by_id.remove(id).unwrap_or_default() {
                // A waiter who has just left needs no word.
                let _ = rested.send(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks which of the awaited have come to rest, until the stop. Asks nothing while nobody waits.
    pub(crate) async fn run(self, pool: PgPool, changes: broadcast::Receiver<Changed>) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.watch(&pool, changes)).await;
    }

    async fn watch(&self, pool: &PgPool, mut changes: broadcast::Receiver<Changed>) {
        let (mut seen, mut looked_at) = (Seen::default(), Instant::now());
        loop {
            if !self.is_any_awaited() {
                self.arrived.notified().await;
                // What has changed meanwhile is of no interest, and there may be much of it.
                changes = changes.resubscribe();
            }
            let all_at = looked_at + self.what.pause(seen.is_enough_told(Instant::now()));
            let look_at = self.lock().entered_at.map_or(all_at, |at| all_at.min(at + PAUSE));
            let changed = tokio::select! {
                changed = heard(&mut changes) => changed,
                () = tokio::time::sleep_until(look_at.into()) => {
                    (Instant::now() < all_at).then(HashSet::new)
                }
                () = self.arrived.notified() => continue,
            };
            let awaited = match &changed {
                Some(changed) => {
                    seen.told(changed);
                    self.awaited_of(changed)
                }
                None => {
                    looked_at = Instant::now();
                    seen.looks_again(looked_at);
                    self.awaited()
                }
            };
            if awaited.is_empty() {
                continue;
            }
            match self.what.resting(pool, &awaited).await {
                Ok(resting) => {
                    self.release(&resting);
                    match changed {
                        Some(changed) => seen.is_told |= resting.iter().any(|id| changed.contains(id)),
                        None => seen.untold.extend(resting),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot see what has come to rest");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    // Those that were told of are looked for with all others then.
                    seen.is_told = false;
                }
            }
        }
    }
}

/// What has changed since this was last asked; `None` where not all of it could be told.
async fn heard(changes: &mut broadcast::Receiver<Changed>) -> Option<HashSet<Uuid>> {
    let mut all = match changes.recv().await {
        Ok(changed) => HashSet::from_iter(changed.iter().copied()),
        Err(RecvError::Lagged(_)) => return None,
        // Nobody commits any more in this process.
        Err(RecvError::Closed) => std::future::pending().await,
    };
    loop {
        match changes.try_recv() {
            Ok(changed) => all.extend(changed.iter().copied()),
            Err(TryRecvError::Lagged(_)) => return None,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(all),
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut waiters = self.waiting.lock();
        if let Some(tickets) = waiters.by_id.get_mut(&self.id) {
            tickets.retain(|(number, _)| *number != self.number);
            if tickets.is_empty() {
                waiters.by_id.remove(&self.id);
                waiters.entered.remove(&self.id);
            }
        }
        self.waiting.count.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn waiting() -> Waiting {
        Waiting::new(Awaited::Orders, Gauge::default(), CancellationToken::new())
    }

    #[tokio::test]
    async fn all_who_wait_for_an_order_hear_of_its_rest_and_no_one_else() {
        let (waiting, order_id) = (waiting(), Uuid::now_v7());
        let (_first_ticket, first) = waiting.enter(order_id);
        let (_second_ticket, second) = waiting.enter(order_id);
        let (_other_ticket, mut other) = waiting.enter(Uuid::now_v7());
        waiting.release(&[order_id]);
        assert_eq!((first.await, second.await), (Ok(()), Ok(())));
        assert!(other.try_recv().is_err());
        assert_eq!(waiting.awaited().len(), 1);
    }

    #[tokio::test]
    async fn who_leaves_is_waited_for_no_more() {
        let (waiting, order_id) = (waiting(), Uuid::now_v7());
        let (first_ticket, _first) = waiting.enter(order_id);
        let (second_ticket, _second) = waiting.enter(order_id);
        drop(first_ticket);
        assert_eq!(waiting.awaited(), [order_id]);
        drop(second_ticket);
        assert!(waiting.awaited().is_empty());
        assert_eq!(waiting.count.get(), 0);
    }

    #[test]
    fn it_is_enough_to_look_seldom_while_all_that_comes_to_rest_is_told() {
        let (mut seen, id, now) = (Seen::default(), Uuid::now_v7(), Instant::now());
        assert!(!seen.is_enough_told(now), "before anything was told");
        seen.is_told = true;
        assert!(seen.is_enough_told(now));
        // A look was faster than the word.
        seen.untold.insert(id);
        seen.told(&HashSet::from([id]));
        seen.looks_again(now);
        assert!(seen.is_enough_told(now));
        // The word never came.
        seen.untold.insert(id);
        seen.looks_again(now);
        assert!(!seen.is_enough_told(now + OTHERS_FOR));
        assert!(seen.is_enough_told(now + 2 * OTHERS_FOR));
    }

    #[tokio::test]
    async fn who_has_just_come_is_looked_for_once_and_then_when_there_is_word() {
        let (waiting, order_id, other) = (waiting(), Uuid::now_v7(), Uuid::now_v7());
        let (_ticket, _rested) = waiting.enter(order_id);
        assert_eq!(waiting.awaited_of(&HashSet::from([other])), [order_id]);
        assert!(waiting.awaited_of(&HashSet::from([other])).is_empty());
        assert_eq!(waiting.awaited_of(&HashSet::from([other, order_id])), [order_id]);
    }

    #[tokio::test]
    async fn what_has_changed_is_heard_together_and_what_could_not_be_told_is_known() {
        let wake = ordermill_pipeline::wake::Wake::default();
        let mut changes = wake.listen();
        let ids = [(); 3].map(|()| Uuid::now_v7());
        ids.iter().for_each(|id| wake.changed([*id].into_iter()));
        assert_eq!(heard(&mut changes).await, Some(HashSet::from(ids)));
        for _ in 0..1_000 {
            wake.changed(ids.into_iter());
        }
        assert_eq!(heard(&mut changes).await, None);
    }

    #[tokio::test]
    async fn a_wait_ends_with_its_time_and_with_the_process() {
        let waiting = waiting();
        waiting.until_rest(Uuid::now_v7(), Duration::from_millis(1)).await;
        let started = Instant::now();
        waiting.stop.cancel();
        waiting.until_rest(Uuid::now_v7(), LONG).await;
        assert!(started.elapsed() < LONG);
        assert!(waiting.awaited().is_empty());
    }
}
