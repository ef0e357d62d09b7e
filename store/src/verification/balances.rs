//! Balances against their entries, and holds against the payments that they are for.

use ordermill_pipeline::audit::Check;
use sqlx::PgConnection;

use super::{of_rows, violations};

/// Available and held are what the entries add up to, and each entry says what the balance was after it.
pub(super) async fn entries(connection: &mut PgConnection) -> Result<Check, sqlx::Error> {
    let mut check = of_rows(connection, "balances", "balances").await?;
    check.found(sums(connection).await?);
    check.found(steps(connection).await?);
    Ok(check)
}

/// What is held is what the gateway is being asked to charge, or to void while it is not known to be charged.
pub(super) async fn holds(connection: &mut PgConnection) -> Result<Check, sqlx::Error> {
    let mut check = of_rows(connection, "holds", "balances").await?;
    check.found(undecided(connection).await?);
    Ok(check)
}

violations! {
    fn sums() =
        r#"SELECT format('user %s: available %s and held %s are %s, but the entries add up to %s', key,
               available, held, available::numeric + held, coalesce(total, 0)) AS "text!",
               count(*) OVER () AS "total!"
           FROM balances LEFT JOIN (
               SELECT user_id AS key, sum(CASE kind WHEN 'USED' THEN -amount ELSE amount END) AS total
               FROM balance_entries GROUP BY user_id
           ) AS entries USING (key)
           WHERE available::numeric + held <> coalesce(total, 0)
           ORDER BY key LIMIT $1"#;

    fn steps() =
        r#"SELECT format('user %s, entry %s: %s %s makes %s, but its balance_after is %s', user_id, entry_id,
               kind, amount, before + change, balance_after) AS "text!",
               count(*) OVER () AS "total!"
           FROM (
               SELECT user_id, entry_id, sequence, kind, amount, balance_after,
                   CASE kind WHEN 'USED' THEN -amount ELSE amount END AS change,
                   lag(balance_after, 1, 0::bigint) OVER (PARTITION BY user_id ORDER BY sequence)::numeric
                       AS before
               FROM balance_entries
           ) AS e
           WHERE before + change <> balance_after
           ORDER BY user_id, sequence LIMIT $1"#;

    fn undecided() =
        r#"SELECT format('user %s: held is %s, but undecided charges add up to %s', key, coalesce(held, 0),
               coalesce(undecided, 0)) AS "text!",
               count(*) OVER () AS "total!"
           FROM balances FULL JOIN (
               SELECT (state ->> 'user_id')::uuid AS key, sum((state #>> '{charges,-1,amount}')::bigint) AS undecided
               FROM payments
               WHERE state #>> '{charges,-1,state}' IN ('REQUESTED', 'VOIDING') AND state ->> 'method' = 'BALANCE'
               GROUP BY 1
           ) AS p USING (key)
           WHERE coalesce(held, 0) <> coalesce(undecided, 0)
           ORDER BY key LIMIT $1"#;
}
