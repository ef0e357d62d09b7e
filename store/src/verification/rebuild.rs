//! State rebuilt from the log against the tables.
//!
//! The log is folded in its order, page by page, by the same functions that the workers decide with. What is
//! rebuilt stands in memory, one state for each order, shipment, product and user; the tables are then read page by
//! page beside it. That is enough for some millions of orders; for more, fold one slice of the ids at a time.

mod coupons;
mod difference;
mod entries;
mod fold;
mod tables;

use ordermill_domain::coupons::{Coupon, WELCOME};
use ordermill_pipeline::audit::{self, Applied, Check, LoggedEvent};
use sqlx::PgConnection;

use fold::Rebuilt;

/// How many rows are read at once.
const PAGE_ROWS: i64 = 5_000;

/// Every row of the state tables is what the log makes of it.
pub(super) async fn check(connection: &mut PgConnection, orders_group: &str) -> Result<Check, sqlx::Error> {
    let mut check = Check::new("rebuild");
    let applied = audit::applied(&mut *connection, orders_group).await?;
    let mut rebuilt = fold(&mut *connection, &applied, &mut check).await?;
    tables::products(&mut *connection, &mut rebuilt.products, &mut check).await?;
    tables::stock(&mut *connection, &mut rebuilt.stock.shelves, &mut check).await?;
    tables::reservations(&mut *connection, &mut rebuilt.stock.reservations, &mut check).await?;
    tables::balances(&mut *connection, &mut rebuilt.payments.balances, &mut check).await?;
    tables::payments(&mut *connection, &mut rebuilt.payments.payments, &mut check).await?;
    tables::orders(&mut *connection, &mut rebuilt.orders.orders, &mut check).await?;
    tables::shipments(&mut *connection, &mut rebuilt.shipments, &mut check).await?;
    coupons::tables(&mut *connection, &mut rebuilt.coupons, &mut check).await?;
    entries::check(connection, &mut check).await?;
    Ok(check)
}

async fn fold(
    connection: &mut PgConnection,
    applied: &Applied,
    check: &mut Check,
) -> Result<Rebuilt, sqlx::Error> {
    let mut rebuilt = Rebuilt::default();
    // It stands in the tables from the beginning.
    rebuilt.coupons.coupons.insert(WELCOME, Coupon::welcome());
    let mut after = 0;
    loop {
        let page: Vec<LoggedEvent> = audit::page(&mut *connection, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { return Ok(rebuilt) };
        after = last.position;
        for logged in &page {
            match logged.event() {
                Ok(event) => rebuilt.evolve(&event, logged.at, applied.includes(logged)),
                Err(error) => check.violation(format!("log position {}: {error}", logged.position)),
            }
        }
    }
}
