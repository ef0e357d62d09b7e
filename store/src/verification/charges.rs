//! Charges as the gateway's ledger is compared with them.

use ordermill_domain::payments::ChargeState;
use ordermill_schemas::Money;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

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

impl ChargeRow {
    /// Whether the gateway must know the charge.
    #[must_use]
    pub fn must_be_known(&self) -> bool {
        self.state == ChargeState::Completed && self.amount > 0
    }
}

/// How many buckets charges are counted in.
pub const BUCKETS: usize = 1 << 16;

/// The bucket of a charge: its id's first two bytes. Ids are hashes, so each bucket has about as many.
#[must_use]
pub fn bucket_of(charge_id: Uuid) -> u16 {
    let [first, second, ..] = charge_id.into_bytes();
    u16::from_be_bytes([first, second])
}

/// Selects charges, each with what it has of the refund under way.
macro_rules! read_charges {
    ($source:literal, $($parameter:expr),+ $(,)?) => {
        sqlx::query!(
            r#"SELECT p.key AS order_id, c.charge_id AS "charge_id!", c.amount AS "amount!", c.refunded AS "refunded!",
                   to_jsonb(c.state) AS "state!: Json<ChargeState>", (
                       SELECT coalesce(sum(part.amount), 0)::bigint
                       FROM jsonb_to_recordset(p.state #> '{refund,parts}') AS part (charge_id uuid, amount bigint)
                       WHERE part.charge_id = c.charge_id
                   ) AS "refunding!"
               FROM payments p, jsonb_to_recordset(p.state -> 'charges')
                   AS c (charge_id uuid, amount bigint, refunded bigint, state text) "# + $source,
            $($parameter),+
        )
        .map(|row| ChargeRow {
            order_id: row.order_id,
            charge_id: row.charge_id,
            amount: row.amount,
            refunded: row.refunded,
            refunding: row.refunding,
            state: row.state.0,
        })
    };
}

/// Every charge of these orders, and of those whose newest charge is one of `charge_ids`, if the gateway has it for
/// another order. An older charge that it has for another is not found; then nobody has the charge.
///
/// All payments are read only where the orders don't have all of the charges.
///
/// # Errors
/// Where the database fails, or a row can't be read.
pub async fn of(
    executor: impl PgExecutor<'_>,
    order_ids: &[Uuid],
    charge_ids: &[Uuid],
) -> Result<Vec<ChargeRow>, sqlx::Error> {
    read_charges!(
        "WHERE p.key = ANY($1 || ARRAY(
             WITH elsewhere AS MATERIALIZED (
                 SELECT unnest($2::uuid[]) AS charge_id
                 EXCEPT
                 SELECT charge_id FROM payments, jsonb_to_recordset(state -> 'charges') AS charge (charge_id uuid)
                 WHERE key = ANY($1)
             )
             SELECT key FROM payments
             WHERE EXISTS (SELECT FROM elsewhere)
                 AND (state #>> '{charges,-1,charge_id}')::uuid IN (SELECT charge_id FROM elsewhere)
         ))",
        order_ids,
        charge_ids,
    )
    .fetch_all(executor)
    .await
}

/// How many charges there are in each bucket that the gateway must know.
///
/// # Errors
/// Where the database fails.
pub async fn count_completed(connection: &mut PgConnection) -> Result<Vec<u32>, sqlx::Error> {
    let counted = sqlx::query!(
        r#"SELECT get_byte(uuid_send(c.charge_id), 0) * 256 + get_byte(uuid_send(c.charge_id), 1) AS "bucket!",
               count(*) AS "count!"
           FROM payments p, jsonb_to_recordset(p.state -> 'charges')
               AS c (charge_id uuid, amount bigint, state text)
           WHERE c.state = 'COMPLETED' AND c.amount > 0 GROUP BY 1"#,
    )
    .fetch_all(connection)
    .await?;
    let mut counts = vec![0; BUCKETS];
    for row in counted {
        let count = usize::try_from(row.bucket).ok().and_then(|bucket| counts.get_mut(bucket));
        if let Some(count) = count {
            *count = u32::try_from(row.count).unwrap_or(u32::MAX);
        }
    }
    Ok(counts)
}

/// Charges of these buckets that the gateway must know, in order of `order_id`: those of orders above `after`, at most
/// `limit`, but all of the last order.
///
/// # Errors
/// Where the database fails.
pub async fn completed_in(
    connection: &mut PgConnection,
    buckets: &[i32],
    after: Uuid,
    limit: i64,
) -> Result<Vec<ChargeRow>, sqlx::Error> {
    read_charges!(
        "WHERE p.key > $2 AND c.state = 'COMPLETED' AND c.amount > 0
             AND get_byte(uuid_send(c.charge_id), 0) * 256 + get_byte(uuid_send(c.charge_id), 1) = ANY($1)
         ORDER BY p.key FETCH FIRST ($3) ROWS WITH TIES",
        buckets,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
}
