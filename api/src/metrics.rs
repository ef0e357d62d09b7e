//! What the front counts and measures, for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};

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

/// Why a request is nobody's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// One of a few words.
    pub reason: &'static str,
}

/// What is limited.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByLabel {
    /// One of a few words.
    pub by: &'static str,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// One of a few words.
    pub outcome: &'static str,
}

/// The role that a figure is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RoleLabel {
    /// `database`, `relay` or a worker, like `worker:stock`.
    pub role: String,
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
    /// Requests that were refused since they carried no valid API key: `missing`, `malformed`, `unknown`, `expired`, `revoked`.
    pub authentication_failures: Family<ReasonLabel, Counter>,
    /// Requests that were refused since there were too many of an `address`, of a `caller`, or `sign_ups`.
    pub requests_limited: Family<ByLabel, Counter>,
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
    /// 1 for what `/readyz` would name, but for Kafka, which is asked only by whoever asks for readiness.
    pub not_ready: Family<RoleLabel, Gauge>,
    /// How long the oldest order has been under way that does not rest, in seconds; 0 where there is none.
    pub oldest_order_seconds: Gauge,
}

impl ApiMetrics {
    /// Registers the figures; the registry's own prefix stands before their names.
    pub fn register(registry: &mut Registry) -> ApiMetrics {
        let batch = Histogram::new(exponential_buckets(1.0, 2.0, 10));
        let seconds: Family<RouteLabel, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_5, 2.0, 17)));
        let help = "Time to the answer, by route, waiting on the client's wish included";
        registry.register_with_unit("http_request", help, Unit::Seconds, seconds.clone());
        let mut new = New(registry);
        ApiMetrics {
            orders_accepted: new.figure("orders_accepted", "Orders accepted"),
            accept_batch_orders: new.register("accept_batch_orders", "Orders accepted in one commit", batch),
            accept_queue_orders: new.figure("accept_queue_orders", "Submissions not accepted yet"),
            replays: new.figure("idempotent_replays", "Answers given again to a repeated key"),
            problems: new.figure("http_problems", "Requests answered with a problem, by code"),
            authentication_failures: new
                .figure("authentication_failures", "Requests without a valid API key, by what was wrong"),
            requests_limited: new
                .figure("requests_limited", "Requests refused since there were too many, by what"),
            request_seconds: seconds,
            waiting_requests: new
                .figure("http_waiting_requests", "Requests held until an order or a claim rests"),
            open_streams: new.figure("http_open_streams", "Streams of orders that are open"),
            payment_callbacks: new.figure("payment_callbacks", "Callbacks with a right signature"),
            product_cache_reads: new
                .figure("product_cache_reads", "Products asked for, by what the cache said"),
            not_ready: new.figure("not_ready", "1 for what does not answer or does not work"),
            oldest_order_seconds: new
                .figure("oldest_order_seconds", "Age of the oldest order that does not rest"),
        }
    }
}

/// Where figures are registered as they are made.
struct New<'a>(&'a mut Registry);

impl New<'_> {
    fn figure<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.register(name, help, M::default())
    }

    fn register<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}
