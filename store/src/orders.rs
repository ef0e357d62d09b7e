//! Orders as clients, timers and the bench read them.

use jiff::Timestamp;
use ordermill_domain::orders::{Order, OrderStatus};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::documents::{self, word};

/// Orders that have not got through their steps in time and can still be given up, the most overdue first. Those that another
/// process is busy with are left to it.
///
/// # Errors
/// Where the database fails.
pub async fn expired(
    executor: impl PgExecutor<'_>,
    now: Timestamp,
    except: &[Uuid],
    at_most: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT key FROM orders WHERE open_until < $1 AND status IN ('PENDING', 'MODIFYING') AND key NOT IN (SELECT unnest($2::uuid[]))
         ORDER BY open_until LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED",
        now.as_microsecond(),
        except,
        at_most,
    )
    .fetch_all(executor)
    .await
}

/// How many orders do not rest although their deadline has passed.
///
/// # Errors
/// Where the database fails.
pub async fn count_overdue(pool: &PgPool, now: Timestamp) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "overdue!" FROM orders WHERE open_until < $1"#,
        now.as_microsecond(),
    )
    .fetch_one(pool)
    .await
}

/// The earliest deadline of the orders that do not rest; `None` where all do. Of each status only the order is looked at that was placed
/// first, so that it costs the same however many there are.
///
/// # Errors
/// Where the database fails.
pub async fn earliest_deadline(pool: &PgPool) -> Result<Option<Timestamp>, sqlx::Error> {
    let open: Vec<String> =
        OrderStatus::ALL.into_iter().filter(|status| !status.is_resting()).map(word).collect();
    // By an order that one index alone has, whatever the planner believes of the table (`order_lists.rs`).
    let earliest = sqlx::query_scalar!(
        "SELECT min(oldest.open_until) FROM unnest($1::text[]) AS walked (word)
         CROSS JOIN LATERAL (
             SELECT status, open_until FROM orders WHERE open_until IS NOT NULL AND status >= word
             ORDER BY status, key LIMIT 1) AS oldest
         WHERE oldest.status = word",
        &open,
    )
    .fetch_one(pool)
    .await?;
    Ok(earliest.and_then(|at_us| Timestamp::from_microsecond(at_us).ok()))
}

/// Those of `order_ids` that have come to rest; `None` beside the id of one that can't be read.
///
/// # Errors
/// Where the database fails.
pub async fn resting(pool: &PgPool, order_ids: &[Uuid]) -> Result<Vec<(Uuid, Option<Order>)>, sqlx::Error> {
    let mut statement = documents::select();
    // By the keys first: the index of orders at rest would be walked as a whole.
    statement.push("(SELECT * FROM orders WHERE key = ANY(").push_bind(order_ids);
    statement.push(") OFFSET 0) AS named WHERE open_until IS NULL");
    let rows = documents::rows(statement, pool).await?;
    Ok(rows.into_iter().map(|row| (row.key, row.read().ok())).collect())
}

/// Which of `order_ids` may still be charged: those that are under way, and those that can be modified.
///
/// # Errors
/// Where the database fails.
pub async fn chargeable(pool: &PgPool, order_ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT key FROM orders WHERE key = ANY($1) AND status NOT IN (
             'REJECTED', 'CANCELLED', 'PARTIALLY_SHIPPED', 'SHIPPED', 'DELIVERED')",
        order_ids,
    )
    .fetch_all(pool)
    .await
}

/// The oldest order that has not come to rest, of those whose id is `from` or later; `None` where all have.
///
/// Ids grow with time, so whoever asks again and again passes the last answer as `from`, and the database looks only
/// at what is newer: cheap while thousands of orders are under way.
///
/// # Errors
/// Where the database fails.
pub async fn oldest_unsettled(pool: &PgPool, from: Uuid) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT key FROM orders WHERE key >= $1 AND status IN ('PENDING', 'REJECTING') AND open_until IS NOT NULL ORDER BY key LIMIT 1",
        from,
    )
    .fetch_optional(pool)
    .await
}

/// How many orders there are in each status that any has. Reads the whole table.
///
/// # Errors
/// Where the database fails.
pub async fn count_by_status(pool: &PgPool) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let rows =
        sqlx::query!(r#"SELECT status, count(*) AS "orders!" FROM orders GROUP BY status ORDER BY status"#)
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().map(|row| (row.status, row.orders)).collect())
}

/// How long each confirmed order took whose id is `from` or later, in microseconds: from its acceptance to its last visible
/// change.
///
/// # Errors
/// Where the database fails.
pub async fn settling_times(pool: &PgPool, from: Uuid) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT (state ->> 'updated_at')::bigint - (bulk ->> 'created_at')::bigint AS "took_us!"
           FROM orders WHERE key >= $1 AND status = 'CONFIRMED'"#,
        from,
    )
    .fetch_all(pool)
    .await
}
