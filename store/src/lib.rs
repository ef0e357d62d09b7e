//! All SQL of the capabilities: load what a batch touches, apply what was decided, queries.
//!
//! Architecture Invariant: no other crate holds SQL but `pipeline`, which holds that of its own tables.
//! Architecture Invariant: every writer locks rows in this order of tables, and by key within each:
//! orders, shipments, coupons, coupon_claims, coupon_uses, user_coupons, stock_reservations, products, stock, payments,
//! balances; sales alone, by its key in the order of `domain`.

pub mod acceptance;
pub mod balances;
pub mod coupons;
pub mod idempotency;
pub mod keys;
pub mod migrations;
pub mod order_lists;
pub mod orders;
pub mod payments;
pub mod product_lists;
pub mod products;
pub mod replay;
pub mod sales;
pub mod shipments;
pub mod stock;
mod text;
pub mod timeline;
pub mod users;
pub mod verification;
mod written;

pub use text::CorruptText;
pub use written::{Journal, Written};
