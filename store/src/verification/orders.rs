//! Orders against their deadlines, their reservations, their payments and their shipments.

use jiff::{SignedDuration, Timestamp};
use ordermill_pipeline::audit::Check;
use sqlx::PgConnection;

use super::{of_rows, shipments, violations};

/// How long an order may be past its deadline before it counts as stuck: whoever gives it up looks twice a second, and
/// what was held for it is given back after that.
const GRACE: SignedDuration = SignedDuration::from_secs(5);

/// Every order rests or is within its deadline, and where it rests, stock, payment and shipments are as it says.
pub(super) async fn check(connection: &mut PgConnection, now: Timestamp) -> Result<Check, sqlx::Error> {
    let mut check = of_rows(connection, "orders", "orders").await?;
    let late = now.checked_sub(GRACE).unwrap_or(Timestamp::MIN).as_microsecond();
    check.found(stuck(connection, late).await?);
    check.found(totals(connection).await?);
    check.found(stock(connection).await?);
    check.found(money(connection).await?);
    check.found(shipments::lines(connection).await?);
    check.found(shipments::statuses(connection).await?);
    check.found(orphans(connection).await?);
    Ok(check)
}

violations! {
    fn stuck(late: i64) =
        r#"SELECT format('order %s: stuck, %s with stock %s and payment %s since %s; its deadline was %s', key, status,
               coalesce(change ->> 'stock', stock), coalesce(change ->> 'payment', payment),
               to_timestamp(updated_at / 1e6), to_timestamp(open_until / 1e6)) AS "text!",
               count(*) OVER () AS "total!"
           FROM orders, jsonb_to_record(state) AS said (stock text, payment text, change jsonb, updated_at bigint)
           WHERE open_until < $2
           ORDER BY open_until LIMIT $1"#;

    fn totals() =
        r#"SELECT format('order %s: subtotal %s and total %s, but lines of %s and discounts of %s', key,
               subtotal, total, gross, discount) AS "text!",
               count(*) OVER () AS "total!"
           FROM orders, json_to_record(bulk) AS said (subtotal bigint, total bigint, discounts jsonb, lines jsonb),
               LATERAL (SELECT coalesce(sum(unit_price * quantity), 0) AS gross
                   FROM jsonb_to_recordset(lines) AS line (unit_price bigint, quantity bigint)) AS l,
               LATERAL (SELECT coalesce(sum(amount), 0) AS discount
                   FROM jsonb_to_recordset(discounts) AS part (amount bigint)) AS d
           WHERE subtotal <> gross OR total <> gross - discount
           ORDER BY key LIMIT $1"#;

    /// A sold order has exactly its lines deducted, one that was not sold has nothing, and none has a modification open.
    ///
    /// An order has each product once, and so has its reservation: where neither has more lines than the other and each
    /// line of the one is in the other, they are the same.
    fn stock() =
        r#"SELECT format('order %s: %s with lines %s, but stock is %s%s', key, o.status,
               (SELECT jsonb_agg(jsonb_build_object('product_id', product_id, 'quantity', quantity))
                   FROM json_to_recordset(o.bulk -> 'lines') AS line (product_id uuid, quantity bigint)),
               coalesce(concat_ws(' ', r.state ->> 'state', r.bulk::jsonb), 'absent'),
               ' with the modification ' || (r.state ->> 'change')) AS "text!",
               count(*) OVER () AS "total!"
           FROM orders o LEFT JOIN stock_reservations r USING (key)
           WHERE CASE
               WHEN o.status IN ('CONFIRMED', 'PARTIALLY_SHIPPED', 'SHIPPED', 'DELIVERED') THEN
                   r.state ->> 'state' IS DISTINCT FROM 'DEDUCTED' OR r.state ->> 'change' IS NOT NULL
                   OR NOT (o.bulk -> 'lines')::jsonb @> r.bulk::jsonb
                   OR json_array_length(o.bulk -> 'lines') <> json_array_length(r.bulk)
               WHEN o.status IN ('REJECTED', 'CANCELLED') THEN
                   r.state ->> 'state' IN ('RESERVED', 'DEDUCTED', 'SHORT') OR r.state ->> 'change' IS NOT NULL
               ELSE false
           END
           ORDER BY key LIMIT $1"#;

    /// Of a sold order its total is kept, of one that was not sold nothing; an order that rests says what its charges make,
    /// and nothing is asked of the gateway for it.
    fn money() =
        r#"SELECT format('order %s: %s with a total of %s, %s paid and %s refunded, but payment is %s%s: '
                   '%s paid and %s refunded in all',
               key, o.status, total, o.paid, o.refunded,
               coalesce(concat_ws(' ', p.state #>> '{charges,-1,state}', p.state #>> '{charges,-1,amount}'), 'absent'),
               ' with the refund ' || (p.state ->> 'refund'), charged.paid, charged.refunded) AS "text!",
               count(*) OVER () AS "total!"
           FROM orders o LEFT JOIN payments p USING (key),
               json_to_record(o.bulk) AS said (total bigint),
               LATERAL (
                   SELECT coalesce(sum(amount) FILTER (WHERE state = 'COMPLETED'), 0) AS paid,
                       coalesce(sum(refunded), 0) AS refunded
                   FROM jsonb_to_recordset(p.state -> 'charges')
                       AS charge (amount bigint, refunded bigint, state text)
               ) AS charged,
               LATERAL (
                   SELECT CASE WHEN o.status IN ('REJECTED', 'CANCELLED') THEN 0 ELSE total END AS kept
               ) AS due
           WHERE o.open_until IS NULL
               AND (o.paid <> charged.paid OR o.refunded <> charged.refunded
                   OR charged.paid - charged.refunded <> due.kept
                   OR p.state #>> '{charges,-1,state}' IN ('REQUESTED', 'VOIDING')
                   OR p.state ->> 'refund' IS NOT NULL OR (p.key IS NULL AND o.status <> 'REJECTED'))
           ORDER BY key LIMIT $1"#;

    /// What is held or paid for orders that do not exist.
    fn orphans() =
        r#"SELECT format('order %s: does not exist, but has stock %s and payment %s', key,
               coalesce(r.state ->> 'state', 'absent'), coalesce(p.state #>> '{charges,-1,state}', 'absent')) AS "text!",
               count(*) OVER () AS "total!"
           FROM stock_reservations r FULL JOIN payments p USING (key)
           WHERE NOT EXISTS (SELECT FROM orders o WHERE o.key = coalesce(r.key, p.key))
           ORDER BY key LIMIT $1"#;
}
