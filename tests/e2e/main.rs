//! The whole pipeline on real PostgreSQL and Kafka, from HTTP to the resting order and back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod attacks;
mod cancellations;
mod contention;
mod contract;
mod coupons;
mod dead_letters;
mod deadlines;
mod diagnosis;
mod documents;
mod faults;
mod gateway;
mod http;
mod instances;
mod keys;
mod modifications;
mod orders;
mod output;
mod overload;
mod personal_data;
mod rate_limits;
mod readiness;
mod recovery;
mod relay;
mod replay;
mod roles;
mod sales;
mod schemathesis;
mod secure;
mod shares;
mod shipments;
mod support;
mod timeline;
mod up;
mod verification;
mod wire_keys;
