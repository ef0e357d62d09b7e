//! How far relay and workers are behind what was committed.

use std::time::Duration;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgPool;

/// A part of the pipeline that events pass: the relay, or a group in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// `relay`, or the group's name.
    pub name: String,
    /// The partition of a topic; empty for the relay.
    pub slot: String,
    /// Grows whenever the stage has done anything.
    pub progress: i64,
    /// How long ago that was committed which it has come to; zero where nothing waits for it. After a quiet time it is too much,
    /// until the stage has done the first of what has come since.
    pub behind: Duration,
}

/// Looks how far the relay and those groups are.
///
/// # Errors
/// Where the database fails.
pub async fn stages(pool: &PgPool, groups: &[String], now: Timestamp) -> Result<Vec<Stage>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH stage AS (
               SELECT 'relay' AS name, '' AS slot, c.position AS progress,
                   (SELECT at FROM log_segment WHERE number > c.position / 100000 ORDER BY number LIMIT 1) AS at
               FROM relay_cursor c
               UNION ALL
               SELECT o.group_name, o.topic || '/' || o.partition, o.label_position, s.at
               FROM relay_cursor c
                   JOIN consumer_offset o ON o.group_name = ANY($1)
                   -- Only of partitions to which more was published.
                   LEFT JOIN log_segment s ON s.number = o.label_position / 100000
                       AND (c.tails -> o.topic -> o.partition::integer ->> 0)::bigint > o.label_position
           )
           SELECT name AS "name!", slot AS "slot!", progress AS "progress!",
               coalesce(extract(epoch FROM $2::timestamptz - at), 0)::float8 AS "behind_s!"
           FROM stage"#,
        groups,
        now.to_sqlx() as _,
    )
    .fetch_all(pool)
    .await?;
    let stages = rows.into_iter().map(|row| Stage {
        name: row.name,
        slot: row.slot,
        progress: row.progress,
        behind: Duration::try_from_secs_f64(row.behind_s).unwrap_or_default(),
    });
    Ok(stages.collect())
}
