//! Asking the relay to publish again: consumers that miss records, and operators.

use std::collections::BTreeSet;

use sqlx::PgPool;

use super::RelayError;
use super::cursor::CursorError;

/// What is asked to be published again: everything above a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) after: i64,
    /// Of these topics alone; of all where none is named.
    pub(super) topics: Option<Vec<String>>,
}

/// A stretch of the log of which only some topics are published, since the others have it. It is kept in memory alone:
/// a relay that takes over knows nothing of it and publishes everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Only {
    topics: BTreeSet<String>,
    /// What lies up to here has not been published in this era, to no topic.
    after: i64,
    pub(super) upto: i64,
}

impl Only {
    /// Whether a row is passed over.
    pub(super) fn leaves_out(&self, topic: &str, position: i64) -> bool {
        position > self.after && position <= self.upto && !self.topics.contains(topic)
    }

    /// The stretch once the cursor has been moved back from `position` by a further request.
    pub(super) fn next(
        former: Option<Only>,
        repeat: &Repeat,
        published_after: i64,
        position: i64,
    ) -> Option<Only> {
        let former =
            former.unwrap_or(Only { topics: BTreeSet::new(), after: published_after, upto: position });
        former.with(repeat)
    }

    /// The stretch with the topics of a further request; none where that asks for all of them.
    pub(super) fn with(mut self, repeat: &Repeat) -> Option<Only> {
        self.topics.extend(repeat.topics.as_ref()?.iter().cloned());
        Some(self)
    }
}

/// Asks the relay to publish everything above `position` again for who misses what follows it in a partition. Nothing is
/// asked for where nothing has been published to the partition since, or not yet again: the relay comes to it by itself,
/// and would never get there if it were sent back on its way.
///
/// # Errors
/// Where the database fails.
pub async fn request_repeat(
    pool: &PgPool,
    topic: &str,
    partition: i16,
    position: i64,
) -> Result<(), sqlx::Error> {
    // Asked for of some topics only, it is not asked for of all.
    sqlx::query!(
        "UPDATE relay_cursor SET repeat_after = LEAST(repeat_after, $3), repeat_topics = NULL
         WHERE (tails -> $1::text ->> $2::int)::bigint > $3
             AND (repeat_after IS NULL OR repeat_after > $3 OR repeat_topics IS NOT NULL)",
        topic,
        i32::from(partition),
        position,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// What an operator wants to have published again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// Everything above this position.
    pub after: i64,
    /// Of these topics, without prefix; of all where none is named.
    pub topics: Vec<String>,
}

/// What a [`Rewind`] comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewindPlan {
    /// Where the relay is: what lies above is published anyway.
    pub position: i64,
    /// How many records are published again.
    pub records: i64,
    /// Whether a relay leads now.
    pub is_led: bool,
}

/// How far a relay is with a [`Rewind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewindProgress {
    /// Where the relay is.
    pub position: i64,
    /// Whether it has not gone back yet.
    pub is_pending: bool,
    /// Whether a relay leads now.
    pub is_led: bool,
}

impl Rewind {
    /// Looks what would be published again, and changes nothing. `known` are the topics there are.
    ///
    /// # Errors
    /// [`RelayError::Rewind`] where the position or a topic makes no sense, or where the database fails.
    pub async fn plan(&self, pool: &PgPool, known: &[String]) -> Result<RewindPlan, RelayError> {
        let row = sqlx::query!(
            r#"SELECT position, lease_until > clock_timestamp() AS "is_led!", adopting FROM relay_cursor"#
        )
        .fetch_optional(pool)
        .await?
        .ok_or(CursorError::NotInstalled)?;
        if row.adopting {
            return Err(CursorError::Adopting.into());
        }
        if self.after < 0 || self.after > row.position {
            return Err(RewindError::Position { asked: self.after, position: row.position }.into());
        }
        self.check_topics(known)?;
        let records = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM event_log
               WHERE position > $1 AND position <= $2 AND (topic = ANY($3) OR cardinality($3::text[]) = 0)"#,
            self.after,
            row.position,
            &self.topics,
        )
        .fetch_one(pool)
        .await?;
        Ok(RewindPlan { position: row.position, records, is_led: row.is_led })
    }

    fn check_topics(&self, known: &[String]) -> Result<(), RewindError> {
        let unknown = self.topics.iter().find(|topic| !known.contains(topic));
        let error = |topic: &String| RewindError::Topic { asked: topic.clone(), known: known.join(", ") };
        unknown.map_or(Ok(()), |topic| Err(error(topic)))
    }

    /// Looks how far the relay is with it.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn progress(&self, pool: &PgPool) -> Result<RewindProgress, sqlx::Error> {
        sqlx::query_as!(
            RewindProgress,
            r#"SELECT position, repeat_after IS NOT NULL AND repeat_after <= $1 AS "is_pending!",
                   lease_until > clock_timestamp() AS "is_led!" FROM relay_cursor"#,
            self.after,
        )
        .fetch_one(pool)
        .await
    }

    /// Asks the relay for it, whether one leads now or not. Safe to repeat.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn request(&self, pool: &PgPool) -> Result<(), RelayError> {
        let topics = (!self.topics.is_empty()).then_some(self.topics.as_slice());
        // Together with what is asked for already, which it may not make less.
        sqlx::query!(
            "UPDATE relay_cursor SET repeat_after = LEAST(repeat_after, $1),
                 repeat_topics = CASE WHEN repeat_after IS NULL THEN $2::text[]
                     WHEN repeat_topics IS NOT NULL AND $2 IS NOT NULL
                     THEN ARRAY(SELECT DISTINCT unnest(repeat_topics || $2) ORDER BY 1) END
             WHERE position > $1",
            self.after,
            topics as _,
        )
        .execute(pool)
        .await?;
        Ok(())
    }
}

/// What can't be published again.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// The position is not one that was published.
    #[error(
        "position {asked} can't be gone back to: the relay is at {position}; give a position from 0 to {position}"
    )]
    Position {
        /// What was asked for.
        asked: i64,
        /// Where the relay is.
        position: i64,
    },
    /// There is no such topic.
    #[error("there is no topic {asked:?}; give one of {known}")]
    Topic {
        /// What was asked for.
        asked: String,
        /// The topics there are.
        known: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(topics: &[&str], after: i64) -> Repeat {
        Repeat { after, topics: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()) }
    }

    #[test]
    fn only_the_topics_that_were_asked_for_are_published_again_and_what_is_new_of_all() {
        let only = Only::next(None, &of(&["cups"], 10), 0, 50).unwrap();
        assert!(!only.leaves_out("cups", 20));
        assert!(only.leaves_out("pots", 20) && only.leaves_out("pots", 50));
        assert!(!only.leaves_out("pots", 51), "it has not been published before");
    }

    #[test]
    fn what_this_era_has_not_published_is_published_to_every_topic() {
        let only = Only::next(None, &of(&["cups"], 0), 30, 50).unwrap();
        assert!(!only.leaves_out("pots", 30));
        assert!(only.leaves_out("pots", 31));
    }

    #[test]
    fn a_further_request_adds_its_topics_and_one_for_all_leaves_nothing_out() {
        let only = Only::next(None, &of(&["cups"], 10), 0, 50).unwrap();
        let wider = Only::next(Some(only.clone()), &of(&["pots"], 5), 0, 20).unwrap();
        assert!(
            !wider.leaves_out("pots", 40) && !wider.leaves_out("cups", 40) && wider.leaves_out("lids", 40)
        );
        assert_eq!(Only::next(Some(only), &Repeat { after: 5, topics: None }, 0, 20), None);
    }
}
