//! How far a group is, in the database beside its effects.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::label::Label;

/// A partition as its new owner finds it.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) topic: String,
    pub(super) partition: i16,
    pub(super) epoch: i64,
    pub(super) next_offset: i64,
    pub(super) label: Label,
    pub(super) tip: Option<Label>,
}

/// Takes partitions over: from here on their former owner can't move their offsets. Who has applied nothing of a
/// partition begins in the era of the log, and so passes over what earlier ones have left in Kafka.
pub(super) async fn claim(
    pool: &PgPool,
    group: &str,
    topics: &[String],
    partitions: &[i16],
) -> Result<Vec<Claim>, sqlx::Error> {
    let rows = sqlx::query!(
        "INSERT INTO consumer_offset AS o (group_name, topic, partition, epoch, label_era)
         SELECT $1, topic, partition, 1, (SELECT CASE WHEN era > 1 THEN era ELSE 0 END FROM relay_cursor)
         FROM unnest($2::text[], $3::smallint[]) AS t (topic, partition)
         ORDER BY topic, partition
         ON CONFLICT (group_name, topic, partition) DO UPDATE SET epoch = o.epoch + 1
         RETURNING topic, partition, epoch, next_offset, label_era, label_position, tip_era, tip_position",
        group,
        topics,
        partitions,
    )
    .fetch_all(pool)
    .await?;
    let claims = rows.into_iter().map(|row| Claim {
        topic: row.topic,
        partition: row.partition,
        epoch: row.epoch,
        next_offset: row.next_offset,
        label: Label { era: row.label_era, position: row.label_position },
        tip: row.tip_era.zip(row.tip_position).map(|(era, position)| Label { era, position }),
    });
    Ok(claims.collect())
}

/// How far a group is in each partition: the label applied last.
pub(super) async fn applied(
    pool: &PgPool,
    group: &str,
) -> Result<HashMap<(String, i16), Label>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT topic, partition, label_era, label_position FROM consumer_offset WHERE group_name = $1",
        group,
    )
    .fetch_all(pool)
    .await?;
    let label = |era, position| Label { era, position };
    Ok(rows
        .into_iter()
        .map(|row| ((row.topic, row.partition), label(row.label_era, row.label_position)))
        .collect())
}

/// How far a batch brings one partition.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) topic: String,
    pub(super) partition: i16,
    pub(super) epoch: i64,
    /// The last label before the batch.
    pub(super) before: Label,
    pub(super) next_offset: i64,
    /// The last label after the batch.
    pub(super) label: Label,
    /// The label of the record before `next_offset`.
    pub(super) tip: Option<Label>,
    /// The id of the event that bears `label`, where a record of the batch does.
    pub(super) event_id: Option<Uuid>,
}

/// What became of the offsets. Unless they were moved, the transaction must not be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// They were moved.
    Moved,
    /// A partition has another owner by now or is not where the batch began.
    Fenced,
    /// The last record of a partition is not in the log.
    NotInLog,
}

/// Moves the offsets, unless the last record of any partition is not the log's: then the database was restored from an
/// older copy, or Kafka is that of another one. Two histories part at one place, so the last record tells of all.
pub(super) async fn advance(
    connection: &mut PgConnection,
    group: &str,
    progress: &[Progress],
    now: Timestamp,
) -> Result<Advance, sqlx::Error> {
    let topics: Vec<String> = progress.iter().map(|p| p.topic.clone()).collect();
    let partitions: Vec<i16> = progress.iter().map(|p| p.partition).collect();
    let epochs: Vec<i64> = progress.iter().map(|p| p.epoch).collect();
    let next_offsets: Vec<i64> = progress.iter().map(|p| p.next_offset).collect();
    let (before_eras, before_positions) = columns(progress.iter().map(|p| p.before));
    let (eras, positions) = columns(progress.iter().map(|p| p.label));
    let tip_eras: Vec<Option<i32>> = progress.iter().map(|p| p.tip.map(|tip| tip.era)).collect();
    let tip_positions: Vec<Option<i64>> = progress.iter().map(|p| p.tip.map(|tip| tip.position)).collect();
    let event_ids: Vec<Option<Uuid>> = progress.iter().map(|p| p.event_id).collect();
    let moved = sqlx::query!(
        "WITH progress AS (
             SELECT * FROM unnest($2::text[], $3::smallint[], $4::bigint[], $5::int[], $6::bigint[],
                     $7::bigint[], $8::int[], $9::bigint[], $10::int[], $11::bigint[], $13::uuid[])
                 AS p (topic, partition, epoch, before_era, before_position,
                     next_offset, label_era, label_position, tip_era, tip_position, event_id)
         ), mine AS (
             SELECT o.topic, o.partition FROM consumer_offset o
             JOIN progress p ON o.topic = p.topic AND o.partition = p.partition
             WHERE o.group_name = $1
             ORDER BY o.topic, o.partition FOR UPDATE OF o
         ), moved AS (
         UPDATE consumer_offset o
         SET next_offset = p.next_offset, label_era = p.label_era, label_position = p.label_position,
             tip_era = p.tip_era, tip_position = p.tip_position, updated_at = $12
         FROM mine JOIN progress p USING (topic, partition)
         WHERE o.group_name = $1 AND o.topic = p.topic AND o.partition = p.partition AND o.epoch = p.epoch
             AND o.label_era = p.before_era AND o.label_position = p.before_position
         RETURNING 1
         )
         SELECT (SELECT count(*) FROM moved) AS \"moved!\",
             (SELECT count(*) FROM progress p WHERE p.event_id IS NOT NULL AND NOT EXISTS (
                  SELECT FROM event_log e JOIN relay_cursor c ON c.era = p.label_era
                  WHERE e.position = p.label_position AND e.event_id = p.event_id)) AS \"strange!\"",
        group,
        &topics,
        &partitions,
        &epochs,
        &before_eras,
        &before_positions,
        &next_offsets,
        &eras,
        &positions,
        tip_eras as _,
        tip_positions as _,
        now.to_sqlx() as _,
        event_ids as _,
    )
    .fetch_one(connection)
    .await?;
    Ok(if u64::try_from(moved.moved) != Ok(progress.len() as u64) {
        Advance::Fenced
    } else if moved.strange > 0 {
        Advance::NotInLog
    } else {
        Advance::Moved
    })
}

fn columns(labels: impl Iterator<Item = Label>) -> (Vec<i32>, Vec<i64>) {
    labels.map(|label| (label.era, label.position)).unzip()
}
