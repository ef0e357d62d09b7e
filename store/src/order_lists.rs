//! Orders, many at once: lists, newest first, and what has changed since somebody looked.
//!
//! A list walks one user or one status by comparing pairs, `(status, order_id) < (word, before)`, where an equality
//! would say the same. With the equality the planner may walk all orders by their ids, newest first, in the hope of
//! meeting enough that match; where few do, that reads the whole table. In the order of the pairs only one index can
//! be walked, whatever the planner believes of the table.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_domain::orders::{LastModification, OrderStatus};
use ordermill_schemas::orders::{Discount, OrderLine};
use ordermill_schemas::stock::StockLine;
use sqlx::PgPool;
use sqlx::types::Json;
use uuid::Uuid;

use crate::CorruptText;
use crate::orders::{OrderRecord, OrderRow, read_orders};
use crate::text::Word as _;

/// The statuses that clients know, each with the words of the table that are shown as it. A word that no version of
/// this program writes yet finds nothing.
const SHOWN: &[(&str, &[&str])] = &[
    ("PENDING", &["PENDING", "REJECTING"]),
    ("CONFIRMED", &["CONFIRMED"]),
    ("PARTIALLY_SHIPPED", &["PARTIALLY_SHIPPED"]),
    ("SHIPPED", &["SHIPPED"]),
    ("DELIVERED", &["DELIVERED"]),
    ("REJECTED", &["REJECTED"]),
    ("CANCELLING", &["CANCELLING"]),
    ("CANCELLED", &["CANCELLED"]),
    ("MODIFYING", &["MODIFYING", "MODIFICATION_APPLYING", "MODIFICATION_REFUSING"]),
];

/// The statuses that clients know.
pub fn shown_statuses() -> impl Iterator<Item = &'static str> {
    SHOWN.iter().map(|(shown, _)| *shown)
}

/// Orders in some of the table's statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<&'static str>);

impl Statuses {
    /// Those that are shown to clients as `shown`; `None` where clients know no such status.
    #[must_use]
    pub fn shown_as(shown: &str) -> Option<Statuses> {
        SHOWN.iter().find(|(name, _)| *name == shown).map(|(_, words)| Statuses(words.to_vec()))
    }

    /// All of them.
    #[must_use]
    pub fn all() -> Statuses {
        Statuses(OrderStatus::WORDS.iter().map(|(_, word)| *word).collect())
    }

    /// Those in which an order does not rest.
    fn under_way() -> Statuses {
        let under_way = OrderStatus::WORDS.iter().filter(|(status, _)| !status.is_resting());
        Statuses(under_way.map(|(_, word)| *word).collect())
    }

    /// Those that are among `others`, too.
    fn among(&self, others: &Statuses) -> Statuses {
        Statuses(self.0.iter().filter(|word| others.0.contains(word)).copied().collect())
    }
}

/// What stands before the first page: every order's id is below it.
fn below(before: Option<Uuid>) -> Uuid {
    before.unwrap_or(Uuid::max())
}

fn rows(records: Vec<OrderRecord>) -> Result<Vec<OrderRow>, sqlx::Error> {
    let rows: Result<Vec<OrderRow>, CorruptText> = records.into_iter().map(OrderRow::try_from).collect();
    Ok(rows?)
}

/// A user's newest orders, below `before` where that is given.
///
/// # Errors
/// Where the database fails.
pub async fn of_user(
    pool: &PgPool,
    user_id: Uuid,
    statuses: &Statuses,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<OrderRow>, sqlx::Error> {
    let records = read_orders!(
        "FROM orders WHERE (user_id, order_id) < ($1, $2) AND user_id >= $1 AND status = ANY($3)
         ORDER BY user_id DESC, order_id DESC LIMIT $4",
        user_id,
        below(before),
        &statuses.0 as _,
        limit,
    )
    .fetch_all(pool)
    .await?;
    rows(records)
}

/// Everybody's newest orders, below `before` where that is given. Where `overdue` is given, those whose deadline has
/// passed while they do not rest, or all others.
///
/// Each status is walked by itself and no further than the page, so the few of a rare one are found among millions.
///
/// # Errors
/// Where the database fails.
pub async fn of_everybody(
    pool: &PgPool,
    statuses: &Statuses,
    overdue: Option<bool>,
    now: Timestamp,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<OrderRow>, sqlx::Error> {
    let under_way = Statuses::under_way();
    // Nothing that rests is overdue, so those need not be walked.
    let walked = if overdue == Some(true) { statuses.among(&under_way) } else { statuses.clone() };
    let records = read_orders!(
        "FROM unnest($1::text[]) AS walked (word) CROSS JOIN LATERAL (
             SELECT * FROM orders
             WHERE (status, order_id) < (word, $2) AND status >= word
                 AND ($3::boolean IS NULL OR $3 = (word = ANY($4::text[]) AND deadline_at < $5))
             ORDER BY status DESC, order_id DESC LIMIT $6
         ) AS found
         ORDER BY order_id DESC LIMIT $6",
        &walked.0 as _,
        below(before),
        overdue,
        &under_way.0 as _,
        now.to_sqlx() as _,
        limit,
    )
    .fetch_all(pool)
    .await?;
    rows(records)
}

/// Those of `order_ids` whose version is above the one in `versions`, as they are now. One that can't be read says
/// so for itself: a newer program may write what this one does not know.
///
/// # Errors
/// Where the database fails.
pub async fn changed(
    pool: &PgPool,
    order_ids: &[Uuid],
    versions: &[i32],
) -> Result<Vec<(Uuid, Result<OrderRow, CorruptText>)>, sqlx::Error> {
    let records = read_orders!(
        "FROM unnest($1::uuid[], $2::int[]) AS seen (id, seen_version) JOIN orders ON order_id = id
         WHERE version > seen_version",
        order_ids,
        versions,
    )
    .fetch_all(pool)
    .await?;
    Ok(records.into_iter().map(|record| (record.order_id, OrderRow::try_from(record))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_the_table_is_shown_as_one_that_clients_know() {
        for (status, word) in OrderStatus::WORDS {
            let shown = SHOWN.iter().filter(|(_, words)| words.contains(word)).count();
            assert_eq!(shown, 1, "{status:?}");
        }
    }

    #[test]
    fn a_refusal_that_is_not_finished_is_found_as_pending() {
        assert_eq!(Statuses::shown_as("PENDING"), Some(Statuses(vec!["PENDING", "REJECTING"])));
        for unknown in ["REJECTING", "pending", "", "MODIFICATION_APPLYING"] {
            assert_eq!(Statuses::shown_as(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn what_rests_is_never_overdue() {
        let under_way = Statuses::under_way();
        assert!(under_way.0.contains(&"PENDING") && under_way.0.contains(&"REJECTING"));
        for shown in ["CONFIRMED", "PARTIALLY_SHIPPED", "SHIPPED", "DELIVERED", "REJECTED", "CANCELLED"] {
            let overdue = Statuses::shown_as(shown).unwrap().among(&under_way);
            assert_eq!(overdue, Statuses(Vec::new()), "{shown}");
        }
    }
}
