//! Shipments against the orders that they are parts of.

use super::violations;

violations! {
    /// What an order says was shipped of a product is what its shipments have of it, and not more than was ordered.
    pub(super) fn lines() =
        r#"SELECT format('order %s, product %s: %s of %s are shipped, but its shipments make %s', order_id, product_id,
               sum(told), sum(ordered), sum(sent)) AS "text!",
               count(*) OVER () AS "total!"
           FROM (
               SELECT order_id, product_id, quantity AS sent, 0 AS told, 0 AS ordered
               FROM shipments, jsonb_to_recordset(state -> 'lines') AS line (product_id uuid, quantity bigint)
               UNION ALL
               SELECT key, product_id, 0, quantity, 0
               FROM orders, jsonb_to_recordset(state -> 'shipped') AS line (product_id uuid, quantity bigint)
               UNION ALL
               SELECT key, product_id, 0, 0, quantity
               FROM orders o, json_to_recordset(bulk -> 'lines') AS line (product_id uuid, quantity bigint)
               WHERE state ? 'shipped' OR EXISTS (SELECT FROM shipments s WHERE s.order_id = o.key)
           ) AS quantities
           GROUP BY order_id, product_id
           HAVING sum(told) <> sum(sent) OR sum(told) > sum(ordered)
           ORDER BY order_id, product_id LIMIT $1"#;

    /// An order is PARTIALLY_SHIPPED from its first shipment on, SHIPPED once nothing is left of it and DELIVERED once all
    /// of that has arrived; and as many shipments are on their way as it says. Where [`lines`] finds nothing, no product
    /// was shipped too often, so the sums tell whether anything is left.
    pub(super) fn statuses() =
        r#"SELECT format('order %s: %s with %s shipments on their way, but it has %s shipments with %s of %s units, '
                   '%s of them on their way',
               key, status, in_transit, coalesce(shipments, 0), coalesce(sent, 0), ordered,
               coalesce(on_their_way, 0)) AS "text!",
               count(*) OVER () AS "total!"
           FROM orders LEFT JOIN (
               SELECT order_id AS key, count(*) AS shipments,
                   count(*) FILTER (WHERE state ->> 'delivered_at' IS NULL) AS on_their_way, sum(quantity) AS sent
               FROM shipments, LATERAL (
                   SELECT sum(quantity) AS quantity FROM jsonb_to_recordset(state -> 'lines') AS line (quantity bigint)
               ) AS l
               GROUP BY order_id
           ) AS s USING (key),
               LATERAL (SELECT coalesce((orders.state ->> 'in_transit')::integer, 0) AS in_transit) AS said,
               LATERAL (
                   SELECT sum(quantity) AS ordered FROM json_to_recordset(orders.bulk -> 'lines') AS line (quantity bigint)
               ) AS o,
               LATERAL (
                   SELECT CASE WHEN shipments IS NULL THEN NULL WHEN sent < ordered THEN 'PARTIALLY_SHIPPED'
                       WHEN on_their_way > 0 THEN 'SHIPPED' ELSE 'DELIVERED' END AS reached
               ) AS r
           WHERE (shipments IS NOT NULL OR in_transit <> 0
                   OR status IN ('PARTIALLY_SHIPPED', 'SHIPPED', 'DELIVERED'))
               AND (status IS DISTINCT FROM reached OR in_transit IS DISTINCT FROM on_their_way)
           ORDER BY key LIMIT $1"#;
}
