//! Payments against the money that left balances for them, and came back.

use ordermill_pipeline::audit::Check;
use sqlx::PgConnection;

use super::{of_rows, violations};

/// Every charge that was completed from a balance took its amount from it, once, and what was refunded of the charges
/// came back to it; nothing else took or gave anything. While the gateway is to be asked, the order does not rest: by that
/// whoever takes over finds it.
pub(super) async fn check(connection: &mut PgConnection) -> Result<Check, sqlx::Error> {
    let mut check = of_rows(connection, "payments", "payments").await?;
    check.found(moved(connection).await?);
    check.found(others(connection).await?);
    check.found(forgotten(connection).await?);
    Ok(check)
}

violations! {
    /// A charge is one entry, so the amounts are the same in the same order. A refund is one entry, too, but takes from
    /// several charges, so there the sums are the same.
    fn moved() =
        r#"SELECT format('order %s: payment is %s, which takes %s and gives back %s, but %s were taken and %s came back',
               key, coalesce(concat_ws(' ', p.state #>> '{charges,-1,state}', p.state ->> 'method',
                   p.state #>> '{charges,-1,amount}'), 'absent'),
               coalesce(due.taken, '{}'), coalesce(due.returned, 0),
               coalesce(booked.taken, '{}'), coalesce(booked.returned, 0)) AS "text!",
               count(*) OVER () AS "total!"
           FROM payments p FULL JOIN (
               SELECT order_id AS key, array_agg(amount ORDER BY sequence) FILTER (WHERE kind = 'USED') AS taken,
                   sum(amount) FILTER (WHERE kind = 'REFUNDED') AS returned
               FROM balance_entries WHERE kind IN ('USED', 'REFUNDED') GROUP BY order_id
           ) AS booked USING (key),
               LATERAL (
                   SELECT array_agg(amount ORDER BY number) FILTER (WHERE state = 'COMPLETED' AND amount > 0) AS taken,
                       sum(refunded) AS returned
                   FROM jsonb_to_recordset(p.state -> 'charges')
                       AS charge (number integer, amount bigint, refunded bigint, state text)
                   WHERE p.state ->> 'method' = 'BALANCE'
               ) AS due
           WHERE due.taken IS DISTINCT FROM booked.taken OR coalesce(due.returned, 0) <> coalesce(booked.returned, 0)
           ORDER BY key LIMIT $1"#;

    fn others() =
        r#"SELECT format('order %s: paid by user %s, but entry %s (%s) is of user %s', key,
               p.state ->> 'user_id', entry_id, kind, e.user_id) AS "text!",
               count(*) OVER () AS "total!"
           FROM payments p JOIN balance_entries e ON e.order_id = p.key
           WHERE kind IN ('USED', 'REFUNDED') AND (p.state ->> 'user_id')::uuid <> e.user_id
           ORDER BY key LIMIT $1"#;

    fn forgotten() =
        r#"SELECT format('order %s: it is %s, but its payment asks the gateway since event %s', key,
               coalesce(o.status, 'absent'), p.state #>> '{asked,sequence}') AS "text!",
               count(*) OVER () AS "total!"
           FROM payments p LEFT JOIN orders o USING (key)
           WHERE p.state ? 'asked' AND o.open_until IS NULL
           ORDER BY key LIMIT $1"#;
}
