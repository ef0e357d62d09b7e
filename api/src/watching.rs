//! Watching orders change, for all who watch with one query.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ordermill_domain::orders::Order;
use ordermill_store::keys::Identity;
use ordermill_store::order_lists;
use prometheus_client::metrics::gauge::Gauge;
use sqlx::PgPool;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::ApiConfig;
use crate::problem::{Code, Problem};

/// The pause between two looks at the database while anybody watches.
const PAUSE: Duration = Duration::from_millis(50);
/// The pause after the database failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);
/// How long anybody watches without showing their key again.
const WATCH_MAX: Duration = Duration::from_secs(3_600);

/// What a look at the database tells of each order that has changed.
type Looked = Vec<(Uuid, Result<Order, sqlx::Error>)>;

/// Who watches which order. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Watching {
    orders: Arc<Mutex<HashMap<Uuid, Watched>>>,
    places: Arc<Semaphore>,
    /// How many watches each customer has, of those who have any.
    customers: Arc<Mutex<HashMap<Uuid, usize>>>,
    of_one_max: usize,
    arrived: Arc<Notify>,
    stop: CancellationToken,
    count: Gauge,
}

/// An order that is watched.
#[derive(Debug)]
struct Watched {
    /// The newest version that was told, or that its first watcher came with.
    version: i32,
    /// Where it is told; nothing was before the first change.
    newest: watch::Sender<Option<Arc<Order>>>,
}

/// One watcher's view of an order. Whoever drops it watches no more.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: i32,
    until: Instant,
    stop: CancellationToken,
    newest: watch::Receiver<Option<Arc<Order>>>,
    /// Dropped after `newest`, since it looks whether that was the last one.
    _place: Place,
}

/// A place among those who watch.
#[derive(Debug)]
struct Place {
    watching: Watching,
    order_id: Uuid,
    caller: Identity,
    _permit: OwnedSemaphorePermit,
}

impl Watching {
    /// Nobody watches yet, and at most so many will at once as streams may be open; every watch ends with `stop`.
    pub(crate) fn new(config: &ApiConfig, count: Gauge, stop: CancellationToken) -> Watching {
        Watching {
            orders: Arc::default(),
            places: Arc::new(Semaphore::new(config.streams_max)),
            customers: Arc::default(),
            of_one_max: config.streams_of_one_max,
            arrived: Arc::default(),
            stop,
            count,
        }
    }

    /// Watches an order for that caller, who has seen that version.
    ///
    /// # Errors
    /// `OVERLOADED` where too many watch, or the caller watches too many.
    pub(crate) fn enter(&self, order_id: Uuid, seen: i32, caller: Identity) -> Result<Watch, Problem> {
        let permit = self.places.clone().try_acquire_owned().map_err(|_| {
            Problem::new(Code::Overloaded, "too many streams are open just now; come again a little later")
        })?;
        self.count_in(caller)?;
        let newest = {
            let mut orders = self.lock();
            let watched = orders.entry(order_id);
            watched
                .or_insert_with(|| Watched { version: seen, newest: watch::Sender::new(None) })
                .newest
                .subscribe()
        };
        self.count.inc();
        self.arrived.notify_one();
        let place = Place { watching: self.clone(), order_id, caller, _permit: permit };
        Ok(Watch { seen, until: Instant::now() + WATCH_MAX, stop: self.stop.clone(), newest, _place: place })
    }

    /// One more of that customer's, who must not take the places of all others. An administrator's key may be a whole shop's.
    fn count_in(&self, caller: Identity) -> Result<(), Problem> {
        let Identity::Customer(user_id) = caller else { return Ok(()) };
        let mut customers = self.lock_customers();
        let watches = customers.entry(user_id).or_default();
        if *watches >= self.of_one_max {
            let detail = format!("you have {watches} streams open already; close one, then come again");
            return Err(Problem::new(Code::Overloaded, detail));
        }
        *watches += 1;
        Ok(())
    }

    fn count_out(&self, caller: Identity) {
        let Identity::Customer(user_id) = caller else { return };
        let mut customers = self.lock_customers();
        if let Entry::Occupied(mut watches) = customers.entry(user_id) {
            *watches.get_mut() -= 1;
            if *watches.get() == 0 {
                watches.remove();
            }
        }
    }

    fn lock_customers(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        self.customers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Watched>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watched orders and the newest version of each that was told.
    fn watched(&self) -> (Vec<Uuid>, Vec<i32>) {
        self.lock().iter().map(|(order_id, watched)| (*order_id, watched.version)).unzip()
    }

    fn tell(&self, looked: Looked) {
        let mut orders = self.lock();
        for (order_id, row) in looked {
            let Entry::Occupied(mut watched) = orders.entry(order_id) else { continue };
            match row {
                Ok(row) => {
                    let watched = watched.get_mut();
                    watched.version = row.visible_version;
                    watched.newest.send_replace(Some(Arc::new(row)));
                }
                Err(error) => {
                    tracing::error!(%error, %order_id, "an order can't be read; its streams end");
                    watched.remove();
                }
            }
        }
    }

    /// Looks which watched orders have changed, until the stop. Asks nothing while nobody watches.
    pub(crate) async fn run(self, pool: PgPool) {
        let look = |order_ids: Vec<Uuid>, versions: Vec<i32>| {
            let pool = pool.clone();
            async move { order_lists::changed(&pool, &order_ids, &versions).await }
        };
        self.stop.run_until_cancelled(self.watch(look)).await;
    }

    async fn watch<F>(&self, look: impl Fn(Vec<Uuid>, Vec<i32>) -> F)
    where
        F: Future<Output = Result<Looked, sqlx::Error>>,
    {
        loop {
            let (order_ids, versions) = self.watched();
            if order_ids.is_empty() {
                self.arrived.notified().await;
                continue;
            }
            let pause = match look(order_ids, versions).await {
                Ok(looked) => {
                    self.tell(looked);
                    PAUSE
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot see which orders have changed");
                    PAUSE_AFTER_ERROR
                }
            };
            sleep(pause).await;
        }
    }
}

impl Watch {
    /// The order once it has a version that this watcher has not seen; versions in between may be left out. `None`
    /// when no more will come: the process stops, the time is over, or the order can't be read.
    pub(crate) async fn next(&mut self) -> Option<Order> {
        let seen = self.seen;
        let is_new = |row: &Option<Arc<Order>>| row.as_ref().is_some_and(|row| row.visible_version > seen);
        let row = tokio::select! {
            newest = self.newest.wait_for(is_new) => newest.ok()?.clone()?,
            () = sleep_until(self.until) => return None,
            () = self.stop.cancelled() => return None,
        };
        self.seen = row.visible_version;
        Some(Arc::unwrap_or_clone(row))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut orders = self.watching.lock();
        // It may be another watcher's by now: then that one's channel is open.
        if orders.get(&self.order_id).is_some_and(|watched| watched.newest.is_closed()) {
            orders.remove(&self.order_id);
        }
        drop(orders);
        self.watching.count_out(self.caller);
        self.watching.count.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use jiff::Timestamp;
    use ordermill_schemas::orders::{OrderPlaced, PaymentMethod};

    use super::*;
    use crate::testing::parts_without_database;

    const LONG: Duration = Duration::from_secs(60);

    const CALLER: Identity = Identity::Customer(Uuid::nil());

    fn watching() -> Watching {
        watching_with(3)
    }

    fn watching_with(streams_of_one_max: usize) -> Watching {
        let config = ApiConfig { streams_max: 3, streams_of_one_max, ..parts_without_database().config };
        Watching::new(&config, Gauge::default(), CancellationToken::new())
    }

    fn order(order_id: Uuid, version: i32) -> Order {
        let placed = OrderPlaced {
            order_id,
            user_id: Uuid::nil(),
            lines: Vec::new(),
            payment_method: PaymentMethod::Balance,
            user_coupon_id: None,
            subtotal: 0,
            discounts: Vec::new(),
            total: 0,
            deadline_at: Timestamp::UNIX_EPOCH,
        };
        Order { visible_version: version, ..Order::placed(&placed, Timestamp::UNIX_EPOCH) }
    }

    fn changed(order_id: Uuid, version: i32) -> Looked {
        vec![(order_id, Ok(order(order_id, version)))]
    }

    async fn next_version(watch: &mut Watch) -> Option<i32> {
        tokio::time::timeout(LONG, watch.next()).await.unwrap().map(|row| row.visible_version)
    }

    #[tokio::test]
    async fn all_who_watch_an_order_are_told_what_each_has_not_seen() {
        let (watching, order_id) = (watching(), Uuid::now_v7());
        let mut first = watching.enter(order_id, 1, CALLER).unwrap();
        let mut newer = watching.enter(order_id, 3, CALLER).unwrap();
        assert_eq!(watching.watched(), (vec![order_id], vec![1]));
        watching.tell(changed(order_id, 3));
        assert_eq!(next_version(&mut first).await, Some(3));
        let mut late = watching.enter(order_id, 2, CALLER).unwrap();
        assert_eq!(next_version(&mut late).await, Some(3), "it changed before this one came");
        assert_eq!(watching.watched().1, [3]);
        watching.tell(changed(order_id, 5));
        watching.tell(changed(order_id, 6));
        for watch in [&mut first, &mut newer, &mut late] {
            assert_eq!(next_version(watch).await, Some(6));
        }
    }

    #[tokio::test]
    async fn what_nobody_watches_is_not_asked_for() {
        let (watching, order_id) = (watching(), Uuid::now_v7());
        let (first, second) =
            (watching.enter(order_id, 1, CALLER).unwrap(), watching.enter(order_id, 1, CALLER).unwrap());
        drop(first);
        assert_eq!((watching.watched().0, watching.count.get()), (vec![order_id], 1));
        drop(second);
        watching.tell(changed(order_id, 2));
        assert_eq!((watching.watched().0, watching.count.get()), (vec![], 0));
    }

    #[tokio::test]
    async fn who_finds_no_place_is_turned_away_until_somebody_leaves() {
        let watching = watching();
        let watches: Vec<Watch> =
            (0..3).map(|_| watching.enter(Uuid::now_v7(), 1, CALLER).unwrap()).collect();
        let refused = watching.enter(Uuid::now_v7(), 1, CALLER).unwrap_err();
        assert_eq!((refused.code(), watching.count.get()), (Code::Overloaded, 3));
        assert_eq!(watching.watched().0.len(), 3);
        drop(watches);
        assert!(watching.enter(Uuid::now_v7(), 1, CALLER).is_ok());
    }

    #[tokio::test]
    async fn a_customer_has_a_few_places_and_leaves_the_others_to_others() {
        let watching = watching_with(1);
        let first = enter(&watching, CALLER).unwrap();
        assert_eq!(enter(&watching, CALLER).unwrap_err().code(), Code::Overloaded);
        let other = enter(&watching, Identity::Customer(Uuid::now_v7())).unwrap();
        drop((first, other));
        assert!(watching.lock_customers().is_empty(), "nobody is kept who watches nothing");
        let administrator = Identity::Admin("shop".parse().unwrap());
        let all = [(); 3].map(|()| enter(&watching, administrator).unwrap());
        assert_eq!(enter(&watching, CALLER).unwrap_err().code(), Code::Overloaded);
        drop(all);
        assert!(enter(&watching, CALLER).is_ok());
    }

    fn enter(watching: &Watching, caller: Identity) -> Result<Watch, Problem> {
        watching.enter(Uuid::now_v7(), 1, caller)
    }

    #[tokio::test]
    async fn a_watch_ends_with_the_process_and_with_its_time() {
        let watching = watching();
        let mut watch = watching.enter(Uuid::now_v7(), 1, CALLER).unwrap();
        watch.until = Instant::now();
        assert_eq!(next_version(&mut watch).await, None);
        let mut watch = watching.enter(Uuid::now_v7(), 1, CALLER).unwrap();
        watching.stop.cancel();
        assert_eq!(next_version(&mut watch).await, None);
    }

    #[tokio::test]
    async fn an_order_that_can_not_be_read_ends_its_watches_and_no_others() {
        let (watching, order_id, other_id) = (watching(), Uuid::now_v7(), Uuid::now_v7());
        let mut watch = watching.enter(order_id, 1, CALLER).unwrap();
        let mut other = watching.enter(other_id, 1, CALLER).unwrap();
        let corrupt = sqlx::Error::Decode("a status that is newer than this program".into());
        watching.tell(vec![(order_id, Err(corrupt)), (other_id, Ok(order(other_id, 2)))]);
        assert_eq!((next_version(&mut watch).await, next_version(&mut other).await), (None, Some(2)));
        let again = watching.enter(order_id, 1, CALLER).unwrap();
        drop(watch);
        assert!(watching.watched().0.contains(&order_id), "the one who came again watches on");
        drop(again);
        assert_eq!(watching.watched().0, [other_id]);
    }

    #[tokio::test]
    async fn a_database_that_fails_is_asked_again_and_nothing_is_while_nobody_watches() {
        let (watching, order_id, asked) = (watching(), Uuid::now_v7(), AtomicU32::new(0));
        let look = |order_ids: Vec<Uuid>, _: Vec<i32>| {
            assert_eq!(order_ids, [order_id], "nothing is asked for that nobody watches");
            let is_first = asked.fetch_add(1, Ordering::SeqCst) == 0;
            let looked = if is_first { Err(sqlx::Error::PoolTimedOut) } else { Ok(changed(order_id, 2)) };
            std::future::ready(looked)
        };
        let watched = async {
            tokio::task::yield_now().await;
            let mut watch = watching.enter(order_id, 1, CALLER).unwrap();
            assert_eq!(next_version(&mut watch).await, Some(2));
        };
        tokio::select! {
            () = watching.watch(look) => {}
            () = watched => {}
        }
        assert!(asked.load(Ordering::SeqCst) >= 2);
    }
}
