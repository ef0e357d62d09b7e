//! Shipments as they are read.

use sqlx::PgPool;
use uuid::Uuid;

/// The order of a shipment; `None` where there is no such shipment.
///
/// # Errors
/// Where the database fails.
pub async fn order_of(pool: &PgPool, shipment_id: Uuid) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!("SELECT order_id FROM shipments WHERE key = $1", shipment_id)
        .fetch_optional(pool)
        .await
}
