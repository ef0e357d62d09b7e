//! Balances, and their history as clients read it: the log of their events.

use jiff::Timestamp;
use ordermill_domain::payments::Balance;
use ordermill_pipeline::log::stretches;
use ordermill_schemas::Money;
use sqlx::PgPool;
use uuid::Uuid;

use crate::documents::Row;

/// A balance; `None` where there is no such user.
///
/// # Errors
/// Where the database fails.
pub async fn find(pool: &PgPool, user_id: Uuid) -> Result<Option<Balance>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT key, state::text AS state, bulk::text AS bulk FROM balances JOIN users ON user_id = key
         WHERE key = $1 AND erased_at IS NULL",
    )
    .bind(user_id)
    .fetch_optional(pool)
    .await?;
    row.map(|row| row.read()).transpose()
}

/// An entry of a balance's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// The entry; the id of its event.
    pub entry_id: Uuid,
    /// Whose balance it is.
    pub user_id: Uuid,
    /// The ordinal of the change in the balance's history.
    pub sequence: i32,
    /// CHARGED, USED or REFUNDED.
    pub kind: String,
    /// How much, above 0.
    pub amount: Money,
    /// Available and held after it.
    pub balance_after: Money,
    /// The order, where it was for one.
    pub order_id: Option<Uuid>,
    /// When.
    pub created_at: Timestamp,
}

/// How many events of a balance are looked through at once for its entries, since holds make none.
const LOOK_THROUGH: i32 = 256;

/// The newest entries, below `before` where that is given.
///
/// # Errors
/// Where the database fails.
pub async fn entries(
    pool: &PgPool,
    user_id: Uuid,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<EntryRow>, sqlx::Error> {
    let newest = sqlx::query_scalar!(
        r#"SELECT (state ->> 'sequence')::integer AS "sequence!" FROM balances WHERE key = $1"#,
        user_id,
    );
    let mut above =
        newest.fetch_optional(pool).await?.unwrap_or_default().min(before.map_or(i32::MAX, |b| b - 1));
    let mut entries = Vec::new();
    while above > 0 && entries.len() as i64 != limit {
        let upto = above;
        above = (upto - LOOK_THROUGH).max(0);
        let rows = sqlx::query_as!(
            EntryRow,
            r#"SELECT entry_id AS "entry_id!", user_id AS "user_id!", kind AS "kind!", amount AS "amount!",
                   balance_after AS "balance_after!", order_id, created_at AS "created_at!", sequence AS "sequence!"
               FROM balance_entries
               WHERE about && $5 AND user_id = $1 AND sequence > $2 AND sequence <= $3 ORDER BY sequence DESC LIMIT $4"#,
            user_id,
            above,
            upto,
            limit - entries.len() as i64,
            &stretches(user_id, above + 1..=upto),
        )
        .fetch_all(pool)
        .await?;
        entries.extend(rows);
    }
    Ok(entries)
}
