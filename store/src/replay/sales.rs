//! The sums of sales against the events that they are made from.

use ordermill_pipeline::audit::{self, SHOWN_MAX};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::compare::Found;
use super::difference::{Column, Difference, What};
use crate::tables::count;

/// Every sum is what the log makes of it, as far as the group has applied it. The database counts, in its own way: what
/// is wrong in the worker's arithmetic shows here, too.
///
/// A row that is missing counts as one whose figures are 0: what is sold and taken back in one batch leaves none.
///
/// # Errors
/// Where the database fails.
pub async fn differences(connection: &mut PgConnection, sales_group: &str) -> Result<Found, sqlx::Error> {
    #[expect(clippy::cast_possible_wrap, reason = "a constant far below 2^63")]
    let shown = SHOWN_MAX as i64;
    let mut found = Found { rows: count(connection, "sales").await?, ..Found::default() };
    let put_aside = audit::put_aside(&mut *connection, sales_group).await?;
    let rows = sqlx::query!(
        r#"WITH applied AS (
               SELECT position, type, at, CASE topic_code WHEN (SELECT code FROM log_word WHERE word = 'orders')
                   THEN convert_from(data, 'UTF8')::jsonb END AS event
               FROM event_history JOIN consumer_offset USING (topic, partition)
               WHERE group_name = $2 AND position <= label_position AND event_id <> ALL($3)
                   AND topic = 'orders' AND type IN ('order.confirmed', 'order.cancelled', 'order.modified')
           ), changes AS (
               SELECT position, sign, date_bin('15 minutes', confirmed_at, 'epoch') AS bucket, lines
               FROM applied,
                   LATERAL (SELECT coalesce((event ->> 'confirmed_at')::timestamptz, at) AS confirmed_at) AS sale,
                   LATERAL (VALUES
                       (CASE type WHEN 'order.cancelled' THEN -1 ELSE 1 END, event -> 'lines'),
                       (-1, event -> 'before')
                   ) AS part (sign, lines)
               WHERE lines IS NOT NULL
           ), lines AS (
               SELECT position, sign, bucket, product_id, category, quantity, revenue
               FROM changes, jsonb_to_recordset(lines)
                   AS line (product_id uuid, category text, quantity bigint, revenue bigint)
           ), orders AS (
               SELECT bucket, sign, level, category, product_id,
                   sum(quantity) AS quantity, sum(revenue) AS revenue
               FROM (
                   SELECT position, sign, bucket, quantity, revenue, level, kept.category, kept.product_id
                   FROM lines, LATERAL (VALUES
                       ('ALL', '', '00000000-0000-0000-0000-000000000000'::uuid),
                       ('CATEGORY', lines.category, '00000000-0000-0000-0000-000000000000'),
                       ('PRODUCT', lines.category, lines.product_id)
                   ) AS kept (level, category, product_id)
               ) AS on_each_level
               GROUP BY position, sign, bucket, level, category, product_id
           ), logged AS (
               SELECT level, bucket, category, product_id, sum(sign * quantity) AS quantity,
                   sum(sign * revenue) AS revenue, sum(sign)::numeric AS orders
               FROM orders GROUP BY level, bucket, category, product_id
           )
           SELECT format('%s at %s',
                   concat_ws(' ', level, nullif(category, ''), CASE level WHEN 'PRODUCT' THEN product_id END), bucket)
                   AS "row!",
               what AS "what!", to_jsonb(is_now) AS "is_now!: Json<Value>",
               to_jsonb(should_be) AS "should_be!: Json<Value>", count(*) OVER () AS "total!"
           FROM sales s FULL JOIN logged l USING (level, bucket, category, product_id),
               LATERAL (VALUES
                   ('quantity', s.quantity::numeric, l.quantity),
                   ('revenue', s.revenue, l.revenue),
                   ('orders', s.orders, l.orders)
               ) AS figures (what, figure, sum),
               LATERAL (SELECT coalesce(figure, 0) AS is_now, coalesce(sum, 0) AS should_be) AS compared
           WHERE is_now <> should_be
           ORDER BY bucket, level, category, product_id, what LIMIT $1"#,
        shown,
        sales_group,
        &put_aside,
    );
    for row in rows.fetch_all(connection).await? {
        let column = Column { column: row.what, live: row.is_now.0, log: row.should_be.0 };
        found.add(Difference { table: "sales", row: row.row, what: What::Columns(vec![column]) });
        found.count = row.total.unsigned_abs();
    }
    Ok(found)
}
