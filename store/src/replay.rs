//! The state tables, made again from the log alone.
//!
//! The log is read aggregate by aggregate ([`Histories`](ordermill_pipeline::audit::Histories)). Each history is folded
//! by the functions that the workers decide with, and what comes of it are the documents that should stand in the tables.
//! So there is one aggregate in memory at a time, with a page of documents, and none of it grows with the number of
//! orders, users or events.
//!
//! Three kinds of documents hang on more than one aggregate. A shelf is the sum of what its orders and its adjustments
//! moved, and a coupon counts its claims: these sums ([`Totals`]) stand in memory, one for each product and coupon. A
//! user's coupon is changed by its claim, by orders and by itself, so its history is read once more, sorted by its id.
//!
//! What is made is compared with the live tables ([`compare`]), written to a shadow of them ([`shadow`]), or shown as
//! of some moment ([`moment`]).

mod capabilities;
pub mod compare;
mod difference;
mod fold;
pub mod moment;
mod page;
mod pass;
pub mod sales;
pub mod shadow;
pub mod swap;
mod tables;
mod totals;

pub use difference::{Column, Difference, Side, What};
pub use fold::Fold;
pub use page::Page;
pub use pass::{Pass, last_page};
pub use tables::{NOT_IN_THE_LOG, Table, tables};
pub use totals::Totals;
