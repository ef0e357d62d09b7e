//! How a loop does: when it came round last, and since when it fails, and why. The loop says so in memory, as often as it likes; what
//! is written of it is written for all loops of a process together (`heartbeat.rs`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A loop's pulse: told by the loop, read from outside. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    state: Arc<Mutex<State>>,
    /// The loop has begun to work, which is news.
    begun: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// When the loop came round last; none where it is not at work yet.
    turned_at: Option<Instant>,
    trouble: Option<Trouble>,
    /// When a canary was met last, or has been waited for since; none where none is to come.
    canary_at: Option<Instant>,
    /// Since when canaries are sent.
    quiet_since: Option<Instant>,
}

/// Since when something does not work, and what. Readiness tells operators, who may be others than those who read the logs, so it is a text of
/// ours, and never that of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trouble {
    since: Instant,
    what: &'static str,
}

impl Pulse {
    /// The pulse of a loop that is not at work yet. `begun` is told when it is.
    pub(crate) fn new(begun: Arc<Notify>) -> Pulse {
        Pulse { state: Arc::default(), begun }
    }

    /// The loop has come round once more.
    pub fn beat(&self) {
        let is_first = self.state().turned_at.replace(Instant::now()).is_none();
        if is_first {
            self.begun.notify_one();
        }
    }

    /// What the loop does, works.
    pub fn works(&self) {
        self.state().trouble = None;
    }

    /// What the loop does, does not work: since now, unless it did not work before.
    pub fn fails(&self, what: &'static str) {
        let mut state = self.state();
        let since = state.trouble.map_or_else(Instant::now, |trouble| trouble.since);
        state.trouble = Some(Trouble { since, what });
    }

    /// What does not work, if anything does not.
    #[must_use]
    pub fn failure(&self) -> Option<&'static str> {
        self.state().trouble.map(|trouble| trouble.what)
    }

    /// The loop waits for others, since then and in vain so far; or for nobody. What was said before is forgotten.
    pub(crate) fn waits(&self, wait: Option<(Instant, &'static str)>) {
        self.state().trouble = wait.map(|(since, what)| Trouble { since, what });
    }

    /// A canary was met then, or is waited for since then; or none is to come.
    pub(crate) fn canary_at(&self, at: Option<Instant>) {
        self.state().canary_at = at;
    }

    /// Since then canaries are sent, as nothing else moves; or none are.
    pub(crate) fn quiet_since(&self, since: Option<Instant>) {
        self.state().quiet_since = since;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock means that somebody panicked; the state is plain data and still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the loops of a role do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// How long ago the one came round that has not for longest.
    pub(crate) turned: Duration,
    /// For how long something has not worked, and what: of several the one for longest.
    pub(crate) trouble: Option<(Duration, &'static str)>,
    /// How long ago a canary was met, or for how long it has been waited for.
    pub(crate) canary: Option<Duration>,
    /// For how long canaries have been sent.
    pub(crate) quiet: Option<Duration>,
}

impl Condition {
    /// None where none of the loops is at work yet.
    pub(crate) fn of(pulses: &[Pulse], now: Instant) -> Option<Condition> {
        let states: Vec<State> = pulses.iter().map(|pulse| *pulse.state()).collect();
        let turned_at = states.iter().filter_map(|state| state.turned_at).min()?;
        let trouble = states.iter().filter_map(|state| state.trouble).min_by_key(|trouble| trouble.since);
        let ago = |at: Instant| now.saturating_duration_since(at);
        Some(Condition {
            turned: ago(turned_at),
            trouble: trouble.map(|Trouble { since, what }| (ago(since), what)),
            canary: states.iter().filter_map(|state| state.canary_at).max().map(ago),
            quiet: states.iter().filter_map(|state| state.quiet_since).min().map(ago),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn troubles(pulses: &[Pulse], now: Instant) -> Option<&'static str> {
        Condition::of(pulses, now).unwrap().trouble.map(|(_, what)| what)
    }

    #[test]
    fn a_role_is_at_work_once_one_of_its_loops_has_come_round() {
        let pulses = [Pulse::default(), Pulse::default()];
        pulses[0].fails("it can't begin");
        assert_eq!(Condition::of(&pulses, Instant::now()), None);
        pulses[1].beat();
        let condition = Condition::of(&pulses, Instant::now() + LONG).unwrap();
        assert!(condition.turned >= LONG && condition.trouble.is_some(), "{condition:?}");
    }

    #[tokio::test]
    async fn that_a_loop_has_begun_is_told_once() {
        let begun = Arc::new(Notify::new());
        let pulse = Pulse::new(begun.clone());
        pulse.beat();
        begun.notified().await;
        pulse.beat();
        assert!(tokio::time::timeout(Duration::from_millis(1), begun.notified()).await.is_err());
    }

    #[test]
    fn what_fails_again_has_failed_since_the_first_time_until_it_works() {
        let pulse = Pulse::default();
        pulse.beat();
        pulse.fails("one");
        let failed_by = Instant::now();
        pulse.fails("another");
        let pulses = [pulse];
        let condition = Condition::of(&pulses, failed_by + LONG).unwrap();
        assert!(condition.trouble.is_some_and(|(since, what)| since >= LONG && what == "another"));
        pulses[0].works();
        assert_eq!(troubles(&pulses, failed_by + LONG), None);
    }

    #[test]
    fn of_several_troubles_the_longest_is_told() {
        let (now, pulses) = (Instant::now(), [Pulse::default(), Pulse::default()]);
        pulses[0].beat();
        pulses[0].fails("for a moment");
        pulses[1].waits(Some((now.checked_sub(LONG).unwrap(), "for long")));
        assert_eq!(troubles(&pulses, now), Some("for long"));
        pulses[1].waits(None);
        assert_eq!(troubles(&pulses, now), Some("for a moment"));
    }

    #[test]
    fn of_several_loops_the_one_that_met_a_canary_last_tells_of_it() {
        let (now, pulses) = (Instant::now(), [Pulse::default(), Pulse::default()]);
        pulses.iter().for_each(Pulse::beat);
        let met = || Condition::of(&pulses, now).unwrap().canary;
        assert_eq!(met(), None);
        pulses[0].canary_at(now.checked_sub(LONG));
        assert_eq!(met(), Some(LONG));
        pulses[1].canary_at(Some(now));
        assert_eq!(met(), Some(Duration::ZERO));
        pulses[1].canary_at(None);
        assert_eq!(met(), Some(LONG), "its part has gone to another");
    }

    #[test]
    fn who_waits_for_something_else_since_later_does_not_wait_for_long() {
        let (now, pulse) = (Instant::now(), Pulse::default());
        pulse.beat();
        pulse.waits(Some((now.checked_sub(LONG).unwrap(), "an acknowledgement")));
        pulse.waits(Some((now, "the next one")));
        assert_eq!(Condition::of(&[pulse], now).unwrap().trouble, Some((Duration::ZERO, "the next one")));
    }
}
