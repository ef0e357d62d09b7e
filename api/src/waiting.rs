//! Waiting until an order, a claim or a replay has come to rest, for all who wait with one query.
//!
//! What this process commits is told to it, and those who wait for it are given what was committed: nothing is read for them. What other processes
//! commit is not told, so all are looked for now and then: often where that finds anything, seldom where it does not.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ordermill_domain::aggregate::{self, Aggregate, DocumentError};
use ordermill_domain::coupons::{Claim, ClaimState};
use ordermill_domain::orders::Order;
use ordermill_pipeline::dead_letters::replays;
use ordermill_pipeline::journal::Journal;
use ordermill_pipeline::others::Others;
use ordermill_pipeline::wake::{Changed, ChangedDocument, Wake};
use ordermill_store::{coupons, orders};
use prometheus_client::metrics::gauge::Gauge;
use sqlx::PgPool;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::metrics::ApiMetrics;

/// The pause between two looks at all that is awaited while other processes bring any of it to rest.
const PAUSE: Duration = Duration::from_millis(20);
/// The same while only this process does.
const PAUSE_IF_TOLD: Duration = Duration::from_millis(500);
/// The pause before somebody who has just come is looked for, unless there is a look before.
const PAUSE_IF_ENTERED: Duration = Duration::from_millis(100);
/// The pause for replays, of which few people wait for few, and which take long.
const PAUSE_FOR_REPLAYS: Duration = Duration::from_millis(200);
/// The pause after the database failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// What has come to rest; `None` beside the id of what can't be read.
type Resting<R> = Vec<(Uuid, Option<R>)>;

/// What is waited for.
pub(crate) trait Awaited: Debug + Send + Sync + 'static {
    /// What whoever waits is given.
    type Rested: Clone + Send + 'static;

    /// The documents whose changes may bring it to rest; none where nobody is told of it.
    const NOUN: Option<&'static str> = None;

    /// What whoever waits is given where a document of that noun rests.
    ///
    /// # Errors
    /// Where it can't be read.
    fn rested(_document: &ChangedDocument) -> Result<Option<Self::Rested>, DocumentError> {
        Ok(None)
    }

    /// Those of them that have come to rest.
    fn resting(
        pool: &PgPool,
        ids: &[Uuid],
    ) -> impl Future<Output = Result<Resting<Self::Rested>, sqlx::Error>> + Send;

    /// The pause between two looks at all of them, where what comes to rest is told here, and where it is not.
    fn pause(is_told: bool) -> Duration {
        if is_told { PAUSE_IF_TOLD } else { PAUSE }
    }
}

/// Orders, until they rest.
#[derive(Debug)]
pub(crate) struct RestingOrder;

impl Awaited for RestingOrder {
    type Rested = Order;
    const NOUN: Option<&'static str> = Some(Order::NOUN);

    fn rested(document: &ChangedDocument) -> Result<Option<Order>, DocumentError> {
        let order: Order = read(document)?;
        Ok(Some(order).filter(|order| order.status.is_resting()))
    }

    async fn resting(pool: &PgPool, ids: &[Uuid]) -> Result<Resting<Order>, sqlx::Error> {
        orders::resting(pool, ids).await
    }
}

/// Claims of coupons, until they are decided.
#[derive(Debug)]
pub(crate) struct DecidedClaim;

impl Awaited for DecidedClaim {
    type Rested = ();
    const NOUN: Option<&'static str> = Some(Claim::NOUN);

    fn rested(document: &ChangedDocument) -> Result<Option<()>, DocumentError> {
        let claim: Claim = read(document)?;
        Ok((claim.state != ClaimState::Pending).then_some(()))
    }

    async fn resting(pool: &PgPool, ids: &[Uuid]) -> Result<Resting<()>, sqlx::Error> {
        Ok(coupons::decided(pool, ids).await?.into_iter().map(|id| (id, Some(()))).collect())
    }
}

fn read<A: Aggregate>(document: &ChangedDocument) -> Result<A, DocumentError> {
    aggregate::read(document.key, &document.state, document.bulk.as_deref())
}

/// Replays of dead letters, until every letter has its verdict.
#[derive(Debug)]
pub(crate) struct DoneReplay;

impl Awaited for DoneReplay {
    type Rested = ();

    async fn resting(pool: &PgPool, ids: &[Uuid]) -> Result<Resting<()>, sqlx::Error> {
        Ok(replays::done(pool, ids).await?.into_iter().map(|id| (id, Some(()))).collect())
    }

    fn pause(_is_told: bool) -> Duration {
        PAUSE_FOR_REPLAYS
    }
}

/// Who waits for which order, claim or replay.
#[derive(Debug)]
pub(crate) struct Waiting<A: Awaited> {
    waiters: Mutex<Waiters<A::Rested>>,
    arrived: Notify,
    stop: CancellationToken,
    count: Gauge,
}

#[derive(Debug)]
struct Waiters<R> {
    /// Nobody has looked for these yet: they may have come to rest before anybody waited for them.
    entered: HashSet<Uuid>,
    /// Since when there are such.
    entered_at: Option<Instant>,
    by_id: HashMap<Uuid, Vec<oneshot::Sender<R>>>,
}

/// A place among those who wait, given up when it is dropped: at the end, or when the client has gone.
struct Ticket<'a, A: Awaited> {
    waiting: &'a Waiting<A>,
    id: Uuid,
    rested: oneshot::Receiver<A::Rested>,
}

impl<A: Awaited> Waiting<A> {
    /// Nobody waits yet; every wait ends with `stop`, and so does the look for what has come to rest.
    pub(crate) fn start(
        journal: &Journal,
        metrics: &ApiMetrics,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Waiting<A>> {
        let waiting = Arc::new(Waiting::new(metrics.waiting_requests.clone(), stop.clone()));
        tasks.spawn(waiting.clone().run(journal.pool.clone(), journal.wake()));
        waiting
    }

    fn new(count: Gauge, stop: CancellationToken) -> Waiting<A> {
        let waiters = Waiters { entered: HashSet::new(), entered_at: None, by_id: HashMap::new() };
        Waiting { waiters: Mutex::new(waiters), arrived: Notify::new(), stop, count }
    }

    /// What has come to rest; `None` where `at_most` is over before, the process stops, or it can't be read.
    pub(crate) async fn until_rest(&self, id: Uuid, at_most: Duration) -> Option<A::Rested> {
        let mut ticket = self.enter(id);
        tokio::select! {
            rested = &mut ticket.rested => rested.ok(),
            () = tokio::time::sleep(at_most) => None,
            () = self.stop.cancelled() => None,
        }
    }

    fn enter(&self, id: Uuid) -> Ticket<'_, A> {
        let (rest, rested) = oneshot::channel();
        let mut waiters = self.lock();
        waiters.by_id.entry(id).or_default().push(rest);
        waiters.entered.insert(id);
        waiters.entered_at.get_or_insert_with(Instant::now);
        drop(waiters);
        self.count.inc();
        self.arrived.notify_one();
        Ticket { waiting: self, id, rested }
    }

    /// All that is awaited.
    fn awaited(&self) -> Vec<Uuid> {
        let mut waiters = self.lock();
        (waiters.entered, waiters.entered_at) = (HashSet::new(), None);
        waiters.by_id.keys().copied().collect()
    }

    /// What nobody has looked for yet.
    fn entered(&self) -> Vec<Uuid> {
        let mut waiters = self.lock();
        waiters.entered_at = None;
        std::mem::take(&mut waiters.entered).into_iter().collect()
    }

    /// Whether somebody waits for this; who does is told of it by now, and need not be looked for.
    fn is_awaited(&self, id: &Uuid) -> bool {
        let mut waiters = self.lock();
        waiters.entered.remove(id);
        if waiters.entered.is_empty() {
            waiters.entered_at = None;
        }
        waiters.by_id.contains_key(id)
    }

    /// Gives those who wait for these documents what they wait for, where it rests.
    fn tell(&self, changed: &[ChangedDocument], others: &mut Others<Uuid>) {
        let changed = changed.iter().filter(|document| Some(document.table) == A::NOUN);
        let mut resting = Vec::new();
        for document in changed {
            others.word(&document.key);
            if !self.is_awaited(&document.key) {
                continue;
            }
            match A::rested(document) {
                Ok(None) => {}
                Ok(rested) => resting.push((document.key, rested)),
                Err(error) => {
                    tracing::error!(%error, "what somebody waits for can't be read");
                    resting.push((document.key, None));
                }
            }
        }
        if !resting.is_empty() {
            others.told();
        }
        self.release(resting);
    }

    fn release(&self, resting: Resting<A::Rested>) {
        let mut waiters = self.lock();
        for (id, rested) in resting {
            for rest in waiters.by_id.remove(&id).unwrap_or_default() {
                // A waiter who has just left needs no word.
                let _ = rested.clone().map(|rested| rest.send(rested));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiters<A::Rested>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks which of the awaited have come to rest, until the stop. Asks and hears nothing while nobody waits.
    async fn run(self: Arc<Self>, pool: PgPool, wake: Wake) {
        self.stop.run_until_cancelled(self.watch(&pool, &wake)).await;
    }

    async fn watch(&self, pool: &PgPool, wake: &Wake) {
        let (mut others, mut looked_at) = (Others::default(), Instant::now());
        // What is told is kept until all who listen have heard it, so nobody listens who does not wait.
        let mut changes = None;
        loop {
            if self.lock().by_id.is_empty() {
                changes = None;
                self.arrived.notified().await;
            }
            let changes = changes.get_or_insert_with(|| wake.listen());
            let all_at = looked_at + A::pause(others.is_all_told(Instant::now()));
            let look_at = self.lock().entered_at.map_or(all_at, |at| all_at.min(at + PAUSE_IF_ENTERED));
            let is_all = tokio::select! {
                told = hear::<A>(changes) => match told {
                    Some(changed) => {
                        self.tell(&changed, &mut others);
                        continue;
                    }
                    // Not all could be told.
                    None => true,
                },
                () = tokio::time::sleep_until(look_at.into()) => Instant::now() >= all_at,
                () = self.arrived.notified() => continue,
            };
            let awaited = if is_all {
                looked_at = Instant::now();
                others.look(looked_at);
                self.awaited()
            } else {
                self.entered()
            };
            if awaited.is_empty() {
                continue;
            }
            match A::resting(pool, &awaited).await {
                Ok(resting) => {
                    if is_all {
                        others.found(resting.iter().map(|(id, _)| *id), Instant::now());
                    }
                    self.release(resting);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot see what has come to rest");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    // All are looked for then.
                    others.doubt();
                }
            }
        }
    }
}

/// The documents that one commit has written; `None` where not all could be told. Waits for ever where nobody tells.
async fn hear<A: Awaited>(changes: &mut broadcast::Receiver<Changed>) -> Option<Changed> {
    if A::NOUN.is_none() {
        return std::future::pending().await;
    }
    match changes.recv().await {
        Ok(changed) => Some(changed),
        Err(RecvError::Lagged(_)) => None,
        // Nobody commits any more in this process.
        Err(RecvError::Closed) => std::future::pending().await,
    }
}

impl<A: Awaited> Drop for Ticket<'_, A> {
    fn drop(&mut self) {
        self.rested.close();
        let mut waiters = self.waiting.lock();
        if let Some(tickets) = waiters.by_id.get_mut(&self.id) {
            tickets.retain(|rest| !rest.is_closed());
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

    fn waiting() -> Waiting<DecidedClaim> {
        Waiting::new(Gauge::default(), CancellationToken::new())
    }

    #[tokio::test]
    async fn all_who_wait_for_an_order_hear_of_its_rest_and_no_one_else() {
        let (waiting, order_id) = (waiting(), Uuid::now_v7());
        let (mut first, mut second) = (waiting.enter(order_id), waiting.enter(order_id));
        let mut other = waiting.enter(Uuid::now_v7());
        waiting.release(vec![(order_id, Some(()))]);
        assert_eq!(((&mut first.rested).await, (&mut second.rested).await), (Ok(()), Ok(())));
        assert!(other.rested.try_recv().is_err());
        assert_eq!(waiting.awaited().len(), 1);
    }

    #[tokio::test]
    async fn who_waits_for_what_can_not_be_read_waits_no_longer() {
        let (waiting, order_id) = (waiting(), Uuid::now_v7());
        let mut ticket = waiting.enter(order_id);
        waiting.release(vec![(order_id, None)]);
        assert!((&mut ticket.rested).await.is_err());
    }

    #[tokio::test]
    async fn who_leaves_is_waited_for_no_more() {
        let (waiting, order_id) = (waiting(), Uuid::now_v7());
        let (first_ticket, second_ticket) = (waiting.enter(order_id), waiting.enter(order_id));
        drop(first_ticket);
        assert_eq!(waiting.awaited(), [order_id]);
        drop(second_ticket);
        assert!(waiting.awaited().is_empty());
        assert_eq!(waiting.count.get(), 0);
    }

    fn claim(key: Uuid, table: &'static str, state: &str) -> ChangedDocument {
        let state = serde_json::json!({
            "coupon_id": key, "user_id": key, "state": state, "requested_at": 0, "sequence": 1,
        });
        ChangedDocument { table, key, state: state.to_string().into(), bulk: None }
    }

    #[tokio::test]
    async fn who_waits_is_given_what_was_committed_once_it_rests() {
        let (waiting, mut others, id) = (waiting(), Others::default(), Uuid::now_v7());
        let mut ticket = waiting.enter(id);
        waiting.tell(
            &[claim(id, "others", "ISSUED"), claim(Uuid::now_v7(), Claim::NOUN, "ISSUED")],
            &mut others,
        );
        assert_eq!(waiting.lock().entered.len(), 1, "nobody has told of it");
        waiting.tell(&[claim(id, Claim::NOUN, "PENDING")], &mut others);
        assert!(ticket.rested.try_recv().is_err() && !others.is_all_told(Instant::now()));
        assert!(waiting.entered().is_empty(), "whoever was told need not be looked for");
        waiting.tell(&[claim(id, Claim::NOUN, "ISSUED")], &mut others);
        assert_eq!((&mut ticket.rested).await, Ok(()));
        assert!(others.is_all_told(Instant::now()));
    }

    #[tokio::test]
    async fn what_was_committed_and_can_not_be_read_ends_the_wait() {
        let (waiting, id) = (waiting(), Uuid::now_v7());
        let mut ticket = waiting.enter(id);
        waiting.tell(&[claim(id, Claim::NOUN, "LOST")], &mut Others::default());
        assert!((&mut ticket.rested).await.is_err());
    }

    #[tokio::test]
    async fn who_has_just_come_is_looked_for_once() {
        let (waiting, id) = (waiting(), Uuid::now_v7());
        let _ticket = waiting.enter(id);
        assert_eq!(waiting.entered(), [id]);
        assert!(waiting.entered().is_empty());
        assert_eq!(waiting.awaited(), [id]);
    }

    #[tokio::test]
    async fn what_could_not_be_told_is_known() {
        let wake = ordermill_pipeline::wake::Wake::default();
        let mut changes = wake.listen();
        let id = Uuid::now_v7();
        for _ in 0..1_000 {
            wake.changed(vec![claim(id, Claim::NOUN, "ISSUED")]);
        }
        assert!(hear::<DecidedClaim>(&mut changes).await.is_none());
        assert!(hear::<DecidedClaim>(&mut changes).await.is_some());
    }

    #[tokio::test]
    async fn a_wait_ends_with_its_time_and_with_the_process() {
        let waiting = waiting();
        assert_eq!(waiting.until_rest(Uuid::now_v7(), Duration::from_millis(1)).await, None);
        let started = Instant::now();
        waiting.stop.cancel();
        assert_eq!(waiting.until_rest(Uuid::now_v7(), LONG).await, None);
        assert!(started.elapsed() < LONG);
        assert!(waiting.awaited().is_empty());
    }
}
