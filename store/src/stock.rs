//! Stock as it is read.

use sqlx::PgPool;
use uuid::Uuid;

/// How many of a product can still be ordered; `None` where there is no such product.
///
/// # Errors
/// Where the database fails.
pub async fn on_hand(pool: &PgPool, product_id: Uuid) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!("SELECT on_hand FROM stock WHERE key = $1", product_id).fetch_optional(pool).await
}
