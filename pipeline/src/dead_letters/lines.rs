//! Lines: of a parked key the letter that failed and what waits behind it, in order.

use std::collections::HashSet;

use uuid::Uuid;

use super::working::{Key, Letter, Task, Work};

impl Work {
    /// The next letters of a key's line, behind one ordinal and up to another, `limit` at most. Nothing is locked.
    pub(crate) async fn line(
        &mut self,
        key: &Key,
        behind: i64,
        upto: i64,
        limit: i64,
    ) -> Result<Vec<Letter>, sqlx::Error> {
        let ids = sqlx::query_scalar!(
            "SELECT dead_letter_id FROM dead_letter
             WHERE group_name = $1 AND topic = $2 AND record_key = $3 AND ordinal > $4 AND ordinal <= $5
                 AND state IN ('PARKED', 'WAITING', 'REPLAYED')
             ORDER BY ordinal LIMIT $6",
            self.group,
            key.topic,
            key.record_key,
            behind,
            upto,
            limit,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        self.letters(&ids).await
    }

    /// Those of the letters that the replay has selected.
    pub(crate) async fn selected(
        &mut self,
        task: &Task,
        dead_letter_ids: &[Uuid],
    ) -> Result<HashSet<Uuid>, sqlx::Error> {
        let selected = sqlx::query_scalar!(
            "SELECT dead_letter_id FROM dead_letter_replay_item
             WHERE replay_id = $1 AND dead_letter_id = ANY($2)",
            task.replay_id,
            dead_letter_ids,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(selected.into_iter().collect())
    }

    /// Those of the replays that want something of this group yet.
    pub(crate) async fn under_way(&mut self, replay_ids: &[Uuid]) -> Result<HashSet<Uuid>, sqlx::Error> {
        let under_way = sqlx::query_scalar!(
            "SELECT r.replay_id FROM dead_letter_replay r
             WHERE r.replay_id = ANY($2) AND EXISTS (
                 SELECT FROM dead_letter_replay_item i
                 WHERE i.group_name = $1 AND i.replay_id = r.replay_id AND i.verdict IS NULL)",
            self.group,
            replay_ids,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(under_way.into_iter().collect())
    }
}
