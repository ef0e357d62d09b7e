//! What the workers count and measure, for Prometheus.

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use uuid::Uuid;

/// A figure's one label: the type of the event that ended what is measured, or what the gateway answered.
type Label = [(&'static str, &'static str); 1];

/// Figures of the workers. Cloning shares them.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    settled: Family<Label, Counter>,
    stage_seconds: Family<Label, Histogram>,
    gateway_answers: Family<Label, Counter>,
    gateway_seconds: Histogram,
    /// How many calls have no answer yet.
    pub(crate) gateway_calls_in_flight: Gauge,
    /// 1 while the circuit before the gateway is open.
    pub(crate) gateway_circuit_open: Gauge,
    /// How many orders do not rest although their deadline has passed.
    pub(crate) orders_overdue: Gauge,
    deadlines_postponed: Family<Label, Gauge>,
}

impl WorkerMetrics {
    /// Registers the figures under `ordermill_`.
    pub fn register(registry: &mut Registry) -> WorkerMetrics {
        let metrics = WorkerMetrics {
            settled: Family::default(),
            stage_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 16))
            }),
            gateway_answers: Family::default(),
            gateway_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 16)),
            gateway_calls_in_flight: Gauge::default(),
            gateway_circuit_open: Gauge::default(),
            orders_overdue: Gauge::default(),
            deadlines_postponed: Family::default(),
        };
        let m = metrics.clone();
        registry.register("orders_settled", "Orders that came to rest", m.settled);
        registry.register("order_stage_seconds", "From acceptance to the saga's event", m.stage_seconds);
        registry.register("gateway_answers", "Answers of the payment gateway", m.gateway_answers);
        registry.register("gateway_seconds", "Time of a call to the gateway", m.gateway_seconds);
        let help = "Calls to the payment gateway that have no answer yet";
        registry.register("gateway_calls_in_flight", help, m.gateway_calls_in_flight);
        let help = "1 while the payment gateway is left alone because it does not answer";
        registry.register("gateway_circuit_open", help, m.gateway_circuit_open);
        let help = "Orders that do not rest although their deadline has passed";
        registry.register("orders_overdue", help, m.orders_overdue);
        let help = "Orders and users' coupons that can't be ended although their time is over";
        registry.register("deadlines_postponed", help, m.deadlines_postponed);
        metrics
    }

    /// So many of that can't be ended.
    pub(crate) fn postponed(&self, what: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.deadlines_postponed.get_or_create(&[("what", what)]).set(count);
    }

    /// An order has come to rest.
    pub(crate) fn settled(&self, event: &'static str) {
        self.settled.get_or_create(&[("event", event)]).inc();
    }

    /// An order has got as far as `event`. Its id says when it was accepted, to the millisecond.
    pub(crate) fn stage(&self, event: &'static str, order_id: Uuid, now: Timestamp) {
        let Some((seconds, nanoseconds)) = order_id.get_timestamp().map(|t| t.to_unix()) else { return };
        #[expect(clippy::cast_precision_loss, reason = "a duration in seconds needs no 53 bits")]
        let accepted = seconds as f64 + f64::from(nanoseconds) / 1e9;
        #[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 need 51 bits")]
        let took = now.as_microsecond() as f64 / 1e6 - accepted;
        self.stage_seconds.get_or_create(&[("event", event)]).observe(took.max(0.0));
    }

    /// The gateway has answered `APPROVED`, `PARTIAL`, `DECLINED`, `VOIDED`, `ABSENT`, `REFUNDED` or `REFUSED`, or not: `UNKNOWN`.
    pub(crate) fn gateway_answered(&self, answer: &'static str, seconds: f64) {
        self.gateway_answers.get_or_create(&[("answer", answer)]).inc();
        self.gateway_seconds.observe(seconds);
    }
}
