//! Stock against its reservations and its received goods.

use ordermill_pipeline::audit::Check;
use sqlx::PgConnection;

use super::{of_rows, violations};

/// Units that were received are on hand, reserved or deducted; and the last two are what the reservations say.
///
/// While a modification is under way, what it takes in addition is reserved, and the order's old lines are still
/// what is deducted for it. The lines of a reservation that is SHORT are not counted: it holds as much of them as the
/// shelf has, so no figure of its own says how much. Only a change of the stock by hand makes one SHORT, and the
/// shelf is told then until the reservation is released.
pub(super) async fn check(connection: &mut PgConnection) -> Result<Check, sqlx::Error> {
    let mut check = of_rows(connection, "stock", "stock").await?;
    check.found(figures(connection).await?);
    Ok(check)
}

violations! {
    fn figures() =
        r#"WITH holds AS (
               SELECT state ->> 'state' AS state, bulk::jsonb AS lines FROM stock_reservations
               UNION ALL
               SELECT 'RESERVED', state #> '{change,taken}' FROM stock_reservations
           ), lines AS (
               SELECT product_id AS key,
                   sum(quantity) FILTER (WHERE state = 'RESERVED') AS reserved,
                   sum(quantity) FILTER (WHERE state = 'DEDUCTED') AS deducted
               FROM holds, jsonb_to_recordset(lines) AS line (product_id uuid, quantity bigint)
               GROUP BY product_id
           ), adjustments AS (
               SELECT aggregate_id AS key, count(*) AS count,
                   sum(CASE topic_code WHEN (SELECT code FROM log_word WHERE word = 'stock')
                       THEN (convert_from(data, 'UTF8')::jsonb ->> 'delta')::bigint END) AS received
               FROM event_history WHERE topic = 'stock' AND type = 'stock.adjusted' GROUP BY aggregate_id
           )
           SELECT format('product %s: %s is %s, but %s %s', key, what, actual, source, expected)
               AS "text!", count(*) OVER () AS "total!"
           FROM stock s FULL JOIN lines USING (key) FULL JOIN adjustments USING (key),
               LATERAL (VALUES
                   ('received', s.received::numeric, 'what is on hand, reserved and deducted makes',
                       s.on_hand::numeric + s.reserved + s.deducted),
                   ('received', s.received, 'the log''s adjustments make', adjustments.received),
                   ('sequence', (s.state ->> 'sequence')::bigint, 'the number of the log''s adjustments is',
                       adjustments.count),
                   ('reserved', s.reserved, 'RESERVED reservations and modifications under way make', lines.reserved),
                   ('deducted', s.deducted, 'DEDUCTED reservations make', lines.deducted)
               ) AS sums (what, is_now, source, should_be),
               LATERAL (SELECT coalesce(is_now, 0) AS actual, coalesce(should_be, 0) AS expected) AS figures
           WHERE actual <> expected
           ORDER BY key, what LIMIT $1"#;
}
