//! Events of a product's description and price.

use uuid::Uuid;

use crate::Money;

events! {
    //! Descriptions and prices, keyed by product id.

    /// A product was added to the shop.
    "product.created" v 1 ProductCreated key product_id {
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
    "product.changed" v 1 ProductChanged key product_id {
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
}
