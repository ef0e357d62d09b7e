//! The log against Kafka: every row that the relay has published is there.

use std::collections::{BTreeMap, BTreeSet};

use ordermill_schemas::Topic;
use rdkafka::error::KafkaError;
use sqlx::PgPool;
use thiserror::Error;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::check::Check;
use super::partition::{Comparison, Figures, Row};
use super::records::{self, Records};
use crate::kafka::KafkaConfig;
use crate::label::Label;
use crate::relay::{CursorError, log_end};

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
    /// The comparison panicked.
    #[error("the comparison of log and Kafka broke off")]
    Panicked,
}

/// Compares the log, as far as the relay has published it in this era, with Kafka: each row is in its partition under its
/// label and with its event, or lies below the partition's log start; the labels rise when repeats are dropped,
/// and each record says which one came before it. Records that are not the relay's are counted.
///
/// Both sides are read once, side by side. In memory are a page of rows, what is fetched ahead of each
/// partition (about a megabyte), and some forty bytes for each row that is not in its place: few, unless Kafka
/// has lost records, or the relay has sent lost ones again behind others.
///
/// # Errors
/// [`AuditError`] where the database or Kafka does not answer.
pub async fn log_against_kafka(pool: &PgPool, kafka: &KafkaConfig) -> Result<Check, AuditError> {
    let (pool, kafka, runtime) = (pool.clone(), kafka.clone(), Handle::current());
    // The Kafka client blocks, so the comparison has a thread of its own.
    let compare = move || Audit::begin(pool, &kafka, runtime)?.run();
    tokio::task::spawn_blocking(compare).await.unwrap_or(Err(AuditError::Panicked))
}

/// Where the relay is.
struct Cursor {
    era: i32,
    partitions: i16,
    position: i64,
    /// Nothing up to here has been published in this era.
    published_after: i64,
    topics: Vec<String>,
}

async fn cursor(pool: &PgPool) -> Result<Cursor, AuditError> {
    let cursor = sqlx::query_as!(
        Cursor,
        r#"SELECT era, partitions, position, published_after, ARRAY(SELECT jsonb_object_keys(tails)) AS "topics!"
           FROM relay_cursor"#,
    )
    .fetch_optional(pool)
    .await?;
    Ok(cursor.ok_or(CursorError::NotInstalled)?)
}

struct LogRow {
    position: i64,
    event_id: Uuid,
    topic: String,
    partition: i16,
}

async fn page(pool: &PgPool, after: i64, upto: i64) -> Result<Vec<LogRow>, sqlx::Error> {
    sqlx::query_as!(
        LogRow,
        "SELECT position, event_id, topic, partition FROM event_log
         WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3",
        after,
        upto,
        PAGE_ROWS,
    )
    .fetch_all(pool)
    .await
}

struct Partition {
    comparison: Comparison,
    records: Records,
}

struct Audit {
    pool: PgPool,
    runtime: Handle,
    era: i32,
    after: i64,
    upto: i64,
    partitions: BTreeMap<String, Vec<Partition>>,
    check: Check,
}

impl Audit {
    /// The cursor is read before the ends of the partitions, so all that it stands for lies before them.
    fn begin(pool: PgPool, kafka: &KafkaConfig, runtime: Handle) -> Result<Audit, AuditError> {
        let cursor = runtime.block_on(cursor(&pool))?;
        let upto = Label { era: cursor.era, position: cursor.position };
        let topics: BTreeSet<String> =
            Topic::ALL.into_iter().map(|topic| topic.name().to_owned()).chain(cursor.topics).collect();
        let consumer = records::consumer(kafka)?;
        let (mut bounds, mut comparisons) = (Vec::new(), Vec::new());
        for topic in &topics {
            for partition in 0..cursor.partitions {
                let found = records::bounds(&consumer, kafka.full_name(topic), i32::from(partition))?;
                let place = format!("{topic}[{partition}]");
                let after = cursor.published_after;
                comparisons.push((topic, Comparison::new(place, after, upto, found.low > 0)));
                bounds.push(found);
            }
        }
        let mut partitions: BTreeMap<String, Vec<Partition>> = BTreeMap::new();
        for ((topic, comparison), records) in comparisons.into_iter().zip(records::open(&consumer, &bounds)?)
        {
            partitions.entry(topic.clone()).or_default().push(Partition { comparison, records });
        }
        let check = Check::new("kafka");
        let Cursor { era, position: upto, published_after: after, .. } = cursor;
        Ok(Audit { pool, runtime, era, after, upto, partitions, check })
    }

    fn run(mut self) -> Result<Check, AuditError> {
        let mut after = self.after;
        loop {
            let rows = self.runtime.block_on(page(&self.pool, after, self.upto))?;
            let Some(last) = rows.last() else { break };
            after = last.position;
            for row in rows {
                self.row(&row)?;
            }
        }
        for Partition { comparison, records } in self.partitions.values_mut().flatten() {
            comparison.finish(&mut self.check, &mut || records.next())?;
        }
        self.look_for_the_end()?;
        self.check.note =
            note(self.partitions.values().flatten().map(|partition| partition.comparison.figures));
        Ok(self.check)
    }

    fn row(&mut self, row: &LogRow) -> Result<(), AuditError> {
        self.check.checked += 1;
        let LogRow { position, event_id, topic, partition } = row;
        let number = usize::try_from(*partition).unwrap_or(usize::MAX);
        let Some(Partition { comparison, records }) =
            self.partitions.get_mut(topic).and_then(|partitions| partitions.get_mut(number))
        else {
            self.check.violation(format!(
                "log position {position}, event {event_id}: not in Kafka, where the relay knows no {topic}[{partition}]"
            ));
            return Ok(());
        };
        let row = Row { position: *position, event_id: *event_id };
        Ok(comparison.row(row, &mut self.check, &mut || records.next())?)
    }

    /// No record can be younger than the log; if one is, the database is an older copy of the one that it is from.
    fn look_for_the_end(&mut self) -> Result<(), AuditError> {
        let end = Label { era: self.era, position: self.runtime.block_on(log_end(&self.pool))? };
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
