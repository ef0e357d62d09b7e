//! How far a group is, in the database beside its effects.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgPool;
use uuid::Uuid;

use super::item::{Fate, Item};
use crate::journal::{Shortfall, Statement};
use crate::label::Label;

/// A partition that this member owns.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    pub(super) epoch: i64,
    /// The label of the last record that was read and is to be applied or was.
    pub(super) last: Label,
    /// The label of the record before `next_offset`, which may be a repeat and so lower, or none of ours.
    pub(super) tip: Option<Label>,
    /// The offset after it.
    pub(super) next_offset: i64,
    /// The next record read must be the one with label `tip`; if it is not, reading begins at this offset.
    pub(super) verify_or_start_at: Option<i64>,
    /// Since when records are missing.
    pub(super) gap_since: Option<Instant>,
    /// Since when there is more to read and nothing comes.
    pub(super) behind_since: Option<Instant>,
}

/// A topic without prefix, and a partition.
pub(super) type Slot = (String, i16);

/// Takes partitions over: from here on their former owner can't move their offsets. Who has applied nothing of a
/// partition begins in the era of the log, and so passes over what earlier ones have left in Kafka.
pub(super) async fn claim(
    pool: &PgPool,
    group: &str,
    topics: &[String],
    partitions: &[i16],
) -> Result<Vec<(Slot, Owned)>, sqlx::Error> {
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
    let owned = rows.into_iter().map(|row| {
        let owned = Owned {
            epoch: row.epoch,
            last: Label { era: row.label_era, position: row.label_position },
            tip: row.tip_era.zip(row.tip_position).map(|(era, position)| Label { era, position }),
            next_offset: row.next_offset,
            verify_or_start_at: None,
            gap_since: None,
            behind_since: None,
        };
        ((row.topic, row.partition), owned)
    });
    Ok(owned.collect())
}

/// How far a group is in each partition: the label applied last.
pub(super) async fn applied(pool: &PgPool, group: &str) -> Result<HashMap<Slot, Label>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT topic, partition, label_era, label_position FROM consumer_offset WHERE group_name = $1",
        group,
    )
    .fetch_all(pool)
    .await?;
    let applied = rows.into_iter().map(|row| {
        let label = Label { era: row.label_era, position: row.label_position };
        ((row.topic, row.partition), label)
    });
    Ok(applied.collect())
}

/// How far a batch brings one partition.
struct Progress<'a, E> {
    first: &'a Item<E>,
    last: &'a Item<E>,
    /// The record that bears the last label, where one of the batch does.
    bearer: Option<&'a Item<E>>,
}

impl<E> Progress<'_, E> {
    /// The id of the event that bears the last label.
    fn event_id(&self) -> Option<Uuid> {
        self.bearer?.record.event_id()
    }
}

/// Adds to a statement that the offsets are moved, unless the last record of any partition is not the log's: then the database was
/// restored from an older copy, or Kafka is that of another one. Two histories part at one place, so the last record
/// tells of all.
pub(super) fn add<E>(statement: &mut Statement, group: &str, items: &[Item<E>], now: Timestamp) {
    let mut progress: BTreeMap<(&str, i16), Progress<'_, E>> = BTreeMap::new();
    for item in items {
        let place = (item.record.place.topic.as_str(), item.record.place.partition);
        let progress = progress.entry(place).or_insert(Progress { first: item, last: item, bearer: None });
        progress.last = item;
        if item.tip == Some(item.label) && item.fate != Fate::Skip {
            progress.bearer = Some(item);
        }
    }
    let progress: Vec<Progress<'_, E>> = progress.into_values().collect();
    let rows = statement
        .rows(&progress)
        .column("topic", "text", |p| p.last.record.place.topic.as_str())
        .column("partition", "smallint", |p| p.last.record.place.partition)
        .column("epoch", "bigint", |p| p.first.epoch)
        .column("before_era", "integer", |p| p.first.before.era)
        .column("before_position", "bigint", |p| p.first.before.position)
        .column("next_offset", "bigint", |p| p.last.record.place.offset + 1)
        .column("label_era", "integer", |p| p.last.label.era)
        .column("label_position", "bigint", |p| p.last.label.position)
        .column("tip_era", "integer", |p| p.last.tip.map(|tip| tip.era))
        .column("tip_position", "bigint", |p| p.last.tip.map(|tip| tip.position))
        .column("event_id", "uuid", Progress::event_id)
        .relation("p");
    let (group, now) = (statement.bind(group.to_owned()), statement.bind(now.to_sqlx()));
    statement.part("progress", format!("SELECT * FROM {rows}"));
    statement.must(
        "moved",
        format!(
            "UPDATE consumer_offset o
             SET next_offset = p.next_offset, label_era = p.label_era, label_position = p.label_position,
                 tip_era = p.tip_era, tip_position = p.tip_position, updated_at = {now}
             FROM progress p
             WHERE o.group_name = {group} AND o.topic = p.topic AND o.partition = p.partition AND o.epoch = p.epoch
                 AND o.label_era = p.before_era AND o.label_position = p.before_position
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
