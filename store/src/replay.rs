//! The state tables, made again from the log alone.
//!
//! The log is read aggregate by aggregate ([`Histories`](ordermill_pipeline::audit::Histories)). Each history is folded
//! by the functions that the workers decide with, and becomes the rows that it should stand in. So there is one aggregate
//! in memory at a time, with a page of rows, and none of it grows with the number of orders, users or events.
//!
//! Three kinds of rows hang on more than one aggregate. A shelf is the sum of what its orders and its adjustments moved,
//! and a coupon counts its claims: these sums ([`Totals`]) stand in memory, one for each product and coupon. A user's
//! coupon is changed by its claim, by orders and by itself, so its history is read once more, sorted by its id.
//!
//! What is made is compared with the live tables ([`compare`]), written to a shadow of them ([`shadow`]), or shown as
//! of some moment ([`moment`]).

pub mod compare;
mod difference;
mod fold;
pub mod moment;
mod rows;
pub mod shadow;
mod state;
pub mod swap;
mod tables;

pub use difference::{Column, Difference, Side, What};
pub use fold::{Fold, Page, Totals, user_coupons};
pub use tables::{NOT_IN_THE_LOG, TABLES, Table};
