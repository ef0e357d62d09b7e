//! Shipments of orders: what left, and whether it has arrived.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_schemas::stock::StockLine;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// A shipment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShipmentRow {
    /// The shipment.
    pub shipment_id: Uuid,
    /// The order that it is a part of.
    pub order_id: Uuid,
    /// What is in it.
    pub lines: Vec<StockLine>,
    /// The carrier's number for it.
    pub tracking_number: Option<String>,
    /// When it left.
    pub created_at: Timestamp,
    /// When it arrived.
    pub delivered_at: Option<Timestamp>,
}

/// Writes a shipment down. The caller holds its order's row.
///
/// # Errors
/// Where the database fails.
pub async fn insert(connection: &mut PgConnection, shipment: &ShipmentRow) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO shipments (shipment_id, order_id, lines, tracking_number, created_at)
         VALUES ($1, $2, $3, $4, $5)",
        shipment.shipment_id,
        shipment.order_id,
        Json(&shipment.lines) as _,
        shipment.tracking_number.as_deref(),
        shipment.created_at.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The order of a shipment; `None` where there is no such shipment.
///
/// # Errors
/// Where the database fails.
pub async fn order_of(pool: &PgPool, shipment_id: Uuid) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!("SELECT order_id FROM shipments WHERE shipment_id = $1", shipment_id)
        .fetch_optional(pool)
        .await
}

/// A shipment as it is. Whoever changes it holds its order's row before.
///
/// # Errors
/// Where the database fails.
pub async fn find(
    connection: &mut PgConnection,
    shipment_id: Uuid,
) -> Result<Option<ShipmentRow>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT shipment_id, order_id, lines AS "lines: Json<Vec<StockLine>>", tracking_number, created_at,
               delivered_at
           FROM shipments WHERE shipment_id = $1"#,
        shipment_id,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| ShipmentRow {
        shipment_id: row.shipment_id,
        order_id: row.order_id,
        lines: row.lines.0,
        tracking_number: row.tracking_number,
        created_at: row.created_at.to_jiff(),
        delivered_at: row.delivered_at.map(|at| at.to_jiff()),
    }))
}

/// Writes down that a shipment has arrived.
///
/// # Errors
/// Where the database fails.
pub async fn deliver(
    connection: &mut PgConnection,
    shipment_id: Uuid,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE shipments SET delivered_at = $2 WHERE shipment_id = $1",
        shipment_id,
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}
