//! Products with their stock, as the front adds and reads them.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_schemas::Money;
use ordermill_schemas::products::{ProductChanged, ProductCreated};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

/// A product as a client reads it.
#[derive(Clone, Debug)]
pub struct ProductRow {
    /// The product.
    pub product_id: Uuid,
    /// The name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// The category, upper-cased.
    pub category: String,
    /// The price.
    pub price: Money,
    /// What can still be ordered.
    pub stock: i64,
    /// It can't be ordered any more.
    pub withdrawn: bool,
    /// The ordinal of the last event that described it.
    pub sequence: i32,
    /// When it was added.
    pub created_at: Timestamp,
    /// When description or price last changed, or when it was withdrawn or put on sale again.
    pub updated_at: Timestamp,
}

/// Adds a product with its first stock.
///
/// # Errors
/// Where the database fails.
pub async fn insert(
    connection: &mut PgConnection,
    product: &ProductCreated,
    stock: i64,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    // The history of stock has an event only where there was something to receive.
    let sequence = i32::from(stock > 0);
    sqlx::query!(
        "WITH product AS (
             INSERT INTO products (product_id, name, description, category, price, sequence, created_at,
                 updated_at)
             VALUES ($1, $2, $3, $4, $5, 1, $8, $8)
         )
         INSERT INTO stock (product_id, on_hand, received, sequence, updated_at) VALUES ($1, $6, $6, $7, $8)",
        product.product_id,
        product.name,
        product.description,
        product.category,
        product.price,
        stock,
        sequence,
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A product; `None` where there is none of that id.
///
/// # Errors
/// Where the database fails.
pub async fn find(
    executor: impl PgExecutor<'_>,
    product_id: Uuid,
) -> Result<Option<ProductRow>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT product_id, name, description, category, price, on_hand, withdrawn, p.sequence,
             created_at, p.updated_at
         FROM products p JOIN stock USING (product_id) WHERE product_id = $1",
        product_id,
    )
    .fetch_optional(executor)
    .await?;
    Ok(row.map(|row| ProductRow {
        product_id: row.product_id,
        name: row.name,
        description: row.description,
        category: row.category,
        price: row.price,
        stock: row.on_hand,
        withdrawn: row.withdrawn,
        sequence: row.sequence,
        created_at: row.created_at.to_jiff(),
        updated_at: row.updated_at.to_jiff(),
    }))
}

/// Locks a product and reads all that can be changed of it, with the ordinal of its last event; `None` where there is
/// none of that id. Whoever needs its stock, too, reads it afterwards: what is not locked may be out of date by the time
/// that the lock is there.
///
/// # Errors
/// Where the database fails.
pub async fn lock(
    connection: &mut PgConnection,
    product_id: Uuid,
) -> Result<Option<(ProductChanged, i32)>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT product_id, name, description, category, price, withdrawn, sequence FROM products
         WHERE product_id = $1 FOR UPDATE",
        product_id,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| {
        let product = ProductChanged {
            product_id: row.product_id,
            name: row.name,
            description: row.description,
            category: row.category,
            price: row.price,
            withdrawn: row.withdrawn,
        };
        (product, row.sequence)
    }))
}

/// Writes a product that has been locked, with the ordinal of the event that says so.
///
/// # Errors
/// Where the database fails.
pub async fn change(
    connection: &mut PgConnection,
    product: &ProductChanged,
    sequence: i32,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE products SET name = $2, description = $3, category = $4, price = $5, withdrawn = $6, sequence = $7,
             updated_at = $8
         WHERE product_id = $1",
        product.product_id,
        product.name,
        product.description,
        product.category,
        product.price,
        product.withdrawn,
        sequence,
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}
