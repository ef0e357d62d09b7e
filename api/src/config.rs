//! What the front is told when it starts.

use std::time::Duration;

use jiff::tz::TimeZone;
use ordermill_pipeline::journal::Journal;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_pipeline::readiness::Expected;

use crate::rate_limits::RateLimitConfig;
use crate::verification::Verifier;

/// What the front is told when it starts.
#[derive(Clone)]
pub struct ApiConfig {
    /// The one currency that all amounts are in, as ISO 4217 names it.
    pub currency: String,
    /// By whose days sales are ranked and counted.
    pub time_zone: TimeZone,
    /// How long an order has to come to rest before it is refused.
    pub order_deadline: Duration,
    /// What must be at work of relay and workers for the shop to be ready.
    pub pipeline: Expected,
    /// The groups that every order passes: while events wait for them too long, orders are turned away.
    pub order_groups: Vec<String>,
    /// Where Kafka is; only readiness asks there.
    pub kafka: KafkaConfig,
    /// What the gateway signs its callbacks with.
    pub callback_secret: String,
    /// What `GET /v1/verification` asks; without it, it says that it can't.
    pub verifier: Option<Verifier>,
    /// How often anybody may ask.
    pub rate_limits: RateLimitConfig,
    /// What orders and claims are taken by, over connections that nobody else has; without it by those of everybody.
    pub rounds: Option<Journal>,
    /// How many submissions may wait to be accepted, and as many claims to be written; more are turned away.
    pub accept_queue_max: usize,
    /// How many submissions are accepted, or claims written, in one commit at most.
    pub accept_batch_max: usize,
    /// How many connections are served at once; more wait.
    pub connections_max: usize,
    /// How long a client may take nothing of what is written to it before its connection is closed.
    pub write_timeout: Duration,
    /// How many streams of orders are open at once; more are turned away.
    pub streams_max: usize,
    /// How many of them one customer has.
    pub streams_of_one_max: usize,
    /// How long requests under way have to finish after the stop.
    pub shutdown_grace: Duration,
}

impl ApiConfig {
    /// The defaults, for Kafka there, callbacks signed with that, and days of that zone.
    #[must_use]
    pub fn new(kafka: KafkaConfig, callback_secret: &str, time_zone: TimeZone) -> ApiConfig {
        ApiConfig {
            currency: "KRW".to_owned(),
            time_zone,
            order_deadline: Duration::from_secs(60),
            pipeline: Expected::default(),
            order_groups: Vec::new(),
            kafka,
            callback_secret: callback_secret.to_owned(),
            verifier: None,
            rate_limits: RateLimitConfig::default(),
            rounds: None,
            accept_queue_max: 4_096,
            accept_batch_max: 256,
            connections_max: 8_192,
            write_timeout: Duration::from_secs(30),
            streams_max: 1_000,
            streams_of_one_max: 32,
            shutdown_grace: Duration::from_secs(10),
        }
    }
}
