//! What people have done to dead letters: who, when and what.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::dead_letters::named;

named! {
    /// What was done.
    Action {
        /// Another payload was put in.
        Edited = "EDITED",
        /// It was decided that it is not applied.
        Discarded = "DISCARDED",
        /// A replay was asked for.
        ReplayRequested = "REPLAY_REQUESTED",
        /// A group that had stopped was told to go on.
        Resumed = "RESUMED",
    }
}

/// Something that was done, about to be written down.
pub(crate) struct Entry<'a> {
    pub(crate) action: Action,
    pub(crate) letter: Option<Uuid>,
    pub(crate) replay: Option<Uuid>,
    pub(crate) group: Option<&'a str>,
    pub(crate) detail: Value,
}

impl Entry<'_> {
    pub(crate) fn of(action: Action, detail: Value) -> Entry<'static> {
        Entry { action, letter: None, replay: None, group: None, detail }
    }

    pub(crate) fn of_letter(action: Action, dead_letter_id: Uuid, detail: Value) -> Entry<'static> {
        Entry { letter: Some(dead_letter_id), ..Entry::of(action, detail) }
    }
}

/// Writes down what was done, in the transaction that does it.
pub(crate) async fn write(
    connection: &mut PgConnection,
    actor: &str,
    now: Timestamp,
    entries: Vec<Entry<'_>>,
) -> Result<(), sqlx::Error> {
    let actions: Vec<String> = entries.iter().map(|entry| entry.action.name().to_owned()).collect();
    let letters: Vec<Option<Uuid>> = entries.iter().map(|entry| entry.letter).collect();
    let replays: Vec<Option<Uuid>> = entries.iter().map(|entry| entry.replay).collect();
    let groups: Vec<Option<String>> = entries.iter().map(|entry| entry.group.map(str::to_owned)).collect();
    let details: Vec<Value> = entries.into_iter().map(|entry| entry.detail).collect();
    sqlx::query!(
        "INSERT INTO dead_letter_audit (at, actor, action, dead_letter_id, replay_id, group_name, detail)
         SELECT $1, $2, action, dead_letter_id, replay_id, group_name, detail
         FROM unnest($3::text[], $4::uuid[], $5::uuid[], $6::text[], $7::jsonb[])
             AS done (action, dead_letter_id, replay_id, group_name, detail)",
        now.to_sqlx() as _,
        actor,
        &actions,
        letters as _,
        replays as _,
        groups as _,
        &details,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Something that somebody has done.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterAudit)]
pub struct Audited {
    /// When.
    pub at: Timestamp,
    /// Who: `admin:<name of the key>` over HTTP, `cli:<user>@<host>` by the command.
    #[schema(example = "admin:minji")]
    pub actor: String,
    /// `EDITED`, `DISCARDED` or `REPLAY_REQUESTED`.
    #[schema(example = "EDITED")]
    pub action: String,
    /// The replay that was asked for.
    #[schema(required = true)]
    pub replay_id: Option<Uuid>,
    /// What else is known of it, like the reason of a discard.
    pub detail: Value,
}

/// What was done to a letter, oldest first: edits, discards, and replays that had selected it.
pub(crate) async fn of_letter(
    connection: &mut PgConnection,
    dead_letter_id: Uuid,
) -> Result<Vec<Audited>, sqlx::Error> {
    sqlx::query_as!(
        Audited,
        "SELECT a.at, a.actor, a.action, a.replay_id, a.detail FROM dead_letter_audit a
         WHERE a.dead_letter_id = $1
             OR a.replay_id IN (SELECT i.replay_id FROM dead_letter_replay_item i WHERE i.dead_letter_id = $1)
         ORDER BY a.audit_id",
        dead_letter_id,
    )
    .fetch_all(connection)
    .await
}
