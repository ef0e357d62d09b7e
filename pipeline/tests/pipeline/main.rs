//! The pipeline on real PostgreSQL and Kafka: what the relay publishes and what consumers make of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod audit;
mod consumer;
mod dead_letters;
mod eras;
mod lost_kafka;
mod relay;
mod rewind;
mod support;
