//! Events of stock: what is held for an order, and goods that came or went.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::failure::Failure;

/// How many of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockLine {
    /// The product.
    pub product_id: Uuid,
    /// How many, at least 1.
    pub quantity: i32,
}

events! {
    //! Reservations, keyed by order id, and received goods, keyed by product id.

    /// All lines of an order are held.
    "stock.reserved" v 1 StockReserved key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// What is held.
        pub lines: Vec<StockLine>,
    }

    /// Nothing is held for an order, since a line can't be had.
    "stock.refused" v 1 StockRefused key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// Why.
        pub failure: Failure,
    }

    /// What was held for an order has left the stock for good.
    "stock.deducted" v 1 StockDeducted key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// What left.
        pub lines: Vec<StockLine>,
    }

    /// What was held or deducted for an order can be ordered again.
    "stock.released" v 1 StockReleased key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// What came back.
        pub lines: Vec<StockLine>,
    }

    /// What a modification needs more of is held. What it needs less of stays with the order until it is carried out.
    "stock.change_reserved" v 1 StockChangeReserved key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// The modification.
        pub round: i32,
        /// What is held besides what the order has.
        pub taken: Vec<StockLine>,
        /// What the order will give back.
        pub returning: Vec<StockLine>,
        /// What the order will have then.
        pub lines: Vec<StockLine>,
    }

    /// Nothing is held for a modification, since a line can't be had.
    "stock.change_refused" v 1 StockChangeRefused key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// The modification.
        pub round: i32,
        /// Why.
        pub failure: Failure,
    }

    /// A modification was carried out: what was held for it has left the stock, what it no longer needs has come back.
    "stock.changed" v 1 StockChanged key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// The modification.
        pub round: i32,
        /// What left in addition.
        pub taken: Vec<StockLine>,
        /// What came back.
        pub returned: Vec<StockLine>,
        /// What the order has of the stock now.
        pub lines: Vec<StockLine>,
    }

    /// What was held for a modification can be ordered again; the order keeps what it had.
    "stock.change_released" v 1 StockChangeReleased key order_id of order_id {
        /// The order.
        pub order_id: Uuid,
        /// The modification.
        pub round: i32,
        /// What came back.
        pub lines: Vec<StockLine>,
    }

    /// Goods were received or written off.
    "stock.adjusted" v 1 StockAdjusted key product_id {
        /// The product.
        pub product_id: Uuid,
        /// How many came (above 0) or went (below 0).
        pub delta: i64,
        /// Why, in the words of whoever did it.
        pub reason: String,
    }
}
