//! What rarely changes of products, kept in memory.
//!
//! Every API process follows the topic `products` by itself and replaces what it keeps. An entry carries the ordinal of
//! the product's last event, and a lower one never replaces a higher one. Nothing is served from here unless every event
//! that was committed until a moment ago is known to have come (`ordermill_pipeline::follower`): a change is visible
//! everywhere within [`BEHIND_MAX`], or the database is asked.
//!
//! Architecture Invariant: stock is never in here, and no order takes its price from here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use moka::sync::Cache;
use ordermill_pipeline::follower::Follower;
use ordermill_schemas::products::ProductChanged;
use ordermill_schemas::{Event, Topic};
use ordermill_store::products::StockedProduct;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use uuid::Uuid;

use crate::metrics::OutcomeLabel;

/// How far behind the database the cache may be. With the time of a request, a change is visible within a second.
const BEHIND_MAX: Duration = Duration::from_millis(800);
/// For so long after somebody has asked the cache is kept up to date; whoever asks later is the first who reads from the database.
const ASKED_FOR: Duration = Duration::from_secs(5);
/// How many bytes of text are kept.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What an entry takes besides its texts, about.
const ENTRY_BYTES: usize = 300;

/// What is kept of products. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct ProductCache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The stock in these rows is not to be looked at.
    rows: Cache<Uuid, Arc<StockedProduct>>,
    state: Mutex<State>,
    reads: Family<OutcomeLabel, Counter>,
}

/// Changed together with `rows`, under one lock.
#[derive(Debug, Default)]
struct State {
    /// Counts what was learned: a row that was read before the last of it is not kept.
    learned: u64,
    /// Everything committed before this moment has been learned.
    complete_until: Option<Instant>,
    asked_at: Option<Instant>,
}

/// What the cache says of a product.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is known; all but its stock.
    Known(Arc<StockedProduct>),
    /// Read it, and bring it back with this.
    Unknown(Ticket),
    /// Read it: what is known here may be out of date.
    Bypassed,
}

/// The right to keep a row that was read after this was handed out, unless something was learned since.
#[derive(Debug)]
pub(crate) struct Ticket(u64);

impl ProductCache {
    pub(crate) fn new(reads: Family<OutcomeLabel, Counter>) -> ProductCache {
        let weigh = |_: &Uuid, row: &Arc<StockedProduct>| {
            let bytes = ENTRY_BYTES
                + row.product.name.len()
                + row.product.description.len()
                + row.product.category.len();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let rows = Cache::builder().weigher(weigh).max_capacity(BYTES_MAX).build();
        ProductCache(Arc::new(Shared { rows, state: Mutex::default(), reads }))
    }

    /// What is known of a product.
    pub(crate) fn find(&self, product_id: Uuid) -> Found {
        let (is_sound, ticket) = {
            let mut state = self.lock();
            state.asked_at = Some(Instant::now());
            let is_sound = state.complete_until.is_some_and(|moment| moment.elapsed() < BEHIND_MAX);
            (is_sound, Ticket(state.learned))
        };
        let found = match self.0.rows.get(&product_id) {
            _ if !is_sound => Found::Bypassed,
            Some(row) => Found::Known(row),
            None => Found::Unknown(ticket),
        };
        let outcome = match found {
            Found::Known(_) => "hit",
            Found::Unknown(_) => "miss",
            Found::Bypassed => "bypassed",
        };
        self.0.reads.get_or_create(&OutcomeLabel { outcome }).inc();
        found
    }

    /// Keeps a product that was read with a ticket.
    pub(crate) fn keep(&self, ticket: &Ticket, row: &StockedProduct) {
        let state = self.lock();
        let known = self.0.rows.get(&row.product_id);
        let is_newer = known.is_none_or(|known| known.product.sequence < row.product.sequence);
        if state.learned == ticket.0 && is_newer {
            self.0.rows.insert(row.product_id, Arc::new(row.clone()));
        }
    }

    /// Knows a change that this process has committed, so that whoever made it sees it at once here.
    pub(crate) fn wrote(&self, row: &StockedProduct) {
        let mut state = self.lock();
        state.learned += 1;
        if self.0.rows.get(&row.product_id).is_some_and(|known| known.product.sequence < row.product.sequence)
        {
            self.0.rows.insert(row.product_id, Arc::new(row.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what is known of a product. What nobody has asked for is not kept.
    fn replace(&self, changed: &ProductChanged, sequence: i32, at: Timestamp) {
        let Some(known) = self.0.rows.get(&changed.product_id) else { return };
        if known.product.sequence >= sequence {
            return;
        }
        let mut row = StockedProduct::clone(&known);
        row.product.describe(changed, at);
        row.product.sequence = sequence;
        self.0.rows.insert(changed.product_id, Arc::new(row));
    }
}

impl Follower for ProductCache {
    type Event = Event;
    const TOPIC: Topic = Topic::Products;

    fn restarted(&self) {
        let mut state = self.lock();
        state.learned += 1;
        state.complete_until = None;
        self.0.rows.invalidate_all();
    }

    fn learned(&self, event: &Event, sequence: i32, at: Timestamp) {
        let mut state = self.lock();
        state.learned += 1;
        match event {
            Event::ProductChanged(changed) => self.replace(changed, sequence, at),
            // It was not there before, so nothing is known of it.
            Event::ProductCreated(_) => {}
            _ => {
                tracing::debug!(event = event.name(), "an event that says nothing of a product's description")
            }
        }
    }

    fn complete_until(&self, moment: Instant) {
        let mut state = self.lock();
        state.complete_until = state.complete_until.max(Some(moment));
    }

    fn is_asked(&self) -> bool {
        self.lock().asked_at.is_some_and(|at| at.elapsed() < ASKED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use ordermill_domain::products::Product;

    use super::*;

    const TEA: Uuid = Uuid::from_u128(1);

    fn cache() -> ProductCache {
        let cache = ProductCache::new(Family::default());
        cache.complete_until(Instant::now());
        cache
    }

    fn row(sequence: i32, price: i64) -> StockedProduct {
        let product = Product {
            name: "Tea".to_owned(),
            description: String::new(),
            category: "FOOD".to_owned(),
            price,
            withdrawn: false,
            sequence,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        };
        StockedProduct { product_id: TEA, product, stock: 0 }
    }

    fn changed(price: i64) -> Event {
        ProductChanged {
            product_id: TEA,
            name: "Tea".to_owned(),
            description: String::new(),
            category: "FOOD".to_owned(),
            price,
            withdrawn: false,
        }
        .into()
    }

    fn ticket(cache: &ProductCache) -> Ticket {
        match cache.find(TEA) {
            Found::Unknown(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn price(cache: &ProductCache) -> Option<i64> {
        match cache.find(TEA) {
            Found::Known(row) => Some(row.product.price),
            _ => None,
        }
    }

    #[test]
    fn what_was_read_is_known_until_an_event_says_otherwise() {
        let cache = cache();
        cache.keep(&ticket(&cache), &row(1, 100));
        assert_eq!(price(&cache), Some(100));
        cache.learned(&changed(200), 2, Timestamp::UNIX_EPOCH);
        assert_eq!(price(&cache), Some(200));
    }

    #[test]
    fn a_change_of_this_process_is_known_at_once_and_replaces_nothing_newer() {
        let cache = cache();
        cache.wrote(&row(2, 200));
        assert_eq!(price(&cache), None, "nobody has asked for it");
        cache.keep(&ticket(&cache), &row(2, 200));
        cache.wrote(&row(3, 300));
        assert_eq!(price(&cache), Some(300));
        cache.wrote(&row(2, 200));
        assert_eq!(price(&cache), Some(300));
    }

    #[test]
    fn a_row_that_was_read_before_an_event_came_is_not_kept() {
        let cache = cache();
        let ticket = ticket(&cache);
        cache.learned(&changed(200), 2, Timestamp::UNIX_EPOCH);
        cache.keep(&ticket, &row(1, 100));
        assert_eq!(price(&cache), None);
    }

    #[test]
    fn a_lower_sequence_never_replaces_a_higher_one() {
        let cache = cache();
        let (first, second) = (ticket(&cache), ticket(&cache));
        cache.keep(&first, &row(3, 300));
        cache.keep(&second, &row(2, 200));
        assert_eq!(price(&cache), Some(300));
        cache.learned(&changed(200), 2, Timestamp::UNIX_EPOCH);
        assert_eq!(price(&cache), Some(300));
    }

    #[test]
    fn the_cache_is_bypassed_until_it_is_known_to_be_complete_and_when_it_is_not_any_more() {
        let cache = ProductCache::new(Family::default());
        assert!(matches!(cache.find(TEA), Found::Bypassed));
        cache.complete_until(Instant::now());
        cache.keep(&ticket(&cache), &row(1, 100));
        cache.restarted();
        assert!(matches!(cache.find(TEA), Found::Bypassed));
        cache.complete_until(Instant::now().checked_sub(BEHIND_MAX).unwrap());
        assert!(matches!(cache.find(TEA), Found::Bypassed));
        cache.complete_until(Instant::now());
        assert_eq!(price(&cache), None, "what was known before is forgotten");
        let outcomes = ["hit", "miss", "bypassed"]
            .map(|outcome| cache.0.reads.get_or_create(&OutcomeLabel { outcome }).get());
        assert_eq!(outcomes, [0, 2, 3]);
    }
}
