//! Groups that have stopped because too much of what they read can't be applied.

use std::time::Duration;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use utoipa::ToSchema;

use super::edits::audit;
use crate::database;
use crate::journal::{Beside, Load, Shortfall, Statement};

/// How a group stands, as one of its batches sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// It has stopped.
    pub(crate) halted: bool,
    /// Failures are not held against it for now.
    pub(crate) unchecked: bool,
    /// Some key of it is parked.
    pub(crate) any_parked: bool,
}

/// The kind of the row in which a load tells how the group stands.
const STANDING: i16 = 1;

impl Standing {
    /// Adds to a load how the group stands.
    pub(crate) fn ask(load: &mut Load, group: &str, now: Timestamp) {
        let (group, now) = (load.statement.bind(group.to_owned()), load.statement.bind(now.to_sqlx()));
        load.beside(
            STANDING,
            &format!(
                "SELECT concat(
                     CASE WHEN EXISTS (SELECT FROM parked_key WHERE group_name = {group}) THEN 'parked ' END,
                     (SELECT concat(CASE WHEN resumed_at IS NULL THEN 'halted ' END,
                          CASE WHEN unchecked_until > {now} THEN 'unchecked ' END)
                      FROM halted_group WHERE group_name = {group})), NULL::text"
            ),
        );
    }

    /// Adds to a statement that it writes nothing where the group has stopped, or a key of it is parked.
    pub(crate) fn require_free(statement: &mut Statement, group: &str) {
        let group = statement.bind(group.to_owned());
        let sql = format!(
            "SELECT 1 FROM parked_key WHERE group_name = {group}
             UNION ALL SELECT 1 FROM halted_group WHERE group_name = {group} AND resumed_at IS NULL LIMIT 1"
        );
        statement.must("standing", sql, 0, Shortfall::Standing);
    }

    /// Adds to a statement that it writes nothing where the group has stopped.
    pub(crate) fn require_going(statement: &mut Statement, group: &str) {
        let group = statement.bind(group.to_owned());
        let sql =
            format!("SELECT 1 FROM halted_group WHERE group_name = {group} AND resumed_at IS NULL LIMIT 1");
        statement.must("standing", sql, 0, Shortfall::Standing);
    }

    /// What the load has answered.
    pub(crate) fn told(beside: &[Beside]) -> Standing {
        let told = beside.iter().find(|row| row.kind == STANDING).and_then(|row| row.text.as_deref());
        let told = told.unwrap_or_default();
        Standing {
            halted: told.contains("halted"),
            unchecked: told.contains("unchecked"),
            any_parked: told.contains("parked"),
        }
    }
}

/// Stops the group: none of its members applies anything until it is resumed.
pub(crate) async fn halt(
    pool: &PgPool,
    group: &str,
    reason: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO halted_group AS h (group_name, halted_at, reason) VALUES ($1, $2, $3)
         ON CONFLICT (group_name) DO UPDATE
         SET halted_at = excluded.halted_at, reason = excluded.reason, resumed_at = NULL, unchecked_until = NULL
         WHERE h.resumed_at IS NOT NULL",
        group,
        now.to_sqlx() as _,
        reason,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// How many messages the group has put aside and are not done with, and whether it has stopped.
pub(crate) async fn figures(pool: &PgPool, group: &str) -> Result<(i64, bool), sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT (SELECT count(*) FROM dead_letter
                   WHERE group_name = $1 AND state IN ('PARKED', 'WAITING', 'REPLAYED')) AS "open!",
               EXISTS (SELECT FROM halted_group WHERE group_name = $1 AND resumed_at IS NULL) AS "halted!""#,
        group,
    )
    .fetch_one(pool)
    .await?;
    Ok((row.open, row.halted))
}

/// A group that has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Halt)]
pub struct Halted {
    /// The group.
    pub group: String,
    /// Since when.
    pub halted_at: Timestamp,
    /// Why.
    pub reason: String,
}

/// The groups that have stopped, by name.
///
/// # Errors
/// Where the database fails.
pub async fn halted(pool: &PgPool) -> Result<Vec<Halted>, sqlx::Error> {
    sqlx::query_as!(
        Halted,
        r#"SELECT group_name AS "group", halted_at, reason FROM halted_group
           WHERE resumed_at IS NULL ORDER BY group_name"#
    )
    .fetch_all(pool)
    .await
}

/// A group that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ResumedGroup)]
pub struct Resumed {
    /// The group.
    pub group: String,
    /// When it was told to.
    pub resumed_at: Timestamp,
    /// Until when failures don't stop it again.
    pub unchecked_until: Timestamp,
}

/// Has a group that has stopped go on; `None` where it has not stopped. For the time of `unchecked`, failures become
/// dead letters however many they are.
///
/// # Errors
/// Where the database fails.
pub async fn resume(
    pool: &PgPool,
    group: &str,
    unchecked: Duration,
    actor: &str,
    now: Timestamp,
) -> Result<Option<Resumed>, sqlx::Error> {
    let mut transaction = database::begin(pool).await?;
    let until = now.saturating_add(unchecked).unwrap_or(Timestamp::MAX);
    let halted_because = sqlx::query_scalar!(
        "UPDATE halted_group SET resumed_at = $2, unchecked_until = $3
         WHERE group_name = $1 AND resumed_at IS NULL RETURNING reason",
        group,
        now.to_sqlx() as _,
        until.to_sqlx() as _,
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(halted_because) = halted_because else { return Ok(None) };
    let detail = json!({"halted_because": halted_because, "unchecked_seconds": unchecked.as_secs()});
    let entry = audit::Entry { group: Some(group), ..audit::Entry::of(audit::Action::Resumed, detail) };
    audit::write(&mut transaction, actor, now, vec![entry]).await?;
    transaction.commit().await?;
    Ok(Some(Resumed { group: group.to_owned(), resumed_at: now, unchecked_until: until }))
}
