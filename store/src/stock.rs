//! Stock and its reservations.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_domain::stock::{Reservation, ReservationState, Shelf, Stock, StockChange};
use ordermill_pipeline::consumer::HandlerError;
use ordermill_schemas::stock::StockLine;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::text::Word as _;

/// Locks and loads the reservations of `order_ids`, and the shelves of `product_ids` and of what is reserved.
///
/// # Errors
/// Where the database fails.
pub async fn load(
    connection: &mut PgConnection,
    order_ids: &[Uuid],
    mut product_ids: Vec<Uuid>,
) -> Result<Stock, HandlerError> {
    let rows = sqlx::query!(
        r#"SELECT order_id, state, lines AS "lines: Json<Vec<StockLine>>",
               change AS "change: Json<StockChange>", round, sequence
           FROM stock_reservations
           WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE"#,
        order_ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut reservations = BTreeMap::new();
    for row in rows {
        let state = ReservationState::parse(&row.state)?;
        let reservation = Reservation {
            state,
            lines: row.lines.0,
            change: row.change.map(|change| change.0),
            round: row.round,
            sequence: row.sequence,
        };
        reservations.insert(row.order_id, reservation);
    }
    for reservation in reservations.values() {
        let of_change = reservation.change.iter().flat_map(|change| &change.taken);
        product_ids.extend(reservation.lines.iter().chain(of_change).map(|line| line.product_id));
    }
    product_ids.sort_unstable();
    product_ids.dedup();
    let rows = sqlx::query!(
        "SELECT product_id, on_hand, reserved, deducted FROM stock
         WHERE product_id = ANY($1) ORDER BY product_id FOR UPDATE",
        &product_ids,
    )
    .fetch_all(connection)
    .await?;
    let shelves = rows.into_iter().map(|row| {
        (row.product_id, Shelf { on_hand: row.on_hand, reserved: row.reserved, deducted: row.deducted })
    });
    Ok(Stock { shelves: shelves.collect(), reservations })
}

/// Writes what differs between `before` and `after`.
///
/// # Errors
/// Where the database fails or a rule of it is broken: nothing below zero, nothing out of thin air.
pub async fn apply(
    connection: &mut PgConnection,
    before: &Stock,
    after: &Stock,
    now: Timestamp,
) -> Result<(), HandlerError> {
    let changed = |id: &Uuid, reservation: &Reservation| before.reservations.get(id) != Some(reservation);
    let reservations: Vec<_> = after.reservations.iter().filter(|(id, r)| changed(id, r)).collect();
    write_reservations(connection, &reservations).await?;
    let changed = |id: &Uuid, shelf: &Shelf| before.shelves.get(id) != Some(shelf);
    let shelves: Vec<_> = after.shelves.iter().filter(|(id, shelf)| changed(id, shelf)).collect();
    write_shelves(connection, &shelves, now).await
}

/// How many of a product can still be ordered; `None` where there is no such product.
///
/// # Errors
/// Where the database fails.
pub async fn on_hand(pool: &PgPool, product_id: Uuid) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!("SELECT on_hand FROM stock WHERE product_id = $1", product_id)
        .fetch_optional(pool)
        .await
}

/// What the front needs to know of a shelf before it adjusts it.
#[derive(Clone, Copy, Debug)]
pub struct ShelfRow {
    /// What can still be ordered.
    pub on_hand: i64,
    /// The ordinal of the last adjustment.
    pub sequence: i32,
}

/// Locks a product's shelf; `None` where there is no such product.
///
/// # Errors
/// Where the database fails.
pub async fn lock(connection: &mut PgConnection, product_id: Uuid) -> Result<Option<ShelfRow>, sqlx::Error> {
    sqlx::query_as!(
        ShelfRow,
        "SELECT on_hand, sequence FROM stock WHERE product_id = $1 FOR UPDATE",
        product_id,
    )
    .fetch_optional(connection)
    .await
}

/// Writes down that so many units came, or went where it is below 0. The shelf has been locked and has enough; the
/// caller appends the event.
///
/// # Errors
/// Where the database fails.
pub async fn adjust(
    connection: &mut PgConnection,
    product_id: Uuid,
    delta: i64,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE stock SET on_hand = on_hand + $2, received = received + $2, sequence = sequence + 1,
             updated_at = $3
         WHERE product_id = $1",
        product_id,
        delta,
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_reservations(
    connection: &mut PgConnection,
    reservations: &[(&Uuid, &Reservation)],
) -> Result<(), HandlerError> {
    if reservations.is_empty() {
        return Ok(());
    }
    let order_ids: Vec<Uuid> = reservations.iter().map(|(id, _)| **id).collect();
    let states: Vec<&str> = reservations.iter().map(|(_, r)| r.state.word()).collect();
    let lines: Vec<Json<&Vec<StockLine>>> = reservations.iter().map(|(_, r)| Json(&r.lines)).collect();
    let changes: Vec<Option<Json<&StockChange>>> =
        reservations.iter().map(|(_, r)| r.change.as_ref().map(Json)).collect();
    let rounds: Vec<i32> = reservations.iter().map(|(_, r)| r.round).collect();
    let sequences: Vec<i32> = reservations.iter().map(|(_, r)| r.sequence).collect();
    sqlx::query!(
        "INSERT INTO stock_reservations (order_id, state, lines, change, round, sequence)
         SELECT * FROM unnest($1::uuid[], $2::text[], $3::jsonb[], $4::jsonb[], $5::int[], $6::int[])
         ON CONFLICT (order_id) DO UPDATE SET state = excluded.state, lines = excluded.lines,
             change = excluded.change, round = excluded.round, sequence = excluded.sequence",
        &order_ids,
        states as _,
        lines as _,
        changes as _,
        &rounds,
        &sequences,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_shelves(
    connection: &mut PgConnection,
    shelves: &[(&Uuid, &Shelf)],
    now: Timestamp,
) -> Result<(), HandlerError> {
    if shelves.is_empty() {
        return Ok(());
    }
    let product_ids: Vec<Uuid> = shelves.iter().map(|(id, _)| **id).collect();
    let on_hand: Vec<i64> = shelves.iter().map(|(_, shelf)| shelf.on_hand).collect();
    let reserved: Vec<i64> = shelves.iter().map(|(_, shelf)| shelf.reserved).collect();
    let deducted: Vec<i64> = shelves.iter().map(|(_, shelf)| shelf.deducted).collect();
    // `received` is not touched: the table's check holds the three against it.
    sqlx::query!(
        "UPDATE stock s SET on_hand = t.on_hand, reserved = t.reserved, deducted = t.deducted, updated_at = $5
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[])
             AS t (product_id, on_hand, reserved, deducted)
         WHERE s.product_id = t.product_id",
        &product_ids,
        &on_hand,
        &reserved,
        &deducted,
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}
