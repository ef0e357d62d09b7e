//! What the gateway is to be asked for, and who asks.

use std::collections::HashSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx as _;
use ordermill_domain::payments::{GatewayTask, Payment};
use sqlx::PgPool;
use uuid::Uuid;

/// For how long one process alone asks the gateway for something: from when it is to be asked, from when it was taken over, and from each
/// renewal.
pub const LEASE: Duration = Duration::from_secs(15);

/// Something that the gateway is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The order.
    pub order_id: Uuid,
    /// What is to be asked.
    pub task: GatewayTask,
    /// The ordinal of the payment's event that it follows from.
    pub sequence: i32,
    /// That event: the cause of what the gateway answers.
    pub cause_id: Uuid,
    /// Its span.
    pub traceparent: String,
}

/// Has `holder` take over what nobody alone asks for any more, the oldest first; others leave it alone for the time of a lease.
///
/// It is looked for among the orders that do not rest: an order waits for what its payment asks the gateway for.
///
/// # Errors
/// Where the database fails.
pub async fn take_over(
    pool: &PgPool,
    holder: Uuid,
    now: Timestamp,
    at_most: i64,
) -> Result<Vec<Intent>, sqlx::Error> {
    let (late, until) = (now - lease(), now + lease());
    let rows = sqlx::query!(
        r#"WITH due AS (
               SELECT key, sequence FROM orders o
               -- One look at the index for each, also where the planner takes the payments for few.
               CROSS JOIN LATERAL (
                   SELECT (state #>> '{asked,at}')::bigint AS asked_at, (state #>> '{asked,sequence}')::int AS sequence
                   FROM payments p WHERE p.key = o.key LIMIT 1) p
               WHERE open_until IS NOT NULL AND asked_at < $1 AND NOT EXISTS (
                   SELECT FROM gateway_lease l
                   WHERE l.order_id = o.key AND l.sequence = p.sequence AND l.leased_until >= $2)
               ORDER BY asked_at LIMIT $3
           ), leased AS (
               -- In one order by all, so that two can't wait for each other in a circle.
               INSERT INTO gateway_lease AS l (order_id, sequence, holder, leased_until)
               SELECT key, sequence, $4::uuid, $5::timestamptz FROM due ORDER BY key
               ON CONFLICT (order_id) DO UPDATE
                   SET sequence = excluded.sequence, holder = excluded.holder, leased_until = excluded.leased_until
                   WHERE l.leased_until < $2 OR l.sequence < excluded.sequence
               RETURNING order_id
           ), ended AS (
               DELETE FROM gateway_lease l WHERE l.leased_until < $2
                   AND NOT EXISTS (SELECT FROM payments p WHERE p.key = l.order_id AND p.state ? 'asked')
           )
           SELECT p.key AS "key!", p.state::text AS "state!", asked.event_id AS "event_id!",
               asked.traceparent AS "traceparent!"
           FROM leased JOIN payments p ON p.key = leased.order_id
           -- One look at the index for each, also where the planner takes the log for small.
           CROSS JOIN LATERAL (
               SELECT e.event_id, e.traceparent FROM event_log e
               WHERE e.about @> ARRAY[p.key] AND e.aggregate_id = p.key AND e.topic = 'payments'
                   AND e.sequence = (p.state #>> '{asked,sequence}')::int LIMIT 1) asked"#,
        late.as_microsecond(),
        now.to_sqlx() as _,
        at_most,
        holder,
        until.to_sqlx() as _,
    )
    .fetch_all(pool)
    .await?;
    let mut intents = Vec::with_capacity(rows.len());
    for row in rows {
        let payment: Payment =
            serde_json::from_str(&row.state).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let (Some(task), Some(asked)) = (payment.task(), payment.asked) else { continue };
        intents.push(Intent {
            order_id: row.key,
            task,
            sequence: asked.sequence,
            cause_id: row.event_id,
            traceparent: row.traceparent,
        });
    }
    Ok(intents)
}

/// Leases anew what `holder` asks for: orders, each with the ordinal of the payment's event that it follows from. Answers those of which
/// `holder` alone asks. Of the others somebody else does, or the gateway need not be asked for that any more.
///
/// # Errors
/// Where the database fails.
pub async fn renew(
    pool: &PgPool,
    holder: Uuid,
    now: Timestamp,
    asked: &[(Uuid, i32)],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let (order_ids, sequences): (Vec<Uuid>, Vec<i32>) = asked.iter().copied().unzip();
    let until = now + lease();
    let kept = sqlx::query_scalar!(
        r#"INSERT INTO gateway_lease AS l (order_id, sequence, holder, leased_until)
           SELECT a.order_id, a.sequence, $3::uuid, $5::timestamptz
           FROM unnest($1::uuid[], $2::int[]) AS a (order_id, sequence)
           -- One look at the index for each, also where the planner takes the payments for few.
           CROSS JOIN LATERAL (
               SELECT 1 FROM payments p
               WHERE p.key = a.order_id AND (p.state #>> '{asked,sequence}')::int = a.sequence LIMIT 1) p
           -- In one order by all, so that two can't wait for each other in a circle.
           ORDER BY a.order_id
           ON CONFLICT (order_id) DO UPDATE
               SET sequence = excluded.sequence, holder = excluded.holder, leased_until = excluded.leased_until
               WHERE l.holder = excluded.holder OR l.leased_until < $4 OR l.sequence < excluded.sequence
           RETURNING order_id AS "order_id!""#,
        &order_ids,
        &sequences,
        holder,
        now.to_sqlx() as _,
        until.to_sqlx() as _,
    )
    .fetch_all(pool)
    .await?;
    Ok(kept.into_iter().collect())
}

/// What `holder` has leased is anybody's.
///
/// # Errors
/// Where the database fails.
pub async fn release(pool: &PgPool, holder: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM gateway_lease WHERE holder = $1", holder).execute(pool).await?;
    Ok(())
}

fn lease() -> SignedDuration {
    SignedDuration::try_from(LEASE).unwrap_or(SignedDuration::MAX)
}
