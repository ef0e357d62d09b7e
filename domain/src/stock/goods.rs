//! Products that are added, described and adjusted by hand.

use jiff::Timestamp;
use ordermill_schemas::Event;
use ordermill_schemas::products::{ProductChanged, ProductCreated};
use ordermill_schemas::stock::StockAdjusted;
use uuid::Uuid;

use super::Stock;
use crate::capability::{Capability as _, Decided};
use crate::products::{Product, ProductChange};

/// A product has fewer units than are to be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// How many there are.
    pub on_hand: i64,
}

impl Stock {
    /// Adds a product with its first units.
    pub fn create(&mut self, created: ProductCreated, units: i64) -> Vec<Decided> {
        let product_id = created.product_id;
        let received = (units > 0)
            .then(|| StockAdjusted { product_id, delta: units, reason: "first stock".to_owned() }.into());
        self.record(std::iter::once(created.into()).chain(received))
    }

    /// Changes what is known of a product; nothing where it is as wanted.
    pub fn describe(&mut self, product_id: Uuid, change: ProductChange) -> Vec<Decided> {
        let Some(product) = self.products.get(&product_id) else { return Vec::new() };
        let (known, mut described) = (product.clone(), product.clone());
        let changed = ProductChanged {
            product_id,
            name: change.name.unwrap_or(known.name),
            description: change.description.unwrap_or(known.description),
            category: change.category.unwrap_or(known.category),
            price: change.price.unwrap_or(known.price),
            withdrawn: change.withdrawn.unwrap_or(known.withdrawn),
        };
        described.describe(&changed, described.updated_at);
        if described == *product { Vec::new() } else { self.record([changed.into()]) }
    }

    /// Takes in so many units of a product, or takes them away where it is below 0.
    ///
    /// # Errors
    /// [`TooFew`] where fewer are there than are to be taken away, or more than can be counted would be.
    pub fn adjust(&mut self, product_id: Uuid, delta: i64, reason: String) -> Result<Vec<Decided>, TooFew> {
        let (on_hand, received) =
            self.shelves.get(&product_id).map_or((0, 0), |shelf| (shelf.on_hand, shelf.received));
        let is_possible = on_hand.checked_add(delta).is_some_and(|left| left >= 0);
        if !is_possible || received.checked_add(delta).is_none() {
            return Err(TooFew { on_hand });
        }
        Ok(self.record([StockAdjusted { product_id, delta, reason }.into()]))
    }

    /// The state after an event of products.
    pub(super) fn evolve_products(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::ProductCreated(e) => {
                self.products.insert(e.product_id, Product::created(e, at));
                // A product that nothing was received of has a shelf, too.
                self.shelves.entry(e.product_id).or_default();
            }
            Event::ProductChanged(e) => {
                if let Some(product) = self.products.get_mut(&e.product_id) {
                    product.describe(e, at);
                    product.sequence += 1;
                }
            }
            _ => {}
        }
    }
}
