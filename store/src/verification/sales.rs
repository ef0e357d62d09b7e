//! The sums of sales against the events that they are made from.

use ordermill_pipeline::audit::Check;
use sqlx::PgConnection;

use crate::replay::sales;

/// Every sum is what the log makes of it.
pub(super) async fn check(connection: &mut PgConnection, sales_group: &str) -> Result<Check, sqlx::Error> {
    let mut check = Check::new("sales");
    sales::differences(connection, sales_group).await?.tell(&mut check);
    Ok(check)
}
