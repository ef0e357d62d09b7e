//! All SQL of the capabilities: what decisions load and write, and what is read.
//!
//! Architecture Invariant: no other crate holds SQL but `pipeline`, which holds that of its own tables.

pub mod acceptance;
pub mod balances;
pub mod coupons;
pub mod database_roles;
mod decision;
mod documents;
pub mod idempotency;
pub mod keys;
pub mod migrations;
pub mod notes;
pub mod order_lists;
pub mod orders;
pub mod payments;
pub mod product_lists;
pub mod products;
pub mod replay;
pub mod sales;
pub mod shipments;
pub mod stock;
mod tables;
pub mod timeline;
pub mod users;
pub mod verification;

pub use decision::{Decision, Written, decide, state, writes};
pub use documents::{find, word};
pub use tables::tables;
