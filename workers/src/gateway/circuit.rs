//! The circuit breaker before the gateway: after many failures in a row nobody calls it for a while.

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
}

/// Shows the circuit's state.
#[derive(Clone, Debug)]
struct Observer {
    is_open: Gauge,
}

impl Instrument for Observer {
    fn on_call_rejected(&self) {}

    fn on_open(&self) {
        self.is_open.set(1);
        tracing::warn!(
            "the payment gateway does not answer; it is left alone for a while, and payments wait"
        );
    }

    fn on_half_open(&self) {
        tracing::info!("the payment gateway is tried again");
    }

    fn on_closed(&self) {
        self.is_open.set(0);
        tracing::info!("the payment gateway answers");
    }
}

impl Circuit {
    /// A closed circuit whose state `is_open` shows: 1 while it is open.
    pub(crate) fn new(is_open: Gauge) -> Circuit {
        is_open.set(0);
        let waits = backoff::exponential(OPEN_FIRST, OPEN_MAX);
        let policy = failure_policy::consecutive_failures(FAILURES_MAX, waits);
        Circuit { state: Config::new().failure_policy(policy).instrument(Observer { is_open }).build() }
    }

    /// Whether the gateway may be called now.
    pub(crate) fn permits(&self) -> bool {
        self.state.is_call_permitted()
    }

    /// A call was answered, or not.
    pub(crate) fn record(&self, is_answered: bool) {
        if is_answered {
            self.state.on_success();
        } else {
            self.state.on_error();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_failures_in_a_row_open_the_circuit_and_an_answer_between_them_does_not() {
        let gauge = Gauge::default();
        let circuit = Circuit::new(gauge.clone());
        for _ in 0..FAILURES_MAX - 1 {
            circuit.record(false);
        }
        circuit.record(true);
        for _ in 0..FAILURES_MAX - 1 {
            circuit.record(false);
        }
        assert!(circuit.permits());
        assert_eq!(gauge.get(), 0);
        circuit.record(false);
        assert!(!circuit.permits());
        assert_eq!(gauge.get(), 1);
    }
}
