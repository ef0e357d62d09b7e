//! State rebuilt from the log against the tables, see [`crate::replay`].
//!
//! In memory are one aggregate, a page of events and rows, and the sums of products and coupons. The database sorts the
//! log by an index, or on its disk.

use ordermill_pipeline::audit::{self, Check, Slice};
use sqlx::PgConnection;

use crate::replay::{Fold, Pass, Totals, last_page};

/// Every row of the state tables is what the log makes of it.
pub(super) async fn check(connection: &mut PgConnection, orders_group: &str) -> Result<Check, sqlx::Error> {
    let mut check = Check::new("rebuild");
    let applied = audit::applied(&mut *connection, orders_group).await?;
    let totals = compare(connection, Fold::of_aggregates(Slice::ALL, &applied), &mut check).await?;
    last_page(&mut *connection, totals, true).await?.1.tell(&mut check);
    compare(connection, Fold::of_user_coupons(Slice::ALL, &applied), &mut check).await?;
    Ok(check)
}

async fn compare(
    connection: &mut PgConnection,
    fold: Fold<'_>,
    check: &mut Check,
) -> Result<Totals, sqlx::Error> {
    let mut pass = Pass::begin(&mut *connection, fold).await?.compared();
    while let Some(page) = pass.next(&mut *connection).await? {
        page.undecodable.iter().for_each(|text| check.violation(text));
    }
    let (totals, found) = pass.finish();
    found.tell(check);
    Ok(totals)
}
