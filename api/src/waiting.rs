//! Waiting until an order, a claim or a replay has come to rest, for all who wait with one query.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ordermill_pipeline::dead_letters::replays;
use ordermill_store::{coupons, orders};
use prometheus_client::metrics::gauge::Gauge;
use sqlx::PgPool;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The pause between two looks at the database while orders come to rest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause while none does.
const PAUSE_MAX: Duration = Duration::from_millis(25);
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

    /// The shortest and the longest pause between two looks.
    const fn pauses(self) -> (Duration, Duration) {
        match self {
            Awaited::Orders | Awaited::Claims => (PAUSE_MIN, PAUSE_MAX),
            Awaited::Replays => (PAUSE_FOR_REPLAYS, PAUSE_FOR_REPLAYS),
        }
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
        drop(waiters);
        self.count.inc();
        self.arrived.notify_one();
        (Ticket { waiting: self, id, number }, receiver)
    }

    fn awaited(&self) -> Vec<Uuid> {
        self.lock().by_id.keys().copied().collect()
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
    pub(crate) async fn run(self, pool: PgPool) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.watch(&pool)).await;
    }

    async fn watch(&self, pool: &PgPool) {
        let (pause_min, pause_max) = self.what.pauses();
        let mut pause = pause_min;
        loop {
            let awaited = self.awaited();
            if awaited.is_empty() {
                self.arrived.notified().await;
                pause = pause_min;
                continue;
            }
            pause = match self.what.resting(pool, &awaited).await {
                Ok(resting) if resting.is_empty() => (pause * 3 / 2).min(pause_max),
                Ok(resting) => {
                    self.release(&resting);
                    pause_min
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot see what has come to rest");
                    PAUSE_AFTER_ERROR
                }
            };
            tokio::time::sleep(pause).await;
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
