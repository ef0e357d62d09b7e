//! What a load says at its end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::latency::Percentiles;

/// What became of the orders; the last line of the load's output. Times are microseconds since 1970.
///
/// Programs of others read it: nothing is added and nothing renamed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Orders that were sent.
    pub sent: u64,
    /// Those that were answered with 202.
    pub accepted: u64,
    /// When the first order was sent.
    pub first_sent_us: i64,
    /// When the first 202 came.
    pub first_accepted_us: i64,
    /// When the last 202 came.
    pub last_accepted_us: i64,
    /// From the moment an order was to be sent to its 202, without those that were held until they rested.
    pub accept: Percentiles,
    /// From the moment an order was to be sent to the answer that says CONFIRMED, of those that were held for it.
    pub settle: Percentiles,
    /// What went wrong, and how often. An order that was not sent for lack of time is here, too.
    pub errors: BTreeMap<String, u64>,
}

/// How well the load kept its times; the line before the last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lateness {
    /// How much later than they should have been orders were sent; 0 in the closed loop.
    pub delay: Percentiles,
}
