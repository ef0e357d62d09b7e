//! How far a group is, in the database beside its effects.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgPool;

use super::mark::{Mark, Progress, Tip};
use super::reading::Reading;
use crate::dead_letters::halts::Standing;
use crate::journal::{JournalError, Shortfall, Statement};
use crate::label::Label;
use crate::partition::Slot;

/// Takes partitions over: from here on their former owner can't move their offsets. Who has applied nothing of a
/// partition begins in the era of the log, and so passes over what earlier ones have left in Kafka.
pub(super) async fn claim(
    pool: &PgPool,
    group: &str,
    slots: &[Slot],
) -> Result<BTreeMap<Slot, Reading>, sqlx::Error> {
    let (topics, partitions): (Vec<String>, Vec<i16>) =
        slots.iter().map(|slot| (slot.topic.to_owned(), slot.partition)).unzip();
    let rows = sqlx::query!(
        "INSERT INTO consumer_offset AS o (group_name, topic, partition, epoch, label_era)
         SELECT $1, topic, partition, 1, (SELECT CASE WHEN era > 1 THEN era ELSE 0 END FROM relay_cursor)
         FROM unnest($2::text[], $3::smallint[]) AS t (topic, partition)
         ORDER BY topic, partition
         ON CONFLICT (group_name, topic, partition) DO UPDATE SET epoch = o.epoch + 1
         RETURNING topic, partition, epoch, next_offset, label_era, label_position, tip_era, tip_position, tip_offset",
        group,
        &topics,
        &partitions,
    )
    .fetch_all(pool)
    .await?;
    let reading = |slot: &Slot| {
        let row = rows.iter().find(|row| row.topic == slot.topic && row.partition == slot.partition)?;
        let tip = row.tip_era.zip(row.tip_position).zip(row.tip_offset);
        let tip = tip.map(|((era, position), offset)| Tip { label: Label { era, position }, offset });
        let label = Label { era: row.label_era, position: row.label_position };
        let stored = Mark { label, event_id: None, tip, next_offset: row.next_offset };
        Some((*slot, Reading::new(row.epoch, stored)))
    };
    Ok(slots.iter().filter_map(reading).collect())
}

/// How far a group is in these partitions: the label applied last.
pub(super) async fn applied(
    pool: &PgPool,
    group: &str,
    slots: &[Slot],
) -> Result<BTreeMap<Slot, Label>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT topic, partition, label_era, label_position FROM consumer_offset WHERE group_name = $1",
        group,
    )
    .fetch_all(pool)
    .await?;
    let applied = |slot: &Slot| {
        let row = rows.iter().find(|row| row.topic == slot.topic && row.partition == slot.partition)?;
        Some((*slot, Label { era: row.label_era, position: row.label_position }))
    };
    Ok(slots.iter().filter_map(applied).collect())
}

/// Adds to a statement that the offsets are moved, unless the last record of any partition is not the log's: then the database was
/// restored from an older copy, or Kafka is that of another one. Two histories part at one place, so the last record
/// tells of all.
pub(super) fn add(statement: &mut Statement, group: &str, progress: &[Progress], now: Timestamp) {
    let tip = |p: &Progress| p.upto.tip;
    let rows = statement
        .rows(progress)
        .column("topic", "text", |p| p.slot.topic)
        .column("partition", "smallint", |p| p.slot.partition)
        .column("epoch", "bigint", |p| p.epoch)
        .column("before_era", "integer", |p| p.before.0.era)
        .column("before_position", "bigint", |p| p.before.0.position)
        .column("before_offset", "bigint", |p| p.before.1)
        .column("next_offset", "bigint", |p| p.upto.next_offset)
        .column("label_era", "integer", |p| p.upto.label.era)
        .column("label_position", "bigint", |p| p.upto.label.position)
        .column("tip_era", "integer", |p| tip(p).map(|tip| tip.label.era))
        .column("tip_position", "bigint", |p| tip(p).map(|tip| tip.label.position))
        .column("tip_offset", "bigint", |p| tip(p).map(|tip| tip.offset))
        .column("event_id", "uuid", Progress::event_id)
        .relation("p");
    let (group, now) = (statement.bind(group.to_owned()), statement.bind(now.to_sqlx()));
    statement.part("progress", format!("SELECT * FROM {rows}"));
    statement.must(
        "moved",
        format!(
            "UPDATE consumer_offset o
             SET next_offset = p.next_offset, label_era = p.label_era, label_position = p.label_position,
                 tip_era = p.tip_era, tip_position = p.tip_position, tip_offset = p.tip_offset, updated_at = {now}
             FROM progress p
             WHERE o.group_name = {group} AND o.topic = p.topic AND o.partition = p.partition AND o.epoch = p.epoch
                 AND o.label_era = p.before_era AND o.label_position = p.before_position AND o.next_offset = p.before_offset
             RETURNING 1"
        ),
        progress.len(),
        Shortfall::Fenced,
    );
    statement.must(
        "in_log",
        "SELECT 1 FROM progress p JOIN relay_cursor c ON c.era = p.label_era
         JOIN log_segment s ON s.number = p.label_position / 100000
             AND s.event_id[(p.label_position % 100000)::integer] = p.event_id"
            .to_owned(),
        progress.iter().filter(|p| p.event_id().is_some()).count(),
        Shortfall::NotInLog,
    );
}

/// Moves the offsets of partitions of which nothing is to be applied, in one statement. Answers whether it did: a group that has
/// stopped stores nothing.
pub(super) async fn store(
    pool: &PgPool,
    group: &str,
    progress: &[Progress],
    now: Timestamp,
) -> Result<bool, JournalError> {
    let mut statement = Statement::default();
    Standing::require_going(&mut statement, group);
    add(&mut statement, group, progress, now);
    match statement.execute(pool).await.map_err(JournalError::from) {
        Ok(_) => Ok(true),
        Err(error) if error.is_about_standing() => Ok(false),
        Err(error) => Err(error),
    }
}
