//! Coupons against their claims, against what users have, and against the orders that use them.

use ordermill_pipeline::audit::Check;
use sqlx::PgConnection;

use super::{of_rows, violations};

/// As many were issued as users have and not more than there are, the places have no gap, each user has one of a coupon
/// at most, by an own claim, and what is used is used by one order that stands.
pub(super) async fn check(connection: &mut PgConnection) -> Result<Check, sqlx::Error> {
    let mut check = of_rows(connection, "coupons", "coupons").await?;
    check.found(issued(connection).await?);
    check.found(owners(connection).await?);
    check.found(repeated(connection).await?);
    check.found(used(connection).await?);
    check.found(orders(connection).await?);
    Ok(check)
}

violations! {
    /// Places are unique, above 0 and each user's claim has one: where there are as many as the highest, there is no gap.
    fn issued() =
        r#"SELECT format('coupon %s: %s of %s are issued, but users have %s, and claims have %s places up to %s',
               key, issued, quantity, coalesce(owned.count, 0), coalesce(claimed.count, 0),
               coalesce(claimed.last, 0)) AS "text!",
               count(*) OVER () AS "total!"
           FROM coupons
               LEFT JOIN (SELECT coupon_id AS key, count(*) AS count FROM user_coupons GROUP BY coupon_id) AS owned
                   USING (key)
               LEFT JOIN (
                   SELECT coupon_id AS key, count(position) AS count, max(position) AS last
                   FROM coupon_claims GROUP BY coupon_id
               ) AS claimed USING (key)
           WHERE issued > quantity OR (issued, issued, issued) <>
               (coalesce(owned.count, 0), coalesce(claimed.count, 0), coalesce(claimed.last, 0))
           ORDER BY key LIMIT $1"#;

    /// A user's coupon is of the user and of the coupon that its claim is of, and that claim was granted.
    fn owners() =
        r#"SELECT format('user coupon %s: user %s has it of coupon %s, but its claim %s is %s for user %s and coupon %s',
               owned.key, owned.user_id, owned.coupon_id, owned.claim_id,
               coalesce(claimed.status, 'absent'), coalesce(claimed.user_id::text, 'none'),
               coalesce(claimed.coupon_id::text, 'none')) AS "text!",
               count(*) OVER () AS "total!"
           FROM user_coupons owned LEFT JOIN coupon_claims claimed ON claimed.key = owned.claim_id
           WHERE (owned.user_id, owned.coupon_id, 'ISSUED')
               IS DISTINCT FROM (claimed.user_id, claimed.coupon_id, claimed.status)
           ORDER BY owned.key LIMIT $1"#;

    fn repeated() =
        r#"SELECT format('coupon %s: user %s has it %s times', coupon_id, user_id, count(*)) AS "text!",
               count(*) OVER () AS "total!"
           FROM user_coupons GROUP BY coupon_id, user_id HAVING count(*) > 1
           ORDER BY coupon_id, user_id LIMIT $1"#;

    fn used() =
        r#"SELECT format('user coupon %s: it is %s for order %s, but what is applied is %s for order %s',
               user_coupon_id, coalesce(owned.status, 'absent'), coalesce(owned.order_id::text, 'none'),
               coalesce(applied.state ->> 'state', 'nothing'), coalesce(applied.key::text, 'none')) AS "text!",
               count(*) OVER () AS "total!"
           FROM (SELECT key AS user_coupon_id, order_id, status FROM user_coupons WHERE status = 'USED') AS owned
               FULL JOIN (SELECT * FROM coupon_uses WHERE state ->> 'state' = 'APPLIED') AS applied
                   USING (user_coupon_id)
           WHERE owned.order_id IS DISTINCT FROM applied.key
           ORDER BY user_coupon_id LIMIT $1"#;

    /// While an order is under way the two may differ by what has not arrived yet.
    fn orders() =
        r#"SELECT format('order %s: %s with the coupon %s, but its use is %s', key, o.status,
               coalesce(o.state ->> 'coupon_step', 'NOT_USED'), coalesce(u.state ->> 'state', 'absent')) AS "text!",
               count(*) OVER () AS "total!"
           FROM orders o LEFT JOIN coupon_uses u USING (key)
           WHERE o.status IN ('CONFIRMED', 'PARTIALLY_SHIPPED', 'SHIPPED', 'DELIVERED', 'REJECTED', 'CANCELLED')
               AND coalesce(o.state ->> 'coupon_step', 'NOT_USED') <> coalesce(u.state ->> 'state', 'NOT_USED')
           ORDER BY key LIMIT $1"#;
}
