//! Whether everything adds up: the tables with each other, and with the log that they could be rebuilt from.
//!
//! All checks run in one transaction that sees one moment (`ordermill_pipeline::audit::snapshot`), so a
//! pipeline at work is no excuse for a figure that is off. Sums are made by the database; a query answers no more
//! violations than are told.

mod balances;
pub mod charges;
mod coupons;
mod orders;
mod payments;
mod rebuild;
mod sales;
mod shipments;
mod stock;

use jiff::Timestamp;
use ordermill_pipeline::audit::{Check, SHOWN_MAX};
use sqlx::PgConnection;

use crate::tables::count;

/// How many violations a query answers; it counts them all.
const SHOWN: i64 = SHOWN_MAX as i64;

/// Declares queries for violations. Each answers the first of them in words, with how many there are.
macro_rules! violations {
    ($($(#[$doc:meta])* $visibility:vis fn $name:ident($($parameter:ident: $Type:ty)?) = $sql:literal;)+) => {
        $(
            $(#[$doc])*
            $visibility async fn $name(
                connection: &mut sqlx::PgConnection,
                $($parameter: $Type)?
            ) -> Result<Vec<ordermill_pipeline::audit::Found>, sqlx::Error> {
                use ordermill_pipeline::audit::Found;
                sqlx::query_as!(Found, $sql, super::SHOWN, $($parameter)?).fetch_all(connection).await
            }
        )+
    };
}
use violations;

/// A check of that name that looks at all rows of a table.
async fn of_rows(
    connection: &mut PgConnection,
    name: &'static str,
    table: &str,
) -> Result<Check, sqlx::Error> {
    let checked = count(connection, table).await?;
    Ok(Check { checked, ..Check::new(name) })
}

/// Whose tables are as far as they have read.
#[derive(Clone, Copy, Debug)]
pub struct Groups {
    /// The group of the worker that writes orders.
    pub orders: &'static str,
    /// The group of the worker that counts sales.
    pub sales: &'static str,
}

/// Checks every table of the shop; `now` is what deadlines are held against.
///
/// # Errors
/// Where the database fails, or a row can't be read at all.
pub async fn check_all(
    connection: &mut PgConnection,
    groups: Groups,
    now: Timestamp,
) -> Result<Vec<Check>, sqlx::Error> {
    Ok(vec![
        balances::entries(connection).await?,
        balances::holds(connection).await?,
        stock::check(connection).await?,
        orders::check(connection, now).await?,
        payments::check(connection).await?,
        coupons::check(connection).await?,
        sales::check(connection, groups.sales).await?,
        rebuild::check(connection, groups.orders).await?,
    ])
}
