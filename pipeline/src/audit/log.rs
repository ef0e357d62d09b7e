//! The log by itself, and how far a group has applied it.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use ordermill_wire::{DecodeError, Event};
use sqlx::PgConnection;
use uuid::Uuid;

use super::check::{Check, Found, SHOWN_MAX};
use crate::log::{self, Appended, SEGMENT_POSITIONS, Wanted};
use crate::words::Words;

/// How many events the log has; without dead letters.
///
/// # Errors
/// Where the database fails.
pub async fn count(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM log_segment, unnest(topic) AS event_topic
           WHERE event_topic NOT IN (SELECT code FROM log_word WHERE word LIKE '%.dlt')"#
    );
    Ok(count.fetch_one(connection).await?.unsigned_abs())
}

/// Every aggregate's events on a topic are numbered from 1 without gap, and stand in the log in that order.
///
/// # Errors
/// Where the database fails.
pub async fn sequences(connection: &mut PgConnection) -> Result<Check, sqlx::Error> {
    let mut check = Check::new("sequences");
    check.checked = count(&mut *connection).await?;
    let found = sqlx::query_as!(
        Found,
        r#"SELECT format('%s of %s: log position %s has sequence %s, after %s at position %s',
               topic, aggregate_id, position, sequence, sequence_before, position_before) AS "text!",
               count(*) OVER () AS "total!"
           FROM (
               SELECT topic, aggregate_id, position, sequence,
                   lag(sequence, 1, 0) OVER history AS sequence_before,
                   lag(position, 1, 0::bigint) OVER history AS position_before
               FROM event_history WHERE topic NOT LIKE '%.dlt'
               WINDOW history AS (PARTITION BY aggregate_id, topic ORDER BY sequence)
           ) AS e
           WHERE sequence <> sequence_before + 1 OR position < position_before
           ORDER BY position LIMIT $1"#,
        SHOWN_MAX as i64,
    )
    .fetch_all(connection)
    .await?;
    check.found(found);
    Ok(check)
}

/// An event as it stands in the log.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct LoggedEvent {
    /// Its place in the log.
    pub position: i64,
    /// Its id.
    pub event_id: Uuid,
    /// Its topic, without prefix.
    pub topic: String,
    /// Its partition.
    pub partition: i16,
    /// Its type.
    #[sqlx(rename = "type")]
    pub event_type: String,
    /// The version of its payload's schema.
    pub version: i16,
    /// When it happened.
    #[sqlx(try_from = "jiff_sqlx::Timestamp")]
    pub at: Timestamp,
    /// Its payload.
    pub data: Vec<u8>,
}

impl LoggedEvent {
    /// The event itself.
    ///
    /// # Errors
    /// [`DecodeError`] where its type is not known or its payload is not of that type.
    pub fn event<E: Event>(&self) -> Result<E, DecodeError> {
        E::decode(&self.event_type, self.version, &self.data)
    }
}

/// The log above `after` in its order, a page of whole segments with about `limit` events, and the position up to which it was read;
/// without dead letters, so that a page may be empty. `None` at the end.
///
/// # Errors
/// Where the database fails.
pub async fn page(
    connection: &mut PgConnection,
    after: i64,
    limit: usize,
) -> Result<Option<(i64, Vec<LoggedEvent>)>, sqlx::Error> {
    let words = Words::default();
    let above = (after + 1) / SEGMENT_POSITIONS - 1;
    let wanted = Wanted { after: above, upto: i64::MAX, except: Vec::new(), draw: false };
    let segments = log::read(connection, &words, &wanted, limit).await?.segments;
    let Some(last) = segments.last() else { return Ok(None) };
    let reached = last.number * SEGMENT_POSITIONS + SEGMENT_POSITIONS - 1;
    let events = segments.into_iter().flat_map(|Appended { number, at, entries }| {
        let positions = (number * SEGMENT_POSITIONS + 1)..;
        positions.zip(entries).map(move |(position, entry)| LoggedEvent {
            position,
            event_id: entry.event_id,
            topic: entry.topic,
            partition: entry.partition,
            event_type: entry.event_type,
            version: entry.version,
            at,
            data: entry.data,
        })
    });
    let is_wanted = |event: &LoggedEvent| event.position > after && !event.topic.ends_with(".dlt");
    Ok(Some((reached, events.filter(is_wanted).collect())))
}

/// What a group has applied, as its offsets stood at one moment.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The last position applied, by topic and partition.
    upto: HashMap<String, HashMap<i16, i64>>,
    /// Events that were put aside as dead letters instead.
    aside: HashSet<Uuid>,
}

impl Applied {
    /// The same, and of a partition everything up to that position.
    #[must_use]
    pub fn and_upto(mut self, topic: &str, partition: i16, position: i64) -> Applied {
        self.upto.entry(topic.to_owned()).or_default().insert(partition, position);
        self
    }

    /// Whether the group has put that event aside.
    #[must_use]
    pub fn is_aside(&self, event: &LoggedEvent) -> bool {
        self.aside.contains(&event.event_id)
    }

    /// Whether the group has applied that event.
    #[must_use]
    pub fn includes(&self, event: &LoggedEvent) -> bool {
        let upto = self.upto.get(&event.topic).and_then(|topic| topic.get(&event.partition));
        upto.is_some_and(|upto| event.position <= *upto) && !self.aside.contains(&event.event_id)
    }
}

/// What `group` has applied. In the snapshot in which its effects are read this is exact, since a group's effects
/// and offsets are committed together.
///
/// # Errors
/// Where the database fails.
pub async fn applied(connection: &mut PgConnection, group: &str) -> Result<Applied, sqlx::Error> {
    let offsets = sqlx::query!(
        "SELECT topic, partition, label_position FROM consumer_offset WHERE group_name = $1",
        group,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut applied = Applied::default();
    for row in offsets {
        applied = applied.and_upto(&row.topic, row.partition, row.label_position);
    }
    applied.aside = put_aside(connection, group).await?.into_iter().collect();
    Ok(applied)
}

/// Locks the offsets of `group`, so that nothing it applies can be committed before the caller's transaction ends.
///
/// # Errors
/// Where the database fails.
pub async fn hold_offsets(connection: &mut PgConnection, group: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT partition FROM consumer_offset WHERE group_name = $1 ORDER BY topic, partition FOR UPDATE",
        group,
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}

/// Up to which position the log is published. What is committed later than the caller's snapshot stands above it.
///
/// # Errors
/// Where the database fails.
pub async fn published(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let position =
        sqlx::query_scalar!("SELECT position FROM relay_cursor").fetch_optional(connection).await?;
    Ok(position.unwrap_or(0))
}

/// The events that `group` has put aside as dead letters and not applied: those of state REPLAYED are handed to a
/// replay that has not applied them yet.
///
/// # Errors
/// Where the database fails.
pub async fn put_aside(connection: &mut PgConnection, group: &str) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT event_id AS "event_id!" FROM dead_letter
           WHERE group_name = $1 AND state <> 'RESOLVED' AND event_id IS NOT NULL"#,
        group,
    )
    .fetch_all(connection)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(topic: &str, partition: i16, position: i64) -> LoggedEvent {
        LoggedEvent {
            position,
            event_id: Uuid::from_u128(position.unsigned_abs().into()),
            topic: topic.to_owned(),
            partition,
            event_type: String::new(),
            version: 1,
            at: Timestamp::UNIX_EPOCH,
            data: Vec::new(),
        }
    }

    #[test]
    fn a_group_has_applied_what_is_not_above_its_label_and_was_not_put_aside() {
        let mut applied = Applied::default().and_upto("cups", 3, 10);
        applied.aside.insert(Uuid::from_u128(9));
        assert!(applied.includes(&event("cups", 3, 10)));
        assert!(!applied.includes(&event("cups", 3, 11)));
        assert!(!applied.includes(&event("cups", 3, 9)));
        assert!(!applied.includes(&event("cups", 4, 1)));
        assert!(!applied.includes(&event("pots", 3, 1)));
    }
}
