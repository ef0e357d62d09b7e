//! Events of a product's description and price.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Money;

events! {
    /// Descriptions and prices, keyed by product id.
    "product.created" v 1 ProductCreated key product_id;
    "product.changed" v 1 ProductChanged key product_id;
}

/// A product was added to the shop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProductCreated {
    /// The product.
    pub product_id: Uuid,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Its category, upper-cased.
    pub category: String,
    /// Its price, in the minor unit.
    pub price: Money,
}

/// A product's description or price was changed, or it was withdrawn or put on sale again. All of it is told, as it is
/// from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProductChanged {
    /// The product.
    pub product_id: Uuid,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Its category, upper-cased.
    pub category: String,
    /// Its price, in the minor unit.
    pub price: Money,
    /// It can't be ordered any more.
    pub withdrawn: bool,
}
