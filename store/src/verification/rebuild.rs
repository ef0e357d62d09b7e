//! State rebuilt from the log against the tables, see [`crate::replay`].
//!
//! In memory are one aggregate, a page of events and rows, and the sums of products and coupons. The database sorts the
//! log by an index, or on its disk.

use ordermill_pipeline::audit::{self, Applied, Check, Histories, Slice};
use sqlx::PgConnection;

use crate::replay::compare::Comparison;
use crate::replay::{Fold, Totals, user_coupons};

/// Every row of the state tables is what the log makes of it.
pub(super) async fn check(connection: &mut PgConnection, orders_group: &str) -> Result<Check, sqlx::Error> {
    let mut check = Check::new("rebuild");
    let applied = audit::applied(&mut *connection, orders_group).await?;
    let totals = aggregates(&mut *connection, &applied, &mut check).await?;
    let mut of_totals = Comparison::of_totals();
    of_totals.page(&mut *connection, &totals.into_page()).await?;
    of_totals.finish().tell(&mut check);
    of_users_coupons(connection, &applied, &mut check).await?;
    Ok(check)
}

async fn aggregates(
    connection: &mut PgConnection,
    applied: &Applied,
    check: &mut Check,
) -> Result<Totals, sqlx::Error> {
    let histories = Histories::of_aggregates(&mut *connection, Slice::ALL).await?;
    let (fold, comparison) =
        (Fold::of_aggregates(Slice::ALL, applied), Comparison::of_aggregates(Slice::ALL));
    compare(connection, histories, fold, comparison, check).await
}

async fn of_users_coupons(
    connection: &mut PgConnection,
    applied: &Applied,
    check: &mut Check,
) -> Result<(), sqlx::Error> {
    let histories = user_coupons(&mut *connection, Slice::ALL).await?;
    let fold = Fold::of_user_coupons(Slice::ALL, applied);
    compare(connection, histories, fold, Comparison::of_user_coupons(Slice::ALL), check).await?;
    Ok(())
}

async fn compare(
    connection: &mut PgConnection,
    mut histories: Histories,
    mut fold: Fold<'_>,
    mut comparison: Comparison,
    check: &mut Check,
) -> Result<Totals, sqlx::Error> {
    loop {
        let events = histories.next(&mut *connection).await?;
        if events.is_empty() {
            break;
        }
        events.iter().for_each(|(owner, logged)| fold.take(*owner, logged));
        let page = fold.page();
        page.undecodable.iter().for_each(|text| check.violation(text));
        comparison.page(&mut *connection, &page).await?;
    }
    histories.close(&mut *connection).await?;
    let (page, totals) = fold.finish();
    comparison.page(connection, &page).await?;
    comparison.finish().tell(check);
    Ok(totals)
}
