//! The HTTP front: thin and fast. It authenticates, checks shapes, writes state and event in one transaction,
//! and answers; what takes longer is the workers' work, which a client may wait for.
//!
//! Architecture Invariant: nothing here talks to Kafka or to the gateway to serve a request; only readiness asks
//! whether Kafka is there.
//! Architecture Invariant: what a request has begun to write runs to its end or rolls back, whether its client is
//! still there or not.

mod acceptance;
mod admission;
mod app;
mod auth;
mod body;
mod canonical;
mod claiming;
mod config;
pub mod dead_letters;
mod etag;
mod idempotency;
mod identities;
mod keyed;
mod keys;
mod metrics;
mod observe;
mod openapi;
mod order_command;
mod outcome;
mod paging;
mod path;
mod peer;
mod prefer;
mod problem;
mod problem_responses;
mod product_cache;
mod rate_limits;
mod readiness;
mod refusals;
mod request;
mod rounds;
mod routes;
mod server;
mod signature;
mod telling;
mod validation;
mod verification;
mod view;
mod waiting;
mod watching;
mod write_timeout;

#[cfg(test)]
mod rate_limit_tests;
#[cfg(test)]
mod router_tests;
#[cfg(test)]
mod testing;

pub use app::{Api, ApiError};
pub use config::ApiConfig;
pub use keys::{UnfitKey, hash_chosen_key, hash_key, new_api_key};
pub use metrics::ApiMetrics;
pub use paging::{Items, read_cursor};
pub use rate_limits::{
    ForwardedHeader, Networks, NotAForwardedHeader, NotARate, NotNetworks, Proxies, Rate, RateLimitConfig,
};
#[cfg(any(test, feature = "fuzzing"))]
pub use routes::fuzzing;
pub use routes::orders::timeline::{
    BalanceEntry, DeadLetter, Gateway, GatewayAttempt, KafkaPlace, Reader, RequestView, Timeline,
    TimelineEvent,
};
pub use routes::orders::view::OrderView;
pub use routes::{openapi, router};
pub use server::serve;
pub use verification::{NotVerified, Run, Verifier};
