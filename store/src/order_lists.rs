//! Orders, many at once: lists, newest first, and what has changed since somebody looked.
//!
//! A list walks one user or one status by comparing pairs, `(status, key) < (word, before)`, where an equality
//! would say the same. With the equality the planner may walk all orders by their ids, newest first, in the hope of
//! meeting enough that match; where few do, that reads the whole table. In the order of the pairs only one index can
//! be walked, whatever the planner believes of the table.

use jiff::Timestamp;
use ordermill_domain::orders::{Order, OrderStatus};
use sqlx::PgPool;
use uuid::Uuid;

use crate::documents::{self, word};

/// The statuses that clients know.
pub fn shown_statuses() -> impl Iterator<Item = OrderStatus> + Clone {
    OrderStatus::ALL.into_iter().filter(|status| status.shown() == *status)
}

/// What stands before the first page: every order's id is below it.
fn below(before: Option<Uuid>) -> Uuid {
    before.unwrap_or(Uuid::max())
}

fn orders(found: Vec<(Uuid, Order)>) -> Vec<Order> {
    found.into_iter().map(|(_, order)| order).collect()
}

/// The statuses that are shown as one of these.
fn shown_as(shown: &[OrderStatus]) -> impl Iterator<Item = OrderStatus> {
    OrderStatus::ALL.into_iter().filter(|status| shown.contains(&status.shown()))
}

/// A user's newest orders in those statuses, below `before` where that is given.
///
/// # Errors
/// Where the database fails.
pub async fn of_user(
    pool: &PgPool,
    user_id: Uuid,
    shown: &[OrderStatus],
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Order>, sqlx::Error> {
    let mut statement = documents::select();
    statement.push("orders WHERE (user_id, key) < (").push_bind(user_id).push(", ").push_bind(below(before));
    statement.push(") AND user_id >= ").push_bind(user_id).push(" AND status = ANY(");
    statement.push_bind(shown_as(shown).map(word).collect::<Vec<String>>());
    statement.push(") ORDER BY user_id DESC, key DESC LIMIT ").push_bind(limit);
    Ok(orders(documents::all(statement, pool).await?))
}

/// Everybody's newest orders in those statuses, below `before` where that is given. Where `overdue` is given, those whose
/// deadline has passed while they do not rest, or all others.
///
/// Each status is walked by itself and no further than the page, so the few of a rare one are found among millions.
///
/// # Errors
/// Where the database fails.
pub async fn of_everybody(
    pool: &PgPool,
    shown: &[OrderStatus],
    overdue: Option<bool>,
    now: Timestamp,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Order>, sqlx::Error> {
    let (at_rest, open): (Vec<OrderStatus>, Vec<OrderStatus>) = shown_as(shown).partition(|s| s.is_resting());
    // Nothing that rests is overdue, so those need not be walked.
    let at_rest = if overdue == Some(true) { Vec::new() } else { at_rest };
    let mut statement = documents::select();
    statement.push("(");
    for (walked, index, then) in [(open, "IS NOT NULL", " UNION ALL "), (at_rest, "IS NULL", "")] {
        statement
            .push("SELECT found.* FROM unnest(")
            .push_bind(walked.into_iter().map(word).collect::<Vec<String>>());
        statement
            .push("::text[]) AS walked (word) CROSS JOIN LATERAL (SELECT * FROM orders WHERE open_until ");
        statement.push(index).push(" AND (status, key) < (word, ").push_bind(below(before));
        statement.push(") AND status >= word");
        if let Some(overdue) = overdue {
            statement.push(" AND coalesce(open_until < ").push_bind(now.as_microsecond());
            statement.push(", false) = ").push_bind(overdue);
        }
        statement
            .push(" ORDER BY status DESC, key DESC LIMIT ")
            .push_bind(limit)
            .push(") AS found")
            .push(then);
    }
    statement.push(") AS found ORDER BY key DESC LIMIT ").push_bind(limit);
    Ok(orders(documents::all(statement, pool).await?))
}

/// Those of `order_ids` whose visible version is above the one in `versions`, as they are now. One that can't be read says
/// so for itself: a newer program may write what this one does not know.
///
/// # Errors
/// Where the database fails.
pub async fn changed(
    pool: &PgPool,
    order_ids: &[Uuid],
    versions: &[i32],
) -> Result<Vec<(Uuid, Result<Order, sqlx::Error>)>, sqlx::Error> {
    let mut statement = documents::select();
    statement.push("unnest(").push_bind(order_ids).push("::uuid[], ").push_bind(versions);
    statement.push("::int[]) AS seen (id, seen_version) JOIN orders ON key = id");
    statement.push(" WHERE (state ->> 'visible_version')::int > seen_version");
    let rows = documents::rows(statement, pool).await?;
    Ok(rows.iter().map(|row| (row.key, row.read())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_shown_as_one_that_clients_know() {
        let known: Vec<OrderStatus> = shown_statuses().collect();
        assert!(OrderStatus::ALL.into_iter().all(|status| known.contains(&status.shown())));
        assert_eq!(known.len(), 9);
        assert!(!known.contains(&OrderStatus::Rejecting));
    }
}
