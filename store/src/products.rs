//! Products with their stock, as the front reads them.

use ordermill_domain::products::Product;
use ordermill_domain::stock::Stock;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::documents;

/// A product as a client reads it.
#[derive(Clone, Debug)]
pub struct StockedProduct {
    /// The product.
    pub product_id: Uuid,
    /// What is known of it.
    pub product: Product,
    /// What can still be ordered.
    pub stock: i64,
}

impl StockedProduct {
    /// The product as it stands in a capability's state.
    #[must_use]
    pub fn in_state(state: &Stock, product_id: Uuid) -> Option<StockedProduct> {
        let product = state.products.get(&product_id)?.clone();
        let stock = state.shelves.get(&product_id)?.on_hand;
        Some(StockedProduct { product_id, product, stock })
    }
}

/// The same as the statements read it.
#[derive(FromRow)]
pub(crate) struct Stocked {
    #[sqlx(flatten)]
    row: documents::Row,
    on_hand: i64,
}

impl Stocked {
    pub(crate) fn read(&self) -> Result<StockedProduct, sqlx::Error> {
        Ok(StockedProduct { product_id: self.row.key, product: self.row.read()?, stock: self.on_hand })
    }
}

/// A product; `None` where there is none of that id.
///
/// # Errors
/// Where the database fails.
pub async fn find(pool: &PgPool, product_id: Uuid) -> Result<Option<StockedProduct>, sqlx::Error> {
    let row: Option<Stocked> = sqlx::query_as(
        "SELECT p.key, p.state::text AS state, p.bulk::text AS bulk, on_hand
         FROM products p JOIN stock USING (key) WHERE key = $1",
    )
    .bind(product_id)
    .fetch_optional(pool)
    .await?;
    row.map(|row| row.read()).transpose()
}
