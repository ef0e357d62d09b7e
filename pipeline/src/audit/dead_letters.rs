//! Whether what is put aside fits together: letters, the keys that they park, and what waits behind them.

use sqlx::PgConnection;

use super::check::{Check, Found, SHOWN_MAX};

/// Every message that waits has a letter that it waits for, every key is parked for a letter that is not done with, and
/// every letter stands in the log for its topic. How many are open is told, and is no violation.
///
/// # Errors
/// Where the database fails.
pub async fn dead_letters(connection: &mut PgConnection) -> Result<Check, sqlx::Error> {
    let mut check = Check::new("dead letters");
    let counts = sqlx::query!(
        r#"SELECT count(*) AS "letters!",
               count(*) FILTER (WHERE state IN ('PARKED', 'REPLAYED')) AS "parked!",
               count(*) FILTER (WHERE state = 'WAITING') AS "waiting!"
           FROM dead_letter"#
    )
    .fetch_one(&mut *connection)
    .await?;
    check.checked = counts.letters.unsigned_abs();
    if counts.parked + counts.waiting > 0 {
        check.note = Some(format!("{} parked, {} waiting behind them", counts.parked, counts.waiting));
    }
    let found = sqlx::query_as!(
        Found,
        r#"SELECT text AS "text!", count(*) OVER () AS "total!" FROM (
               SELECT format('dead letter %s: it waits, but its key is not parked', d.dead_letter_id) AS text
               FROM dead_letter d
               WHERE d.state = 'WAITING' AND NOT EXISTS (
                   SELECT FROM parked_key p
                   WHERE p.group_name = d.group_name AND p.topic = d.topic AND p.record_key = d.record_key)
               UNION ALL
               SELECT format('parked key %s of group %s: its letter %s is %s', encode(p.record_key, 'escape'),
                   p.group_name, p.dead_letter_id, d.state)
               FROM parked_key p JOIN dead_letter d USING (dead_letter_id)
               WHERE NOT p.releasing AND d.state NOT IN ('PARKED', 'REPLAYED')
               UNION ALL
               SELECT format('dead letter %s: %s does not have it', d.dead_letter_id,
                   d.topic || '.' || d.group_name || '.dlt')
               FROM dead_letter d
               WHERE d.attempts > 0 AND NOT EXISTS (
                   SELECT FROM event_log e
                   WHERE e.about @> ARRAY[d.dead_letter_id] AND e.aggregate_id = d.dead_letter_id AND e.topic = d.topic || '.' || d.group_name || '.dlt')
           ) AS found ORDER BY text LIMIT $1"#,
        SHOWN_MAX as i64,
    )
    .fetch_all(connection)
    .await?;
    check.found(found);
    Ok(check)
}
