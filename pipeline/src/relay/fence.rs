//! The cut through the log: up to which position no row can appear any more.
//!
//! Positions are drawn before their transactions commit, so the highest position seen says nothing about
//! those below it. But every writer has a transaction id before it draws a position (the column order of
//! `log_segment` sees to that). So:
//!
//! 1. ask for the end of the log: every position up to P has been drawn. (`event_log_end` waits for the sequence's page;
//!    what a plain read of the sequence shows may be ahead of that, see the migration);
//! 2. then draw a transaction id X: whoever drew one of them has an id below X. (The snapshot's xmax would
//!    not do: it is one above the highest id that has *ended*, and ids above it may be at work.);
//! 3. as soon as a later snapshot's xmin is at least X, all of them have ended, and what is visible up to
//!    P is all there will ever be.
//!
//! A cut by position keeps every key's order, since a key's positions are drawn under its lock. A cut by
//! transaction id would not (docs/adr/0002).

use std::collections::VecDeque;
use std::time::Instant;

use sqlx::{PgExecutor, PgPool};

use crate::metrics::PipelineMetrics;

/// A position that becomes final once every transaction below `xid` has ended.
struct Fence {
    position: i64,
    xid: i64,
    set_at: Instant,
}

/// How many cuts may wait; while transactions are open, later cuts only widen the last one.
const WAITING_MAX: usize = 64;

/// Cuts that wait for transactions to end.
#[derive(Default)]
pub(super) struct Fences {
    waiting: VecDeque<Fence>,
    final_position: i64,
}

impl Fences {
    /// Sets a new cut where the log has grown and answers the highest position that is final.
    pub(super) async fn advance(
        &mut self,
        pool: &PgPool,
        metrics: &PipelineMetrics,
    ) -> Result<i64, sqlx::Error> {
        let known = self.waiting.back().map_or(self.final_position, |fence| fence.position);
        // The end is read before the id is drawn, and no id is drawn where there is nothing new.
        let drawn = sqlx::query!(
            r#"WITH log AS MATERIALIZED (SELECT event_log_end() AS position)
               SELECT position AS "position!", pg_current_xact_id()::text::bigint AS "xid!"
               FROM log WHERE position > $1"#,
            known,
        )
        .fetch_optional(pool)
        .await?;
        if let Some(drawn) = drawn {
            if self.waiting.len() >= WAITING_MAX {
                self.waiting.pop_back();
            }
            let fence = Fence { position: drawn.position, xid: drawn.xid, set_at: Instant::now() };
            self.waiting.push_back(fence);
        }
        if !self.waiting.is_empty() {
            let xmin = sqlx::query_scalar!(
                r#"SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "xmin!""#
            );
            let xmin = xmin.fetch_one(pool).await?;
            // The transactions below these have all ended.
            while let Some(fence) = self.waiting.pop_front_if(|fence| fence.xid <= xmin) {
                self.final_position = fence.position;
            }
        }
        let waited = self.waiting.front().map_or(0, |fence| fence.set_at.elapsed().as_millis());
        metrics.relay_fence_wait_ms.set(i64::try_from(waited).unwrap_or(i64::MAX));
        Ok(self.final_position)
    }
}

/// The highest position that was ever drawn; 0 where none was.
pub(crate) async fn log_end(database: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT event_log_end() AS "position!""#).fetch_one(database).await
}
