//! The pipeline on real PostgreSQL and Kafka: what the relay publishes and what consumers make of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod attacker;
mod attacks;
mod audit;
mod batches;
mod consumer;
mod dead_letters;
mod dry_runs;
mod eras;
mod foreign;
mod foreign_ends;
mod handlers;
mod journal;
mod log;
mod loopback;
mod lost_kafka;
mod passed_over;
mod readiness;
mod relay;
mod rewind;
mod round_trips;
mod shares;
mod support;
mod vanished;
mod victim;
mod wire_keys;
mod wire_keys_at_work;
