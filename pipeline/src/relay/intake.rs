//! What waits for a thread that has other things to do as well.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Things that are put in by one and taken out by another.
#[derive(Debug)]
pub(super) struct Intake<T> {
    state: Mutex<State<T>>,
    /// Something was put in that is awaited, or it was closed.
    called: Condvar,
}

#[derive(Debug)]
struct State<T> {
    things: Vec<T>,
    /// Whoever takes them is to be called for them.
    is_awaited: bool,
    is_closed: bool,
}

impl<T> Default for Intake<T> {
    fn default() -> Intake<T> {
        let state = State { things: Vec::new(), is_awaited: false, is_closed: false };
        Intake { state: Mutex::new(state), called: Condvar::new() }
    }
}

impl<T> Intake<T> {
    /// Puts things in, behind those that wait.
    pub(super) fn put(&self, things: Vec<T>) {
        let mut state = lock(&self.state);
        state.things.extend(things);
        if std::mem::take(&mut state.is_awaited) {
            drop(state);
            self.called.notify_one();
        }
    }

    /// Nothing is taken any more.
    pub(super) fn close(&self) {
        lock(&self.state).is_closed = true;
        self.called.notify_one();
    }

    /// Waits so long, and takes what is there then; `None` as soon as it is closed. Where things are awaited, it waits no longer than until
    /// there are some.
    pub(super) fn take_within(&self, wait: Duration, is_awaited: bool) -> Option<Vec<T>> {
        let mut state = lock(&self.state);
        state.is_awaited = is_awaited;
        let waits = |state: &mut State<T>| !state.is_closed && (!is_awaited || state.things.is_empty());
        let waited = self.called.wait_timeout_while(state, wait, waits);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_awaited = false;
        (!state.is_closed).then(|| std::mem::take(&mut state.things))
    }
}

/// A poisoned lock means that somebody else panicked; what it guards is plain data and still whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn what_is_awaited_is_taken_at_once_whether_it_comes_before_or_during_the_wait() {
        let intake = Intake::default();
        intake.put(vec![1]);
        intake.put(vec![2]);
        assert_eq!(intake.take_within(LONG, true), Some(vec![1, 2]));
        thread::scope(|scope| {
            let taken = scope.spawn(|| intake.take_within(LONG, true));
            while !lock(&intake.state).is_awaited {
                thread::yield_now();
            }
            intake.put(vec![3]);
            assert_eq!(taken.join().unwrap(), Some(vec![3]));
        });
    }

    #[test]
    fn what_is_not_awaited_waits_until_the_time_is_over() {
        let intake = Intake::default();
        intake.put(vec![1]);
        let wait = Duration::from_millis(20);
        let began = std::time::Instant::now();
        assert_eq!(intake.take_within(wait, false), Some(vec![1]));
        assert!(began.elapsed() >= wait);
        assert_eq!(intake.take_within(Duration::ZERO, true), Some(vec![]));
    }

    #[test]
    fn every_wait_ends_when_it_is_closed() {
        let intake = Intake::<u8>::default();
        thread::scope(|scope| {
            let taken = scope.spawn(|| intake.take_within(LONG, false));
            intake.close();
            assert_eq!(taken.join().unwrap(), None);
        });
        assert_eq!(intake.take_within(LONG, true), None);
    }
}
