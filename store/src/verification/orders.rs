//! Orders against their deadlines, their reservations, their payments and their shipments.

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx as _;
use ordermill_pipeline::audit::{Check, Found};
use sqlx::PgConnection;

use super::{SHOWN, shipments};

/// How long an order may be past its deadline before it counts as stuck: whoever gives it up looks twice a second, and
/// what was held for it is given back after that.
const GRACE: SignedDuration = SignedDuration::from_secs(5);

/// Every order rests or is within its deadline, and where it rests, stock, payment and shipments are as it says.
pub(super) async fn check(connection: &mut PgConnection, now: Timestamp) -> Result<Check, sqlx::Error> {
    let mut check = Check::new("orders");
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM orders"#);
    check.checked = count.fetch_one(&mut *connection).await?.unsigned_abs();
    check.found(stuck(connection, now).await?);
    check.found(totals(connection).await?);
    check.found(stock(connection).await?);
    check.found(money(connection).await?);
    check.found(shipments::lines(connection).await?);
    check.found(shipments::statuses(connection).await?);
    check.found(orphans(connection).await?);
    Ok(check)
}

async fn stuck(connection: &mut PgConnection, now: Timestamp) -> Result<Vec<Found>, sqlx::Error> {
    let late = now.checked_sub(GRACE).unwrap_or(Timestamp::MIN);
    sqlx::query_as!(
        Found,
        r#"SELECT format('order %s: stuck, %s with stock %s and payment %s since %s; its deadline was %s', order_id,
               status, coalesce(change ->> 'stock', stock_step), coalesce(change ->> 'payment', payment_step),
               updated_at, deadline_at) AS "text!",
               count(*) OVER () AS "total!"
           FROM orders
           WHERE status IN ('PENDING', 'REJECTING', 'MODIFYING', 'MODIFICATION_APPLYING',
                   'MODIFICATION_REFUSING', 'CANCELLING')
               AND deadline_at < $2
           ORDER BY deadline_at LIMIT $1"#,
        SHOWN,
        late.to_sqlx() as _,
    )
    .fetch_all(connection)
    .await
}

async fn totals(connection: &mut PgConnection) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"SELECT format('order %s: subtotal %s and total %s, but lines of %s and discounts of %s', order_id,
               subtotal, total, gross, discount) AS "text!",
               count(*) OVER () AS "total!"
           FROM orders,
               LATERAL (SELECT coalesce(sum(unit_price * quantity), 0) AS gross
                   FROM jsonb_to_recordset(lines) AS line (unit_price bigint, quantity bigint)) AS l,
               LATERAL (SELECT coalesce(sum(amount), 0) AS discount
                   FROM jsonb_to_recordset(discounts) AS part (amount bigint)) AS d
           WHERE subtotal <> gross OR total <> gross - discount
           ORDER BY order_id LIMIT $1"#,
        SHOWN,
    )
    .fetch_all(connection)
    .await
}

/// A sold order has exactly its lines deducted, one that was not sold has nothing, and none has a modification open.
///
/// An order has each product once, and so has its reservation: where neither has more lines than the other and each
/// line of the one is in the other, they are the same.
async fn stock(connection: &mut PgConnection) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"SELECT format('order %s: %s with lines %s, but stock is %s%s', order_id, o.status,
               (SELECT jsonb_agg(jsonb_build_object('product_id', product_id, 'quantity', quantity))
                   FROM jsonb_to_recordset(o.lines) AS line (product_id uuid, quantity bigint)),
               coalesce(concat_ws(' ', r.state, r.lines), 'absent'),
               ' with the modification ' || r.change::text) AS "text!",
               count(*) OVER () AS "total!"
           FROM orders o LEFT JOIN stock_reservations r USING (order_id)
           WHERE CASE
               WHEN o.status IN ('CONFIRMED', 'PARTIALLY_SHIPPED', 'SHIPPED', 'DELIVERED') THEN
                   r.state IS DISTINCT FROM 'DEDUCTED' OR r.change IS NOT NULL OR NOT o.lines @> r.lines
                   OR jsonb_array_length(o.lines) <> jsonb_array_length(r.lines)
               WHEN o.status IN ('REJECTED', 'CANCELLED') THEN
                   r.state IN ('RESERVED', 'DEDUCTED', 'SHORT') OR r.change IS NOT NULL
               ELSE false
           END
           ORDER BY order_id LIMIT $1"#,
        SHOWN,
    )
    .fetch_all(connection)
    .await
}

/// Of a sold order its total is kept, of one that was not sold nothing; an order that rests says what its charges make,
/// and nothing is asked of the gateway for it.
async fn money(connection: &mut PgConnection) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"SELECT format('order %s: %s with a total of %s, %s paid and %s refunded, but payment is %s%s: '
                   '%s paid and %s refunded in all',
               order_id, o.status, o.total, o.paid, o.refunded,
               coalesce(concat_ws(' ', p.state, p.amount), 'absent'), ' with the refund ' || p.refund::text,
               charged.paid, charged.refunded) AS "text!",
               count(*) OVER () AS "total!"
           FROM orders o LEFT JOIN payments p USING (order_id),
               LATERAL (
                   SELECT coalesce(sum(amount) FILTER (WHERE state = 'COMPLETED'), 0) AS paid,
                       coalesce(sum(refunded), 0) AS refunded
                   FROM (
                       SELECT p.amount, p.refunded, p.state
                       UNION ALL
                       SELECT amount, refunded, state FROM jsonb_to_recordset(p.earlier)
                           AS charge (amount bigint, refunded bigint, state text)
                   ) AS charges
               ) AS charged,
               LATERAL (
                   SELECT CASE WHEN o.status IN ('REJECTED', 'CANCELLED') THEN 0 ELSE o.total END AS kept
               ) AS due
           WHERE o.status NOT IN ('PENDING', 'REJECTING', 'MODIFYING', 'MODIFICATION_APPLYING',
                   'MODIFICATION_REFUSING', 'CANCELLING')
               AND (o.paid <> charged.paid OR o.refunded <> charged.refunded
                   OR charged.paid - charged.refunded <> due.kept
                   OR p.state IN ('REQUESTED', 'VOIDING') OR p.refund IS NOT NULL
                   OR (p.order_id IS NULL AND o.status <> 'REJECTED'))
           ORDER BY order_id LIMIT $1"#,
        SHOWN,
    )
    .fetch_all(connection)
    .await
}

/// What is held or paid for orders that do not exist.
async fn orphans(connection: &mut PgConnection) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"SELECT format('order %s: does not exist, but has stock %s and payment %s', order_id,
               coalesce(r.state, 'absent'), coalesce(p.state, 'absent')) AS "text!",
               count(*) OVER () AS "total!"
           FROM stock_reservations r FULL JOIN payments p USING (order_id)
           WHERE NOT EXISTS (SELECT FROM orders o WHERE o.order_id = coalesce(r.order_id, p.order_id))
           ORDER BY order_id LIMIT $1"#,
        SHOWN,
    )
    .fetch_all(connection)
    .await
}
