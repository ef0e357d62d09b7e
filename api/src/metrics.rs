//! What the front counts and measures, for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The route that a figure is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    /// The HTTP method.
    pub method: String,
    /// The path as it is documented, like `/v1/orders/{order_id}`; `unmatched` for all others.
    pub route: String,
}

/// The problem that a figure is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabel {
    /// The stable code, like `VALIDATION_FAILED`.
    pub code: &'static str,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// One of a few words.
    pub outcome: &'static str,
}

/// Figures of the front. Cloning shares them.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    /// Orders that were accepted.
    pub orders_accepted: Counter,
    /// Orders accepted in one commit.
    pub accept_batch_orders: Histogram,
    /// Submissions that wait to be accepted.
    pub accept_queue_orders: Gauge,
    /// Answers given again to a repeated key.
    pub replays: Counter,
    /// Requests that were answered with a problem.
    pub problems: Family<CodeLabel, Counter>,
    /// Time from the request's head to the answer's, with what `Prefer: wait` asked for.
    pub request_seconds: Family<RouteLabel, Histogram>,
    /// Requests that hold their answer until an order rests.
    pub waiting_requests: Gauge,
    /// Streams of orders that are open.
    pub open_streams: Gauge,
    /// Callbacks of the gateway whose signature is right.
    pub payment_callbacks: Counter,
    /// Products that were asked for: `hit`, `miss`, or `bypassed` while the cache may be out of date.
    pub product_cache_reads: Family<OutcomeLabel, Counter>,
}

impl ApiMetrics {
    /// Registers the figures; the registry's own prefix stands before their names.
    pub fn register(registry: &mut Registry) -> ApiMetrics {
        let metrics = ApiMetrics {
            orders_accepted: Counter::default(),
            accept_batch_orders: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            accept_queue_orders: Gauge::default(),
            replays: Counter::default(),
            problems: Family::default(),
            request_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_5, 2.0, 17))
            }),
            waiting_requests: Gauge::default(),
            open_streams: Gauge::default(),
            payment_callbacks: Counter::default(),
            product_cache_reads: Family::default(),
        };
        let m = metrics.clone();
        registry.register("orders_accepted", "Orders accepted", m.orders_accepted);
        registry.register("accept_batch_orders", "Orders accepted in one commit", m.accept_batch_orders);
        registry.register("accept_queue_orders", "Submissions not accepted yet", m.accept_queue_orders);
        registry.register("idempotent_replays", "Answers given again to a repeated key", m.replays);
        registry.register("http_problems", "Requests answered with a problem, by code", m.problems);
        registry.register_with_unit(
            "http_request",
            "Time to the answer, by route, waiting on the client's wish included",
            Unit::Seconds,
            m.request_seconds,
        );
        registry.register(
            "http_waiting_requests",
            "Requests held until an order or a claim rests",
            m.waiting_requests,
        );
        registry.register("http_open_streams", "Streams of orders that are open", m.open_streams);
        registry.register("payment_callbacks", "Callbacks with a right signature", m.payment_callbacks);
        let reads = "Products asked for, by what the cache said";
        registry.register("product_cache_reads", reads, m.product_cache_reads);
        metrics
    }
}
