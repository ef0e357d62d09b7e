//! Charges as the gateway's ledger is compared with them. Read afresh at every call, since the ledger is read at a
//! moment of its own.

use ordermill_domain::payments::ChargeState;
use ordermill_schemas::Money;
use sqlx::PgPool;
use uuid::Uuid;

use crate::text::Word as _;

/// What our side says of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeRow {
    /// The order.
    pub order_id: Uuid,
    /// The charge.
    pub charge_id: Uuid,
    /// What it is to take.
    pub amount: Money,
    /// What was paid back of it.
    pub refunded: Money,
    /// What the gateway is being asked to pay back of it, and may have paid back already.
    pub refunding: Money,
    /// What became of it.
    pub state: ChargeState,
}

/// A charge as the queries answer it.
struct Row {
    order_id: Uuid,
    charge_id: Uuid,
    amount: Money,
    refunded: Money,
    refunding: Money,
    state: String,
}

impl Row {
    fn into_charge(self) -> Result<ChargeRow, sqlx::Error> {
        let Row { order_id, charge_id, amount, refunded, refunding, state } = self;
        Ok(ChargeRow { order_id, charge_id, amount, refunded, refunding, state: ChargeState::parse(&state)? })
    }
}

/// Every charge of these orders, and of those whose newest charge is one of `charge_ids`, if the gateway has it for
/// another order. An older charge that it has for another is not found; then nobody has the charge.
///
/// # Errors
/// Where the database fails.
pub async fn of(
    pool: &PgPool,
    order_ids: &[Uuid],
    charge_ids: &[Uuid],
) -> Result<Vec<ChargeRow>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT p.order_id, c.charge_id AS "charge_id!", c.amount AS "amount!", c.refunded AS "refunded!",
               c.state AS "state!", refunding AS "refunding!"
           FROM payments p,
               LATERAL (
                   SELECT p.charge_id, p.amount, p.refunded, p.state
                   UNION ALL
                   SELECT charge_id, amount, refunded, state FROM jsonb_to_recordset(p.earlier)
                       AS charge (charge_id uuid, amount bigint, refunded bigint, state text)
               ) AS c,
               LATERAL (
                   SELECT coalesce(sum(part.amount), 0)::bigint AS refunding
                   FROM jsonb_to_recordset(p.refund -> 'parts') AS part (charge_id uuid, amount bigint)
                   WHERE part.charge_id = c.charge_id
               ) AS r
           WHERE p.order_id = ANY($1) OR p.charge_id = ANY($2)"#,
        order_ids,
        charge_ids,
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Row::into_charge).collect()
}

/// Completed charges that the gateway must know, in order of `order_id`: those of orders above `after`, at most
/// `limit`, but all of the last order.
///
/// # Errors
/// Where the database fails.
pub async fn completed(pool: &PgPool, after: Uuid, limit: i64) -> Result<Vec<ChargeRow>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT p.order_id, c.charge_id AS "charge_id!", c.amount AS "amount!", c.refunded AS "refunded!",
               c.state AS "state!", refunding AS "refunding!"
           FROM payments p,
               LATERAL (
                   SELECT p.charge_id, p.amount, p.refunded, p.state
                   UNION ALL
                   SELECT charge_id, amount, refunded, state FROM jsonb_to_recordset(p.earlier)
                       AS charge (charge_id uuid, amount bigint, refunded bigint, state text)
               ) AS c,
               LATERAL (
                   SELECT coalesce(sum(part.amount), 0)::bigint AS refunding
                   FROM jsonb_to_recordset(p.refund -> 'parts') AS part (charge_id uuid, amount bigint)
                   WHERE part.charge_id = c.charge_id
               ) AS r
           WHERE p.order_id > $1 AND c.state = 'COMPLETED' AND c.amount > 0
           ORDER BY p.order_id FETCH FIRST ($2) ROWS WITH TIES"#,
        after,
        limit,
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Row::into_charge).collect()
}
