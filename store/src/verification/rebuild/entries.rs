//! The entries of balances against the events that wrote them.

use ordermill_pipeline::audit::{Check, Found};
use sqlx::PgConnection;

use crate::verification::SHOWN;

/// Every entry is one event, with the same ordinal and figures. History is not held in memory: the database joins it.
pub(super) async fn check(connection: &mut PgConnection, check: &mut Check) -> Result<(), sqlx::Error> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM balance_entries"#);
    check.checked += count.fetch_one(&mut *connection).await?.unsigned_abs();
    let found = sqlx::query_as!(
        Found,
        r#"WITH logged AS (
               SELECT aggregate_id AS user_id, sequence,
                   CASE type WHEN 'balance.charged' THEN 'CHARGED' WHEN 'balance.captured' THEN 'USED'
                       WHEN 'balance.refunded' THEN 'REFUNDED' END AS kind,
                   (event ->> 'amount')::bigint AS amount,
                   (event ->> 'available')::numeric + (event ->> 'held')::numeric AS balance_after,
                   (event ->> 'order_id')::uuid AS order_id
               FROM event_log, LATERAL (SELECT convert_from(data, 'UTF8')::jsonb AS event) AS payload
               WHERE topic = 'balances'
                   AND type IN ('balance.charged', 'balance.captured', 'balance.refunded')
           ), booked AS (
               SELECT user_id, sequence, kind, amount, balance_after::numeric, order_id, entry_id
               FROM balance_entries
           )
           SELECT format('balance_entries of user %s, sequence %s: %s, but the log makes %s', user_id, sequence,
               coalesce(entry_id || ': ' || concat_ws(' ', b.kind, b.amount, b.balance_after, b.order_id), 'none'),
               coalesce(concat_ws(' ', l.kind, l.amount, l.balance_after, l.order_id), 'none')) AS "text!",
               count(*) OVER () AS "total!"
           FROM booked b FULL JOIN logged l USING (user_id, sequence)
           WHERE (b.kind, b.amount, b.balance_after, b.order_id)
               IS DISTINCT FROM (l.kind, l.amount, l.balance_after, l.order_id)
           ORDER BY user_id, sequence LIMIT $1"#,
        SHOWN,
    );
    check.found(found.fetch_all(connection).await?);
    Ok(())
}
