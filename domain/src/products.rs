//! Products as they are described and priced. Where their units are is in `stock.rs`.

use jiff::Timestamp;
use ordermill_schemas::Money;
use ordermill_schemas::products::{ProductChanged, ProductCreated};
use serde::{Deserialize, Serialize};

use crate::aggregate::{Aggregate, Kind};
use crate::times;

/// A product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// The name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// The category, upper-cased.
    pub category: String,
    /// The price.
    pub price: Money,
    /// It can't be ordered any more.
    pub withdrawn: bool,
    /// How many events its history has.
    pub sequence: i32,
    /// When it was added.
    #[serde(with = "times::required")]
    pub created_at: Timestamp,
    /// When it last changed.
    #[serde(with = "times::required")]
    pub updated_at: Timestamp,
}

impl Aggregate for Product {
    const KIND: Kind = Kind::new("products", "product");
    type Bulk = ();
}

/// What is to be changed of a product; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProductChange {
    /// The name.
    pub name: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// The category, upper-cased.
    pub category: Option<String>,
    /// The price.
    pub price: Option<Money>,
    /// Whether it can't be ordered any more.
    pub withdrawn: Option<bool>,
}

impl Product {
    /// The product as it was added `at` that time.
    #[must_use]
    pub fn created(created: &ProductCreated, at: Timestamp) -> Product {
        Product {
            name: created.name.clone(),
            description: created.description.clone(),
            category: created.category.clone(),
            price: created.price,
            withdrawn: false,
            sequence: 1,
            created_at: at,
            updated_at: at,
        }
    }

    /// Describes it as a change says that happened `at` that time.
    pub fn describe(&mut self, changed: &ProductChanged, at: Timestamp) {
        self.name.clone_from(&changed.name);
        self.description.clone_from(&changed.description);
        self.category.clone_from(&changed.category);
        (self.price, self.withdrawn, self.updated_at) = (changed.price, changed.withdrawn, at);
    }
}
