//! Balances as the front changes and reads them; what payments do to them is in [`crate::payments`].

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_schemas::Money;
use ordermill_schemas::balances::BalanceCharged;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// A balance as a client reads it.
#[derive(Clone, Debug)]
pub struct BalanceRow {
    /// What can be spent.
    pub available: Money,
    /// What is held for orders that are being paid.
    pub held: Money,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A charge as it was booked.
#[derive(Clone, Debug)]
pub struct Charged {
    /// The event.
    pub event: BalanceCharged,
    /// Its ordinal in the balance's history.
    pub sequence: i32,
}

/// Opens the balance of a new user, at 0.
///
/// # Errors
/// Where the database fails.
pub async fn open(connection: &mut PgConnection, user_id: Uuid, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO balances (user_id, sequence, updated_at) VALUES ($1, 1, $2)",
        user_id,
        now.to_sqlx() as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts money in and writes the history; `None` where there is no such user. The row stays locked until the
/// caller's transaction ends, in which it appends the event.
///
/// # Errors
/// Where the database fails.
pub async fn charge(
    connection: &mut PgConnection,
    user_id: Uuid,
    entry_id: Uuid,
    amount: Money,
    now: Timestamp,
) -> Result<Option<Charged>, sqlx::Error> {
    let row = sqlx::query!(
        r#"WITH charged AS (
               UPDATE balances b SET available = available + $2, sequence = sequence + 1, updated_at = $4
               FROM users u WHERE b.user_id = $1 AND u.user_id = $1 AND u.erased_at IS NULL
               RETURNING available, held, sequence
           ), entry AS (
               INSERT INTO balance_entries (entry_id, user_id, sequence, kind, amount, balance_after, created_at)
               SELECT $3, $1, sequence, 'CHARGED', $2, available + held, $4 FROM charged
           )
           SELECT available, held, sequence FROM charged"#,
        user_id,
        amount,
        entry_id,
        now.to_sqlx() as _,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Charged {
        event: BalanceCharged { user_id, amount, available: row.available, held: row.held },
        sequence: row.sequence,
    }))
}

/// A balance; `None` where there is no such user.
///
/// # Errors
/// Where the database fails.
pub async fn find(pool: &PgPool, user_id: Uuid) -> Result<Option<BalanceRow>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT available, held, updated_at FROM balances JOIN users USING (user_id)
         WHERE user_id = $1 AND erased_at IS NULL",
        user_id,
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| BalanceRow {
        available: row.available,
        held: row.held,
        updated_at: row.updated_at.to_jiff(),
    }))
}

/// An entry of a balance's history.
#[derive(Clone, Debug)]
pub struct EntryRow {
    /// The entry.
    pub entry_id: Uuid,
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
    /// The ordinal of the change in the balance's history.
    pub sequence: i32,
}

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
    let rows = sqlx::query!(
        "SELECT entry_id, kind, amount, balance_after, order_id, created_at, sequence FROM balance_entries
         WHERE user_id = $1 AND ($2::int IS NULL OR sequence < $2) ORDER BY sequence DESC LIMIT $3",
        user_id,
        before,
        limit,
    )
    .fetch_all(pool)
    .await?;
    let entries = rows.into_iter().map(|row| EntryRow {
        entry_id: row.entry_id,
        kind: row.kind,
        amount: row.amount,
        balance_after: row.balance_after,
        order_id: row.order_id,
        created_at: row.created_at.to_jiff(),
        sequence: row.sequence,
    });
    Ok(entries.collect())
}
