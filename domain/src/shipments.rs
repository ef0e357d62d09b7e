//! Shipments of orders: what left, and whether it has arrived. What may be shipped is the order's to say.

use jiff::Timestamp;
use ordermill_schemas::stock::StockLine;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::aggregate::{Aggregate, Kind};
use crate::times;

/// A part of an order that was sent off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipment {
    /// The order that it is a part of.
    pub order_id: Uuid,
    /// What is in it.
    pub lines: Vec<StockLine>,
    /// When it left.
    #[serde(with = "times::required")]
    pub created_at: Timestamp,
    /// When it arrived.
    #[serde(default, with = "times::optional", skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
}

impl Aggregate for Shipment {
    const KIND: Kind = Kind { owner: "order_id", ..Kind::new("shipments", "shipment") };
    type Bulk = ();
}
