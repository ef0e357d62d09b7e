//! Balances, and their history as clients read it.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_domain::payments::Balance;
use ordermill_pipeline::journal::{Projection, Shortfall, Statement};
use ordermill_schemas::{Event, Money};
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

/// The entry that an event makes, which is the `sequence`-th of its balance. Money leaves the balance when it is captured; a
/// hold moves none.
#[must_use]
pub fn entry_of(event_id: Uuid, event: &Event, sequence: i32, at: Timestamp) -> Option<EntryRow> {
    let (user_id, kind, amount, balance_after, order_id) = match event {
        Event::BalanceCharged(e) => (e.user_id, "CHARGED", e.amount, e.available + e.held, None),
        Event::BalanceCaptured(e) => (e.user_id, "USED", e.amount, e.available + e.held, Some(e.order_id)),
        Event::BalanceRefunded(e) => {
            (e.user_id, "REFUNDED", e.amount, e.available + e.held, Some(e.order_id))
        }
        _ => return None,
    };
    let (entry_id, kind, created_at) = (event_id, kind.to_owned(), at);
    Some(EntryRow { entry_id, user_id, sequence, kind, amount, balance_after, order_id, created_at })
}

/// The entries that some events make, to be written with them.
pub(crate) struct Entries(Vec<EntryRow>);

impl Entries {
    /// Those of the events; `None` where they make none.
    pub(crate) fn of<'e>(
        events: impl Iterator<Item = (Uuid, &'e Event, i32)>,
        at: Timestamp,
    ) -> Option<Entries> {
        let entries: Vec<EntryRow> = events
            .filter_map(|(event_id, event, sequence)| entry_of(event_id, event, sequence, at))
            .collect();
        (!entries.is_empty()).then_some(Entries(entries))
    }
}

impl Projection for Entries {
    fn add(&self, statement: &mut Statement) {
        let Entries(entries) = self;
        let ids = statement.bind(entries.iter().map(|e| e.entry_id).collect::<Vec<_>>());
        let users = statement.bind(entries.iter().map(|e| e.user_id).collect::<Vec<_>>());
        let sequences = statement.bind(entries.iter().map(|e| e.sequence).collect::<Vec<_>>());
        let kinds = statement.bind(entries.iter().map(|e| e.kind.as_str()).collect::<Vec<_>>());
        let amounts = statement.bind(entries.iter().map(|e| e.amount).collect::<Vec<_>>());
        let after = statement.bind(entries.iter().map(|e| e.balance_after).collect::<Vec<_>>());
        let orders = statement.bind(entries.iter().map(|e| e.order_id).collect::<Vec<_>>());
        let at = statement.bind(entries.iter().map(|e| e.created_at.to_sqlx()).collect::<Vec<_>>());
        statement.must(
            "balance_entered",
            format!(
                "INSERT INTO balance_entries (entry_id, user_id, sequence, kind, amount, balance_after, order_id,
                     created_at)
                 SELECT * FROM unnest({ids}::uuid[], {users}::uuid[], {sequences}::integer[], {kinds}::text[],
                     {amounts}::bigint[], {after}::bigint[], {orders}::uuid[], {at}::timestamptz[])
                 RETURNING 1"
            ),
            entries.len(),
            Shortfall::Conflict,
        );
    }
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
        "SELECT entry_id, user_id, kind, amount, balance_after, order_id, created_at, sequence
         FROM balance_entries
         WHERE user_id = $1 AND ($2::int IS NULL OR sequence < $2) ORDER BY sequence DESC LIMIT $3",
        user_id,
        before,
        limit,
    )
    .fetch_all(pool)
    .await?;
    let entries = rows.into_iter().map(|row| EntryRow {
        entry_id: row.entry_id,
        user_id: row.user_id,
        sequence: row.sequence,
        kind: row.kind,
        amount: row.amount,
        balance_after: row.balance_after,
        order_id: row.order_id,
        created_at: row.created_at.to_jiff(),
    });
    Ok(entries.collect())
}
