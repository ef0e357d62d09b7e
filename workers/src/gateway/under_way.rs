//! What this process asks the gateway: one intent at a time for each order, each at a place of its own.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ordermill_store::payments::Intent;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The places, by order. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct UnderWay {
    taken: Arc<Mutex<HashMap<Uuid, Taken>>>,
    places_max: usize,
}

/// What is known of a place that is taken.
#[derive(Debug)]
struct Taken {
    sequence: i32,
    given_up: CancellationToken,
    /// Since when nobody else asks, for the time of a lease.
    leased_at: Instant,
}

impl Taken {
    fn is_leased_for(&self, at_least: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.leased_at) >= at_least
    }
}

/// A place, with what is asked for there. It is given back when this is dropped, however that comes about: until then nobody else of this
/// process asks for the order.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) intent: Intent,
    /// Nobody here has a use for the outcome any more.
    pub(crate) given_up: CancellationToken,
    under_way: UnderWay,
}

impl UnderWay {
    /// So many places, all of them free.
    pub(crate) fn new(places_max: usize) -> UnderWay {
        UnderWay { taken: Arc::default(), places_max }
    }

    /// A place for an intent; none where it has one already, or all are taken. What is under way for the same order, but for
    /// something that is not wanted any more, is given up.
    pub(crate) fn take(&self, intent: Intent) -> Option<Place> {
        let mut taken = self.taken();
        match taken.get(&intent.order_id) {
            // What was read from the table may come later than what was asked for since.
            Some(known) if known.sequence >= intent.sequence => return None,
            Some(known) => known.given_up.cancel(),
            None if taken.len() >= self.places_max => return None,
            None => {}
        }
        let (sequence, given_up) = (intent.sequence, CancellationToken::new());
        let known = Taken { sequence, given_up: given_up.clone(), leased_at: Instant::now() };
        taken.insert(intent.order_id, known);
        drop(taken);
        Some(Place { intent, given_up, under_way: self.clone() })
    }

    /// How many places are free.
    pub(crate) fn free(&self) -> i64 {
        let free = self.places_max.saturating_sub(self.taken().len());
        i64::try_from(free).unwrap_or(i64::MAX)
    }

    /// What was leased so long ago, or longer: orders, each with the ordinal of the payment's event that it follows from.
    pub(crate) fn leased_for(&self, at_least: Duration, now: Instant) -> Vec<(Uuid, i32)> {
        let taken = self.taken();
        let due = taken.iter().filter(|(_, known)| known.is_leased_for(at_least, now));
        due.map(|(order_id, known)| (*order_id, known.sequence)).collect()
    }

    /// Takes note of which of `due` were leased anew at that time. The others are given up: somebody else asks for them, or nobody
    /// has a use for the outcome any more.
    pub(crate) fn renewed(&self, due: &[(Uuid, i32)], kept: &HashSet<Uuid>, at: Instant) {
        let mut taken = self.taken();
        for (order_id, sequence) in due {
            match taken.get_mut(order_id) {
                // What is asked for since has a lease of its own.
                Some(known) if known.sequence != *sequence => {}
                Some(known) if kept.contains(order_id) => known.leased_at = at,
                Some(known) => known.given_up.cancel(),
                None => {}
            }
        }
    }

    /// Gives up what was leased so long ago, or longer.
    pub(crate) fn give_up(&self, leased_for: Duration, now: Instant) {
        let taken = self.taken();
        let over = taken.values().filter(|known| known.is_leased_for(leased_for, now));
        over.for_each(|known| known.given_up.cancel());
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Uuid, Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (order_id, sequence) = (self.intent.order_id, self.intent.sequence);
        if thread::panicking() {
            tracing::error!(
                %order_id, task = ?self.intent.task,
                "a bug ended what the gateway was asked for; it is asked again once the lease has run out"
            );
        }
        let mut taken = self.under_way.taken();
        // The end of what was wanted before is not the end of what is wanted now.
        if taken.get(&order_id).is_some_and(|known| known.sequence == sequence) {
            taken.remove(&order_id);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ordermill_domain::payments::GatewayTask;
    use ordermill_store::payments::LEASE;

    use super::*;

    /// To void the charge of that number, which is what the payment asks for since that event of its history.
    pub(crate) fn void(number: i32) -> Intent {
        let (order_id, cause_id) = (Uuid::nil(), Uuid::nil());
        let task = GatewayTask::Void { number, charge_id: Uuid::nil() };
        Intent { order_id, task, sequence: number, cause_id, traceparent: String::new() }
    }

    #[test]
    fn what_is_under_way_is_not_asked_for_twice() {
        let under_way = UnderWay::new(5);
        let place = under_way.take(void(1)).unwrap();
        assert!(under_way.take(void(1)).is_none());
        drop(place);
        assert!(under_way.take(void(1)).is_some());
    }

    #[test]
    fn what_is_wanted_now_supersedes_what_was_wanted_before() {
        let under_way = UnderWay::new(5);
        let (first, second) = (under_way.take(void(1)).unwrap(), under_way.take(void(2)).unwrap());
        assert!(first.given_up.is_cancelled());
        assert!(!second.given_up.is_cancelled());
        drop(first);
        assert!(under_way.take(void(2)).is_none(), "the end of the former is not the end of the latter");
    }

    #[test]
    fn what_was_wanted_before_does_not_supersede_what_is_wanted_now() {
        let under_way = UnderWay::new(5);
        let newer = under_way.take(void(2)).unwrap();
        assert!(under_way.take(void(1)).is_none());
        assert!(!newer.given_up.is_cancelled());
        let newest = under_way.take(void(3));
        assert!(newest.is_some() && newer.given_up.is_cancelled());
    }

    #[test]
    fn what_does_not_fit_can_be_offered_again() {
        let under_way = UnderWay::new(1);
        let other = || Intent { order_id: Uuid::from_u128(1), ..void(1) };
        let first = under_way.take(void(1));
        assert!(first.is_some() && under_way.take(other()).is_none());
        drop(first);
        assert!(under_way.take(other()).is_some());
    }

    #[test]
    fn what_was_leased_anew_goes_on_and_the_rest_is_given_up() {
        let under_way = UnderWay::new(5);
        let other = Intent { order_id: Uuid::from_u128(1), ..void(1) };
        let (ours, lost) = (under_way.take(void(1)).unwrap(), under_way.take(other).unwrap());
        let later = Instant::now() + LEASE;
        assert!(under_way.leased_for(LEASE * 2, later).is_empty());
        let due = under_way.leased_for(LEASE, later);
        assert_eq!(due.len(), 2);
        under_way.renewed(&due, &HashSet::from([ours.intent.order_id]), later);
        assert!(!ours.given_up.is_cancelled());
        assert!(lost.given_up.is_cancelled());
        assert_eq!(under_way.leased_for(LEASE, later), [(lost.intent.order_id, 1)]);
    }

    #[test]
    fn what_is_wanted_now_is_not_given_up_for_what_was_wanted_before() {
        let under_way = UnderWay::new(5);
        let before = under_way.take(void(1)).unwrap();
        let due = under_way.leased_for(Duration::ZERO, Instant::now());
        let now = under_way.take(void(2)).unwrap();
        under_way.renewed(&due, &HashSet::new(), Instant::now());
        assert!(before.given_up.is_cancelled() && !now.given_up.is_cancelled());
    }

    #[test]
    fn what_could_not_be_leased_anew_for_the_time_of_a_lease_is_given_up() {
        let under_way = UnderWay::new(5);
        let place = under_way.take(void(1)).unwrap();
        under_way.give_up(LEASE, Instant::now());
        assert!(!place.given_up.is_cancelled());
        under_way.give_up(LEASE, Instant::now() + LEASE);
        assert!(place.given_up.is_cancelled());
    }
}
