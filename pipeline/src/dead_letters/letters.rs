//! Looks at dead letters: lists, filters, counts, shows.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use ordermill_wire::Event;
use sqlx::types::Json;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::State;
use super::edits::audit;
use crate::audit::snapshot;
use crate::log::RecordPlace;
use crate::record::Record;
use crate::stored_header::StoredHeader;

pub use crate::record::{Mismatch, Place};

/// What a dead-letter topic's name ends with.
const DEAD_LETTER_SUFFIX: &str = ".dlt";

/// Which letters are meant; what is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The topic that the message came from, without prefix.
    pub topic: Option<String>,
    /// The group that failed.
    pub group: Option<String>,
    /// The name of a [`super::Code`].
    pub code: Option<String>,
    /// What has become of it.
    pub state: Option<State>,
    /// It failed last at this time or later; what only waits has no such time.
    pub from: Option<Timestamp>,
    /// It failed last before this time.
    pub to: Option<Timestamp>,
}

impl Filter {
    /// Also takes the name of a dead-letter topic, `<topic>.<group>.dlt`, for topic and group, and the names that topics
    /// have in Kafka, with the installation's `prefix`. `None` where that group is not the one that was asked for,
    /// so that nothing can be meant.
    #[must_use]
    pub fn with_topic(mut self, name: &str, prefix: &str) -> Option<Filter> {
        let name = name.strip_prefix(prefix).unwrap_or(name);
        let dead_letter_topic = name.strip_suffix(DEAD_LETTER_SUFFIX).and_then(|name| name.rsplit_once('.'));
        match dead_letter_topic {
            Some((topic, group)) => {
                if self.group.as_deref().is_some_and(|wanted| wanted != group) {
                    return None;
                }
                self.topic = Some(topic.to_owned());
                self.group = Some(group.to_owned());
            }
            None => self.topic = Some(name.to_owned()),
        }
        Some(self)
    }
}

/// A dead letter without its bytes.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The letter.
    pub dead_letter_id: Uuid,
    /// The order in which messages were put aside; pages go by it.
    pub ordinal: i64,
    /// Where the message lay.
    pub place: RecordPlace,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// The group that did not apply it.
    pub group: String,
    /// The event's type as its headers say it.
    pub event_type: Option<String>,
    /// What the event belongs to.
    pub correlation_id: Option<Uuid>,
    /// The name of a [`super::Code`]; none on what only waits.
    pub code: Option<String>,
    /// What went wrong, for operators.
    pub error: Option<String>,
    /// How often it was tried.
    pub attempts: i32,
    /// When it failed first.
    pub first_failed_at: Option<Timestamp>,
    /// When it failed last.
    pub last_failed_at: Option<Timestamp>,
    /// What has become of it.
    pub state: State,
    /// When it was applied.
    pub resolved_at: Option<Timestamp>,
    /// How many messages of its key wait behind it.
    pub waiting_behind: i64,
    /// The letter that it waits behind.
    pub waits_for: Option<Uuid>,
    /// Whether somebody has edited the payload.
    pub edited: bool,
}

/// A dead letter with everything.
#[derive(Clone, Debug)]
pub struct WholeLetter {
    /// The letter.
    pub letter: Letter,
    /// The message's headers, in order.
    pub headers: Vec<StoredHeader>,
    /// The payload, as edited.
    pub payload: Option<Vec<u8>>,
    /// The payload as it came, where it was edited.
    pub original_payload: Option<Vec<u8>>,
    /// Why the payload is not what the headers promise; nothing where it is.
    pub mismatch: Option<Mismatch>,
    /// What people have done to it, oldest first.
    pub audit: Vec<audit::Audited>,
}

/// How many letters of one cause there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The topic, without prefix.
    pub topic: String,
    /// The group.
    pub group: String,
    /// The name of a [`super::Code`]; none for what only waits or waited.
    pub code: Option<String>,
    /// How many.
    pub count: i64,
    /// How many of them are in which state; states that none is in are left out.
    pub states: Vec<(State, i64)>,
    /// When the first failed first.
    pub first_failed_at: Option<Timestamp>,
    /// When the last failed last.
    pub last_failed_at: Option<Timestamp>,
    /// The error of the newest.
    pub error: Option<String>,
}

/// The letters that are meant, newest first, at most `limit`, of those before the ordinal `before`.
///
/// # Errors
/// Where the database fails.
pub async fn list(
    executor: impl PgExecutor<'_>,
    filter: &Filter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Letter>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT d.dead_letter_id, d.ordinal, d.topic, d.partition, d.record_offset,
               coalesce(d.record_key, d.foreign_record_key) AS record_key, d.group_name,
               d.event_type, d.correlation_id, d.code, d.error, d.attempts, d.first_failed_at, d.last_failed_at,
               d.state AS "state: State", d.resolved_at, d.edited,
               CASE WHEN p.dead_letter_id = d.dead_letter_id THEN (
                   SELECT count(*) FROM dead_letter w
                   WHERE w.group_name = d.group_name AND w.topic = d.topic AND w.record_key = d.record_key
                       AND w.state = 'WAITING') ELSE 0 END AS "waiting_behind!",
               CASE WHEN d.state = 'WAITING' THEN p.dead_letter_id END AS waits_for
           FROM dead_letter d
           LEFT JOIN parked_key p
               ON p.group_name = d.group_name AND p.topic = d.topic AND p.record_key = d.record_key
           WHERE ($1::text IS NULL OR d.topic = $1) AND ($2::text IS NULL OR d.group_name = $2)
               AND ($3::text IS NULL OR d.code = $3) AND ($4::text IS NULL OR d.state = $4)
               AND ($5::timestamptz IS NULL OR d.last_failed_at >= $5)
               AND ($6::timestamptz IS NULL OR d.last_failed_at < $6)
               AND d.ordinal < $7
           ORDER BY d.ordinal DESC LIMIT $8"#,
        filter.topic,
        filter.group,
        filter.code,
        filter.state.map(State::name),
        filter.from.map(|at| at.to_sqlx()) as _,
        filter.to.map(|at| at.to_sqlx()) as _,
        before.unwrap_or(i64::MAX),
        limit,
    )
    .fetch_all(executor)
    .await?;
    let letters = rows.into_iter().map(|row| Letter {
        dead_letter_id: row.dead_letter_id,
        ordinal: row.ordinal,
        place: RecordPlace { topic: row.topic, partition: row.partition, offset: row.record_offset },
        key: row.record_key,
        group: row.group_name,
        event_type: row.event_type,
        correlation_id: row.correlation_id,
        code: row.code,
        error: row.error,
        attempts: row.attempts,
        first_failed_at: row.first_failed_at.map(|at| at.to_jiff()),
        last_failed_at: row.last_failed_at.map(|at| at.to_jiff()),
        state: row.state,
        resolved_at: row.resolved_at.map(|at| at.to_jiff()),
        waiting_behind: row.waiting_behind,
        waits_for: row.waits_for,
        edited: row.edited,
    });
    Ok(letters.collect())
}

/// One letter with everything, if there is one, as of one moment: `E` is what it should hold.
///
/// # Errors
/// Where the database fails.
pub async fn get<E: Event>(pool: &PgPool, dead_letter_id: Uuid) -> Result<Option<WholeLetter>, sqlx::Error> {
    let mut moment = snapshot(pool).await?;
    let whole = sqlx::query!(
        r#"SELECT ordinal, headers AS "headers: Json<Vec<StoredHeader>>", payload, original_payload, authentic
           FROM dead_letter WHERE dead_letter_id = $1"#,
        dead_letter_id,
    )
    .fetch_optional(&mut *moment)
    .await?;
    let Some(whole) = whole else { return Ok(None) };
    let letters = list(&mut *moment, &Filter::default(), Some(whole.ordinal + 1), 1).await?;
    let Some(letter) = letters.into_iter().next() else { return Ok(None) };
    let audit = audit::of_letter(&mut moment, dead_letter_id).await?;
    moment.rollback().await?;
    let (headers, payload) = (whole.headers.0, whole.payload);
    let record =
        Record::stored(letter.place.clone(), letter.key.clone(), &headers, payload.clone(), whole.authentic);
    let (mismatch, original_payload) = (record.decode::<E>().err(), whole.original_payload);
    Ok(Some(WholeLetter { letter, headers, payload, original_payload, mismatch, audit }))
}

/// The letters that wait behind a letter, in order, at most `limit`.
///
/// # Errors
/// Where the database fails.
pub async fn waiting_behind(pool: &PgPool, letter: &Letter, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT w.dead_letter_id FROM parked_key p
         JOIN dead_letter w
             ON w.group_name = p.group_name AND w.topic = p.topic AND w.record_key = p.record_key
         WHERE p.dead_letter_id = $1 AND w.state = 'WAITING'
         ORDER BY w.ordinal LIMIT $2",
        letter.dead_letter_id,
        limit,
    )
    .fetch_all(pool)
    .await
}

/// How many letters there are by topic, group and code.
///
/// # Errors
/// Where the database fails.
pub async fn counts(pool: &PgPool, filter: &Filter) -> Result<Vec<Count>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT topic, group_name, code, count(*) AS "count!",
               count(*) FILTER (WHERE state = 'PARKED') AS "parked!",
               count(*) FILTER (WHERE state = 'WAITING') AS "waiting!",
               count(*) FILTER (WHERE state = 'REPLAYED') AS "replayed!",
               count(*) FILTER (WHERE state = 'RESOLVED') AS "resolved!",
               count(*) FILTER (WHERE state = 'DISCARDED') AS "discarded!",
               min(first_failed_at) AS first_failed_at, max(last_failed_at) AS last_failed_at,
               (array_agg(error ORDER BY ordinal DESC))[1] AS error
           FROM dead_letter
           WHERE ($1::text IS NULL OR topic = $1) AND ($2::text IS NULL OR group_name = $2)
               AND ($3::text IS NULL OR code = $3) AND ($4::text IS NULL OR state = $4)
               AND ($5::timestamptz IS NULL OR last_failed_at >= $5)
               AND ($6::timestamptz IS NULL OR last_failed_at < $6)
           GROUP BY topic, group_name, code ORDER BY topic, group_name, code"#,
        filter.topic,
        filter.group,
        filter.code,
        filter.state.map(State::name),
        filter.from.map(|at| at.to_sqlx()) as _,
        filter.to.map(|at| at.to_sqlx()) as _,
    )
    .fetch_all(pool)
    .await?;
    let counts = rows.into_iter().map(|row| {
        let states = [
            (State::Parked, row.parked),
            (State::Waiting, row.waiting),
            (State::Replayed, row.replayed),
            (State::Resolved, row.resolved),
            (State::Discarded, row.discarded),
        ];
        Count {
            topic: row.topic,
            group: row.group_name,
            code: row.code,
            count: row.count,
            states: states.into_iter().filter(|(_, count)| *count > 0).collect(),
            first_failed_at: row.first_failed_at.map(|at| at.to_jiff()),
            last_failed_at: row.last_failed_at.map(|at| at.to_jiff()),
            error: row.error,
        }
    });
    Ok(counts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_topic_names_topic_and_group() {
        let filter = Filter::default().with_topic("orders.stock.dlt", "").unwrap();
        assert_eq!((filter.topic.as_deref(), filter.group.as_deref()), (Some("orders"), Some("stock")));
        let filter = Filter::default().with_topic("orders", "shop-").unwrap();
        assert_eq!((filter.topic.as_deref(), filter.group), (Some("orders"), None));
    }

    #[test]
    fn a_dead_letter_topic_of_another_group_means_nothing() {
        let filter = Filter { group: Some("coupons".to_owned()), ..Filter::default() };
        assert_eq!(filter.clone().with_topic("orders.stock.dlt", ""), None);
        assert!(filter.with_topic("orders.coupons.dlt", "").is_some());
    }

    #[test]
    fn a_topic_may_stand_there_as_kafka_knows_it() {
        let filter = Filter::default().with_topic("shop-orders.stock.dlt", "shop-").unwrap();
        assert_eq!((filter.topic.as_deref(), filter.group.as_deref()), (Some("orders"), Some("stock")));
        let filter = Filter::default().with_topic("shop-orders", "shop-").unwrap();
        assert_eq!(filter.topic.as_deref(), Some("orders"));
    }
}
