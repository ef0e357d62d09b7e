//! A new era: the log of a restored database takes the place of the one that Kafka knows (docs/adr/0010).
//!
//! The era is begun in one transaction, which also puts every group over to it; only then topics are touched. Until they
//! are known to be fresh the cursor says so, and no relay leads. So whoever is killed in between runs the same again.

use std::collections::{BTreeMap, BTreeSet};

use ordermill_wire::Topic;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;

use super::RelayError;
use super::cursor::{Cursor, CursorError, log_end, tails_at};
use super::ends::{self, Depth, End, Subject};
use crate::authenticity::{KeyError, Secrets, key_table};
use crate::database::{self, Told};
use crate::heartbeat::{self, AtWork};
use crate::kafka::KafkaConfig;
use crate::label::Label;
use crate::topics::{self, TopicsError};

/// Why a database is to be adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An adoption was begun and not finished.
    Unfinished,
    /// The log began in another database cluster.
    OtherDatabase,
    /// Kafka holds a record that the log does not have.
    KafkaAhead {
        /// The topic, without prefix.
        topic: String,
        /// The record's label.
        found: Label,
    },
}

/// Why a database is not adopted.
#[derive(Debug, Error)]
pub enum AdoptError {
    /// The database or the log is not as it should be.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The database failed.
    #[error("database: {}", Told(.0))]
    Database(#[from] sqlx::Error),
    /// Kafka does not answer, or the topics could not be made anew.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// There is no reason to.
    #[error(
        "nothing is wrong: the log is this cluster's and Kafka is not ahead of it, so relays go on as they are; \
         --force begins a new era all the same"
    )]
    NothingWrong,
    /// The keys of the database are of another secret, or it has none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Somebody works with the database.
    #[error("{} ({}) is at work: stop all relays and workers first, also those that refuse to work", .0.role, .0.instance)]
    AtWork(AtWork),
    /// A relay took the lead while this was looking.
    #[error("a relay took the lead meanwhile: stop all relays and workers first")]
    Led,
    /// The topics hold records.
    #[error(
        "topics hold records of the lost log ({0}): have them deleted and made anew by --recreate-topics, or choose a \
         --topic-prefix without topics for everything from now on, and give --force with it"
    )]
    TopicsNotEmpty(String),
    /// The era is not a new one.
    #[error("era {asked} is not new: give one of at least {least}")]
    NotNew {
        /// What was asked for.
        asked: i32,
        /// The lowest that is new.
        least: i32,
    },
}

/// What is found before an adoption, and what it will do.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// Why; none where nothing is wrong.
    pub reason: Option<Reason>,
    /// The era that ends.
    pub former_era: i32,
    /// The era that begins, or, where an adoption was not finished, has begun.
    pub era: i32,
    /// Where the log ends: what earlier eras have above it is lost.
    pub log_end: i64,
    /// The new era is published from behind here: what lies before, every group has applied.
    pub after: i64,
    /// The topics, without prefix, and how many records each holds now.
    pub topics: BTreeMap<String, i64>,
    cursor: Cursor,
}

impl Adoption {
    /// Looks at database and Kafka, and changes nothing. `era` is the number of the new era where it is not to be the
    /// next one.
    ///
    /// # Errors
    /// [`AdoptError`] where the log is not set up, the era is not new, or database or Kafka does not answer.
    pub async fn look<T: Topic>(
        pool: &PgPool,
        kafka: &KafkaConfig,
        groups: &[(&str, &[T])],
        era: Option<i32>,
    ) -> Result<Adoption, AdoptError> {
        let cursor = Cursor::read(pool).await?.ok_or(RelayError::Cursor(CursorError::NotInstalled))?;
        kafka.keyring.refresh(pool).await?;
        let mut connection = pool.acquire().await?;
        let ends = tails_at(&mut connection, i64::MAX, cursor.partitions).await?;
        drop(connection);
        let known = topics::names(groups).into_iter();
        let names: BTreeSet<String> =
            known.chain(ends.0.keys().cloned()).chain(cursor.topics().cloned()).collect();
        let subject = Subject {
            kafka: kafka.clone(),
            topics: names.into_iter().collect(),
            partitions: cursor.partitions,
        };
        let found = subject.look(cursor.era, cursor.tails.0.clone(), Depth::Behind).await;
        let found = found.map_err(TopicsError::from)?;
        let mut topics = BTreeMap::new();
        for end in &found {
            *topics.entry(end.topic.clone()).or_insert(0) += end.records();
        }
        let reason = reason(pool, &cursor, &found).await?;
        let (former_era, era, after, log_end) = if reason == Some(Reason::Unfinished) {
            // The era has begun already; only the topics are left to do.
            (cursor.era - 1, cursor.era, cursor.published_after, cursor.era_after)
        } else {
            let log_end = ends.0.values().flatten().map(|last| last.position).max().unwrap_or(0);
            let after = needed_after(pool, groups, &cursor).await?;
            (cursor.era, next_era(pool, &found, era).await?, after, log_end)
        };
        Ok(Adoption { reason, former_era, era, log_end, after, topics, cursor })
    }

    /// The topics that hold records, with their numbers; `None` where there is none.
    #[must_use]
    pub fn records(&self) -> Option<String> {
        let full = self.topics.iter().filter(|(_, records)| **records > 0);
        let listed: Vec<String> = full.map(|(topic, records)| format!("{topic}: {records}")).collect();
        (!listed.is_empty()).then(|| listed.join(", "))
    }

    /// Carries it out. Where this dies on the way, the same is done again, to the same end.
    ///
    /// # Errors
    /// [`AdoptError`] where there is no reason to and `force` is not set, where anybody is at work with the database,
    /// where topics hold records that may not be deleted, or where database or Kafka fails.
    pub async fn carry_out(
        &self,
        pool: &PgPool,
        kafka: &KafkaConfig,
        recreate_topics: bool,
        force: bool,
    ) -> Result<(), AdoptError> {
        if self.reason.is_none() && !force {
            return Err(AdoptError::NothingWrong);
        }
        if let Some(at_work) = heartbeat::at_work(pool).await? {
            return Err(AdoptError::AtWork(at_work));
        }
        if let Some(records) = self.records().filter(|_| !recreate_topics) {
            return Err(AdoptError::TopicsNotEmpty(records));
        }
        if self.reason != Some(Reason::Unfinished) {
            self.begin_era(pool, &kafka.keyring.secrets()).await?;
        }
        let names: Vec<String> = self.topics.keys().cloned().collect();
        if recreate_topics {
            topics::delete(kafka, &names).await?;
        }
        topics::ensure_named(kafka, self.cursor.partitions, &names).await?;
        sqlx::query!("UPDATE relay_cursor SET adopting = false WHERE era = $1", self.era)
            .execute(pool)
            .await?;
        Ok(())
    }

    /// In one transaction: the cursor goes back to what is needed, every group's labels are put over to the new era, and a key
    /// of that era signs.
    /// Up to where a group has applied the log, the positions stay what they are, so it skips what it has applied.
    async fn begin_era(&self, pool: &PgPool, secrets: &Secrets) -> Result<(), AdoptError> {
        let mut transaction = database::begin(pool).await?;
        raise_positions(&mut transaction).await?;
        let tails = tails_at(&mut transaction, self.after, self.cursor.partitions).await?;
        // A leader has a higher epoch than the one that was found, since it took the lead after that.
        let begun = sqlx::query!(
            "UPDATE relay_cursor
             SET era = $2, system_identifier = (SELECT system_identifier FROM pg_control_system()),
                 epoch = epoch + 1, leader = NULL, lease_until = '-infinity', position = $3, tails = $4,
                 published_after = $3, era_after = $5, adopting = true, repeat_after = NULL, repeat_topics = NULL
             WHERE epoch = $1 AND era < $2",
            self.cursor.epoch,
            self.era,
            self.after,
            Json(&tails) as _,
            self.log_end,
        )
        .execute(&mut *transaction)
        .await?;
        if begun.rows_affected() == 0 {
            return Err(AdoptError::Led);
        }
        sqlx::query!(
            "UPDATE consumer_offset
             SET epoch = epoch + 1, next_offset = 0, label_era = $1,
                 tip_era = NULL, tip_position = NULL, tip_offset = NULL",
            self.era,
        )
        .execute(&mut *transaction)
        .await?;
        // Whatever was signed before, by whomever, is not of this era.
        key_table::replace(&mut transaction, secrets).await?;
        // The topics begin anew.
        sqlx::query!("TRUNCATE log_place").execute(&mut *transaction).await?;
        // Signs of life that came with the dump.
        sqlx::query!("DELETE FROM heartbeat").execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }
}

async fn reason(pool: &PgPool, cursor: &Cursor, found: &[End]) -> Result<Option<Reason>, AdoptError> {
    if cursor.adopting {
        return Ok(Some(Reason::Unfinished));
    }
    let is_here = sqlx::query_scalar!(
        r#"SELECT r.system_identifier = here.system_identifier AS "is_here!"
           FROM relay_cursor r, pg_control_system() AS here"#
    );
    if !is_here.fetch_one(pool).await? {
        return Ok(Some(Reason::OtherDatabase));
    }
    let foreign = ends::foreign(pool, cursor.era, found).await?;
    Ok(foreign.map(|(topic, found)| Reason::KafkaAhead { topic, found }))
}

/// The number of the new era: above every one that database or Kafka has seen.
async fn next_era(pool: &PgPool, found: &[End], asked: Option<i32>) -> Result<i32, AdoptError> {
    let in_database = sqlx::query_scalar!(
        r#"SELECT greatest(max(c.era), max(o.label_era)) AS "era!" FROM relay_cursor c LEFT JOIN consumer_offset o ON true"#
    )
    .fetch_one(pool)
    .await?;
    let in_kafka = found.iter().flat_map(|end| &end.met).map(|met| met.label.era).max().unwrap_or(0);
    let least = in_database.max(in_kafka).saturating_add(1);
    match asked {
        Some(asked) if asked < least => Err(AdoptError::NotNew { asked, least }),
        asked => Ok(asked.unwrap_or(least)),
    }
}

/// Up to where no group needs anything, and everything was published.
async fn needed_after<T: Topic>(
    pool: &PgPool,
    groups: &[(&str, &[T])],
    cursor: &Cursor,
) -> Result<i64, AdoptError> {
    let topics = |(group, topics): &(&str, &[T])| {
        topics.iter().map(|topic| ((*group).to_owned(), topic.name().to_owned())).collect::<Vec<_>>()
    };
    let (groups, topics): (Vec<String>, Vec<String>) = groups.iter().flat_map(topics).unzip();
    let first_needed = sqlx::query_scalar!(
        r#"WITH applied AS (
               SELECT g.topic, n AS partition, coalesce(o.label_position, 0) AS position
               FROM unnest($1::text[], $2::text[]) AS g (group_name, topic)
               CROSS JOIN generate_series(0, $3::integer - 1) AS n
               LEFT JOIN consumer_offset o
                   ON o.group_name = g.group_name AND o.topic = g.topic AND o.partition = n
           )
           SELECT min(e.position) FROM event_history e JOIN applied a ON e.topic = a.topic AND e.partition = a.partition
           WHERE e.position > a.position AND e.segment >= (SELECT min(position) FROM applied) / 100000"#,
        &groups,
        &topics,
        i32::from(cursor.partitions),
    )
    .fetch_one(pool)
    .await?;
    Ok(first_needed.map_or(cursor.position, |first| cursor.position.min(first - 1)))
}

/// Has positions go on above the log, also where whatever restored it did not restore its sequence.
async fn raise_positions(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Nobody draws one meanwhile. It comes first, as with everybody who appends.
    sqlx::query!("LOCK TABLE log_segment IN SHARE MODE").execute(&mut *connection).await?;
    let end = log_end(&mut *connection).await?;
    sqlx::query!(
        "SELECT setval('log_segment_number_seq', max(number)) FROM log_segment HAVING max(number) > $1::bigint / 100000",
        end,
    )
    .fetch_optional(connection)
    .await?;
    Ok(())
}
