//! The circuit breaker before the gateway: after many failures in a row nobody calls it for a while, and then one call finds out
//! whether it answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use failsafe::backoff::{self, Exponential};
use failsafe::failure_policy::{self, ConsecutiveFailures};
use failsafe::{Config, Instrument, StateMachine};
use prometheus_client::metrics::gauge::Gauge;

/// So many calls in a row without an answer open the circuit: faults of single calls don't.
const FAILURES_MAX: u32 = 20;
/// How long it stays open at first.
const OPEN_FIRST: Duration = Duration::from_secs(1);
/// How long at most. Those who wait for it come back with jitter of their own.
const OPEN_MAX: Duration = Duration::from_secs(8);

/// The breaker. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Circuit {
    state: StateMachine<ConsecutiveFailures<Exponential>, Observer>,
    is_open: Arc<AtomicBool>,
    /// Whether the probe is under way. Locked while the state is asked or told anything, so that nothing comes between.
    is_probed: Arc<Mutex<bool>>,
}

/// Leave to call the gateway once.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    circuit: &'a Circuit,
    /// The pause is over, and this call finds out whether the gateway answers. All others wait for its outcome; where it is dropped
    /// without one, another is the probe.
    is_probe: bool,
}

/// Shows the circuit's state.
#[derive(Clone, Debug)]
struct Observer {
    gauge: Gauge,
    /// It is not closed: half open counts as open.
    is_open: Arc<AtomicBool>,
}

impl Observer {
    fn show(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::SeqCst);
        self.gauge.set(i64::from(is_open));
    }
}

impl Instrument for Observer {
    fn on_call_rejected(&self) {}

    fn on_open(&self) {
        self.show(true);
        tracing::warn!(
            "the payment gateway does not answer; it is left alone for a while, and payments wait"
        );
    }

    fn on_half_open(&self) {
        tracing::info!("the payment gateway is tried again");
    }

    fn on_closed(&self) {
        self.show(false);
        tracing::info!("the payment gateway answers");
    }
}

impl Circuit {
    /// A closed circuit whose state `gauge` shows: 1 while it is open.
    pub(crate) fn new(gauge: Gauge) -> Circuit {
        let is_open = Arc::new(AtomicBool::new(false));
        let observer = Observer { gauge, is_open: is_open.clone() };
        let waits = backoff::exponential(OPEN_FIRST, OPEN_MAX);
        let policy = failure_policy::consecutive_failures(FAILURES_MAX, waits);
        let state = Config::new().failure_policy(policy).instrument(observer).build();
        Circuit { state, is_open, is_probed: Arc::default() }
    }

    /// Leave to call the gateway now; none while it is left alone, or probed by somebody else.
    pub(crate) fn permit(&self) -> Option<Permit<'_>> {
        let mut is_probed = self.is_probed();
        if *is_probed || !self.state.is_call_permitted() {
            return None;
        }
        // Permitted while it is open: the pause is over.
        *is_probed = self.is_open.load(Ordering::SeqCst);
        Some(Permit { circuit: self, is_probe: *is_probed })
    }

    fn is_probed(&self) -> MutexGuard<'_, bool> {
        self.is_probed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// The call was answered, or not. Of an open circuit only the probe says anything: other calls began before it opened.
    pub(crate) fn record(self, is_answered: bool) {
        let Permit { circuit, is_probe } = &self;
        let locked = circuit.is_probed();
        if *is_probe || !circuit.is_open.load(Ordering::SeqCst) {
            if is_answered {
                circuit.state.on_success();
            } else {
                circuit.state.on_error();
            }
        }
        drop(locked);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            *self.circuit.is_probed() = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use failsafe::clock;

    use super::*;

    /// Just longer than the circuit stays open at first.
    const PAUSE: Duration = Duration::from_millis(1_001);

    fn fail(circuit: &Circuit, times: u32) {
        for _ in 0..times {
            circuit.permit().unwrap().record(false);
        }
    }

    #[test]
    fn many_failures_in_a_row_open_the_circuit_and_an_answer_between_them_does_not() {
        let gauge = Gauge::default();
        let circuit = Circuit::new(gauge.clone());
        fail(&circuit, FAILURES_MAX - 1);
        circuit.permit().unwrap().record(true);
        fail(&circuit, FAILURES_MAX - 1);
        assert!(circuit.permit().is_some());
        assert_eq!(gauge.get(), 0);
        fail(&circuit, 1);
        assert!(circuit.permit().is_none());
        assert_eq!(gauge.get(), 1);
    }

    #[test]
    fn once_the_pause_is_over_one_call_is_let_through_and_the_others_once_it_is_answered() {
        clock::freeze(|time| {
            let gauge = Gauge::default();
            let circuit = Circuit::new(gauge.clone());
            fail(&circuit, FAILURES_MAX);
            time.advance(PAUSE);
            let probe = circuit.permit().unwrap();
            time.advance(OPEN_MAX);
            assert!(circuit.permit().is_none(), "however long the probe takes");
            assert_eq!(gauge.get(), 1);
            probe.record(true);
            assert!(circuit.permit().is_some());
            assert_eq!(gauge.get(), 0);
            let both = (circuit.permit(), circuit.permit());
            assert!(both.0.is_some() && both.1.is_some());
        });
    }

    #[test]
    fn a_probe_without_an_answer_opens_the_circuit_for_longer() {
        clock::freeze(|time| {
            let circuit = Circuit::new(Gauge::default());
            fail(&circuit, FAILURES_MAX);
            time.advance(PAUSE);
            fail(&circuit, 1);
            time.advance(PAUSE);
            assert!(circuit.permit().is_none());
            time.advance(PAUSE);
            assert!(circuit.permit().is_some());
        });
    }

    #[test]
    fn a_probe_that_is_dropped_or_panics_gives_its_place_to_another() {
        clock::freeze(|time| {
            let circuit = Circuit::new(Gauge::default());
            fail(&circuit, FAILURES_MAX);
            time.advance(PAUSE);
            drop(circuit.permit().unwrap());
            let panicked: thread::Result<()> = catch_unwind(AssertUnwindSafe(|| {
                let _probe = circuit.permit().unwrap();
                panic!("a bug");
            }));
            assert!(panicked.is_err());
            let probe = circuit.permit().unwrap();
            assert!(circuit.permit().is_none());
            probe.record(true);
            assert!(circuit.permit().is_some());
        });
    }

    #[test]
    fn calls_that_began_before_the_circuit_opened_neither_close_nor_open_it() {
        clock::freeze(|time| {
            let circuit = Circuit::new(Gauge::default());
            let [answered, failed] = [circuit.permit().unwrap(), circuit.permit().unwrap()];
            fail(&circuit, FAILURES_MAX);
            time.advance(PAUSE);
            let probe = circuit.permit().unwrap();
            answered.record(true);
            assert!(circuit.permit().is_none());
            failed.record(false);
            probe.record(true);
            assert!(circuit.permit().is_some());
        });
    }
}
