//! Every event of Ordermill, declared once.
//!
//! An event type is a struct and one line in [`catalogue`]. From those two come its Kafka topic and
//! key, its place in an aggregate's history, its JSON Schema, and the public documents. The JSON files
//! and `docs/EVENTS.md` are written by the program `generate` of this crate and are never edited.
//!
//! Architecture Invariant: an event says what happened, in the past tense, and carries no name and no
//! e-mail address of a person. Whoever reads it needs no database.

pub mod balances;
mod catalogue;
pub mod coupons;
pub mod dead_letters;
pub mod documents;
pub mod failure;
pub mod headers;
pub mod orders;
pub mod payments;
pub mod products;
pub mod stock;

pub use catalogue::{CATALOGUE, DecodeError, Event, EventKind, EventType, Topic};

/// An amount of money in the minor unit of the one configured currency (KRW has no decimals).
pub type Money = i64;
