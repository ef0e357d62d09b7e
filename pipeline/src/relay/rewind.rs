//! Going back on an operator's word: what that would publish again, the request, and how far the relay is with it.

use sqlx::PgPool;

use super::RelayError;
use super::cursor::{Cursor, CursorError};

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
        let cursor = Cursor::read(pool).await?.ok_or(CursorError::NotInstalled)?;
        if cursor.adopting {
            return Err(CursorError::Adopting.into());
        }
        let position = cursor.position;
        if self.after < 0 || self.after > position {
            return Err(RewindError::Position { asked: self.after, position }.into());
        }
        if let Some(asked) = self.topics.iter().find(|topic| !known.contains(topic)) {
            let (asked, known) = (asked.clone(), known.join(", "));
            return Err(RewindError::Topic { asked, known }.into());
        }
        let records = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM event_history
               WHERE segment >= $1::bigint / 100000 AND segment <= $2::bigint / 100000
                   AND position > $1 AND position <= $2 AND (topic = ANY($3) OR cardinality($3::text[]) = 0)"#,
            self.after,
            position,
            &self.topics,
        )
        .fetch_one(pool)
        .await?;
        Ok(RewindPlan { position, records, is_led: cursor.leader.is_some() })
    }

    /// Looks how far the relay is with it.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn progress(&self, pool: &PgPool) -> Result<RewindProgress, RelayError> {
        let cursor = Cursor::read(pool).await?.ok_or(CursorError::NotInstalled)?;
        let is_pending = cursor.repeat_after.is_some_and(|after| after <= self.after);
        Ok(RewindProgress { position: cursor.position, is_pending, is_led: cursor.leader.is_some() })
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
