//! The log against Kafka: every row that the relay has published is there.

use std::collections::{BTreeMap, BTreeSet};

use ordermill_wire::Topic;
use rdkafka::error::KafkaError;
use sqlx::PgPool;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::check::Check;
use super::partition::{Comparison, Digest, Figures, Met, Row};
use super::records::{self, Records};
use crate::authenticity::KeyError;
use crate::kafka::KafkaConfig;
use crate::label::Label;
use crate::relay::{Cursor, CursorError, log_end};

/// How many rows of the log are read at once.
const PAGE_ROWS: i64 = 20_000;

/// Why log and Kafka could not be compared.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// Kafka failed.
    #[error("Kafka does not answer: {0}; check that it runs and that KAFKA_BROKERS names it")]
    Kafka(#[from] KafkaError),
    /// The log was never set up.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// It can't be told which records are authentic.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The comparison panicked, or nobody waits for it any more.
    #[error("the comparison of log and Kafka broke off")]
    BrokenOff,
}

/// Compares the log, as far as the relay has published it in this era, with Kafka: each row is in its partition under its
/// label, with its event, key, type, version and payload, where a consumer that reads the partition from its beginning
/// gets it, or lies below the partition's log start. Records that are not the relay's are counted.
///
/// Both sides are read once, side by side, up to where they were at the beginning. In memory are a page of rows without
/// their payloads (a few megabytes), what is fetched ahead of each partition (about a megabyte), and a few words for
/// each partition, however long the log is and whatever Kafka has lost. Who drops the future ends the comparison.
///
/// # Errors
/// [`AuditError`] where the database or Kafka does not answer.
pub async fn log_against_kafka<T: Topic>(pool: &PgPool, kafka: &KafkaConfig) -> Result<Check, AuditError> {
    kafka.keyring.refresh(pool).await?;
    let (pool, kafka) = (pool.clone(), kafka.clone());
    let broken_off = CancellationToken::new();
    let _ends_with_this_future = broken_off.clone().drop_guard();
    // The Kafka client blocks, so the comparison has a thread of its own.
    let topics = T::ALL.iter().map(|topic| topic.name().to_owned());
    let compare = move || Audit::begin(pool, &kafka, topics, broken_off)?.run();
    tokio::task::spawn_blocking(compare).await.unwrap_or(Err(AuditError::BrokenOff))
}

/// Rows with their topics and partitions. The digests are made by the database: a payload may be as long as a record, and a
/// page has many. They are made as [`records`] makes them.
async fn page(pool: &PgPool, after: i64, upto: i64) -> Result<Vec<(String, i16, Row)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT position AS "position!", event_id AS "event_id!", topic AS "topic!", partition AS "partition!",
               sha256(convert_to(format(E'%s\n%s\n%s\n', type, version, octet_length(kafka_key)), 'UTF8')
                   || kafka_key || data) AS "digest!"
           FROM log_page($1, $2, $3),
               LATERAL (SELECT coalesce(record_key, convert_to(key::text, 'UTF8')) AS kafka_key) AS k
           ORDER BY position"#,
        after,
        upto,
        PAGE_ROWS,
    )
    .fetch_all(pool)
    .await?;
    let rows = rows.into_iter().map(|row| {
        // SHA-256 has 32 bytes.
        let digest = Digest::try_from(row.digest).unwrap_or_default();
        (row.topic, row.partition, Row { position: row.position, event_id: row.event_id, digest })
    });
    Ok(rows.collect())
}

struct Partition {
    comparison: Comparison,
    records: Records,
}

struct Audit {
    pool: PgPool,
    cursor: Cursor,
    partitions: BTreeMap<String, Vec<Partition>>,
    check: Check,
    broken_off: CancellationToken,
}

impl Audit {
    /// The cursor is read before the ends of the partitions, so all that it stands for lies before them.
    fn begin(
        pool: PgPool,
        kafka: &KafkaConfig,
        topics: impl Iterator<Item = String>,
        broken_off: CancellationToken,
    ) -> Result<Audit, AuditError> {
        let cursor = Handle::current().block_on(Cursor::read(&pool))?.ok_or(CursorError::NotInstalled)?;
        let upto = Label { era: cursor.era, position: cursor.position };
        let topics: BTreeSet<String> = topics.chain(cursor.topics().cloned()).collect();
        let mut partitions: BTreeMap<String, Vec<Partition>> = BTreeMap::new();
        for (topic, partition, records) in records::open(kafka, &topics, cursor.partitions, &broken_off)? {
            let (place, after) = (format!("{topic}[{partition}]"), cursor.published_after);
            let comparison = Comparison::new(place, after, upto, records.begins_late);
            partitions.entry(topic).or_default().push(Partition { comparison, records });
        }
        Ok(Audit { pool, cursor, partitions, check: Check::new("kafka"), broken_off })
    }

    fn run(mut self) -> Result<Check, AuditError> {
        let mut after = self.cursor.published_after;
        loop {
            let rows = Handle::current().block_on(page(&self.pool, after, self.cursor.position))?;
            let Some((.., last)) = rows.last() else { break };
            after = last.position;
            for (topic, partition, row) in rows {
                self.row(&topic, partition, row)?;
            }
        }
        for Partition { comparison, records } in self.partitions.values_mut().flatten() {
            comparison.finish(&mut self.check, &mut || next(records, &self.broken_off))?;
        }
        self.look_for_the_end()?;
        self.check.note =
            note(self.partitions.values().flatten().map(|partition| partition.comparison.figures));
        Ok(self.check)
    }

    fn row(&mut self, topic: &str, partition: i16, row: Row) -> Result<(), AuditError> {
        self.check.checked += 1;
        let number = usize::try_from(partition).unwrap_or(usize::MAX);
        let Some(Partition { comparison, records }) =
            self.partitions.get_mut(topic).and_then(|partitions| partitions.get_mut(number))
        else {
            let Row { position, event_id, .. } = row;
            self.check.violation(format!(
                "log position {position}, event {event_id}: not in Kafka, where the relay knows no {topic}[{partition}]"
            ));
            return Ok(());
        };
        comparison.row(row, &mut self.check, &mut || next(records, &self.broken_off))
    }

    /// No record can be younger than the log; if one is, the database is an older copy of the one that it is from.
    fn look_for_the_end(&mut self) -> Result<(), AuditError> {
        let end = Label { era: self.cursor.era, position: Handle::current().block_on(log_end(&self.pool))? };
        for Partition { comparison, .. } in self.partitions.values().flatten() {
            if comparison.last_label > end {
                self.check.violation(format!(
                    "{} holds {}, but the log ends at {end}",
                    comparison.place(),
                    comparison.last_label
                ));
            }
        }
        Ok(())
    }
}

/// The partition's next record, while somebody waits for the comparison.
fn next(records: &mut Records, broken_off: &CancellationToken) -> Result<Option<Met>, AuditError> {
    if broken_off.is_cancelled() { Err(AuditError::BrokenOff) } else { Ok(records.next()?) }
}

/// What was met besides, in a few words; nothing where nothing was.
fn note(figures: impl Iterator<Item = Figures>) -> Option<String> {
    let all = figures.fold(Figures::default(), |all, figures| Figures {
        foreign: all.foreign + figures.foreign,
        repeats: all.repeats + figures.repeats,
        expired: all.expired + figures.expired,
    });
    let parts: Vec<String> = [
        (all.expired, "rows below the log start"),
        (all.repeats, "records sent again"),
        (all.foreign, "foreign records"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_tells_only_what_there_was() {
        assert_eq!(note([Figures::default()].into_iter()), None);
        let figures =
            [Figures { foreign: 1, repeats: 0, expired: 2 }, Figures { foreign: 4, repeats: 0, expired: 0 }];
        assert_eq!(note(figures.into_iter()).unwrap(), "2 rows below the log start, 5 foreign records");
    }
}
