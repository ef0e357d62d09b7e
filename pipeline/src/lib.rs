//! The plumbing of Ordermill: the event log, the relay that brings it to Kafka, the consumer runtime
//! that brings it to the workers, retries and dead letters.
//!
//! Architecture Invariant: nothing here knows what an order is. The word for what a record is about is its key, and for what
//! it belongs to its correlation. Events and topics are parameters, which the shop makes of its catalogue
//! (`ordermill_wire`).

pub mod audit;
pub mod authenticity;
pub mod backlog;
mod canary;
pub mod clock;
pub mod consumer;
pub mod database;
mod database_sockets;
pub mod dead_letters;
pub mod follower;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod headers;
pub mod heartbeat;
pub mod journal;
pub mod kafka;
pub mod kafka_usage;
pub mod label;
pub mod log;
mod loopback;
pub mod metrics;
pub mod others;
pub mod pacing;
pub mod partition;
pub mod pulse;
mod raw_record;
pub mod readiness;
pub mod record;
pub mod relay;
pub mod retry;
pub mod stored_header;
pub mod supervised;
#[cfg(test)]
mod testing;
pub mod topics;
pub mod trace;
pub mod wake;
mod warm_connections;
pub mod words;
