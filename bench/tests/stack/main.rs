//! What is measured, on real PostgreSQL and Kafka.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod budget;
mod pipeline;
mod run;
