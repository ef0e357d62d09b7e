//! What people do to dead letters besides replaying them: edit and discard. Each is audited.

pub mod audit;

use jiff::Timestamp;
use serde_json::json;
use sqlx::PgPool;
use thiserror::Error;
use uuid::Uuid;

use super::State;
use super::working::{Key, Work};

/// How large a payload may be that is put into a letter: larger than any message that Kafka takes from the relay.
pub const PAYLOAD_MAX: usize = 8 * 1024 * 1024;

/// Why a letter stays as it is.
#[derive(Debug, Error)]
pub enum EditError {
    /// There is no such letter.
    #[error("there is no dead letter {0}")]
    NotFound(Uuid),
    /// It is too late, or a replay is about to apply it.
    #[error("dead letter {dead_letter_id} is {}, and {allowed} only", state.name())]
    State {
        /// The letter.
        dead_letter_id: Uuid,
        /// Its state.
        state: State,
        /// What is possible, and when.
        allowed: &'static str,
    },
    /// The payload is too large to be one.
    #[error("a payload has at most {PAYLOAD_MAX} bytes, this has {0}")]
    TooLarge(usize),
    /// Messages wait behind it, and nobody has said what becomes of them.
    #[error(
        "dead letter {dead_letter_id} has {waiting} waiting behind it: say whether they are released or discarded"
    )]
    SomethingWaits {
        /// The letter.
        dead_letter_id: Uuid,
        /// How many wait behind it.
        waiting: u64,
    },
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

/// Puts another payload into a letter, for its next replay. The payload as it came is kept.
///
/// # Errors
/// [`EditError`] where there is no such letter, it is neither parked nor waiting, or the payload is too large.
pub async fn edit(
    pool: &PgPool,
    dead_letter_id: Uuid,
    payload: &[u8],
    actor: &str,
    now: Timestamp,
) -> Result<(), EditError> {
    if payload.len() > PAYLOAD_MAX {
        return Err(EditError::TooLarge(payload.len()));
    }
    let allowed = "what is PARKED or WAITING can be edited";
    let (Work { mut transaction, .. }, _) = lock(pool, dead_letter_id, allowed, now).await?;
    let before = sqlx::query_scalar!(
        r#"WITH before AS (SELECT octet_length(payload) AS bytes FROM dead_letter WHERE dead_letter_id = $1)
           UPDATE dead_letter SET payload = $2, edited = true,
               original_payload = CASE WHEN edited THEN original_payload ELSE payload END
           WHERE dead_letter_id = $1 RETURNING (SELECT bytes FROM before)"#,
        dead_letter_id,
        payload,
    )
    .fetch_one(&mut *transaction)
    .await?;
    let detail = json!({"bytes_before": before, "bytes_after": payload.len()});
    let entry = audit::Entry::of_letter(audit::Action::Edited, dead_letter_id, detail);
    audit::write(&mut transaction, actor, now, vec![entry]).await?;
    transaction.commit().await?;
    Ok(())
}

/// What becomes of the messages that wait behind a letter that is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// They are applied, in order.
    Released,
    /// They are discarded, too.
    Discarded,
}

/// Decides that a letter is never applied. Answers how many messages waited behind it. Where `waiting` is `None`, a letter
/// that messages wait behind stays as it is.
///
/// # Errors
/// [`EditError`] where there is no such letter, it is neither parked nor waiting, or messages wait behind it and nothing
/// is said of them.
pub async fn discard(
    pool: &PgPool,
    dead_letter_id: Uuid,
    reason: &str,
    waiting: Option<Waiting>,
    actor: &str,
    now: Timestamp,
) -> Result<u64, EditError> {
    let allowed = "what is PARKED or WAITING can be discarded";
    let (mut work, key) = lock(pool, dead_letter_id, allowed, now).await?;
    let waited = match key {
        Some(key) => work.waiting_ids(&key, i64::MAX).await?,
        None => Vec::new(),
    };
    let waiting = match waiting {
        Some(waiting) => waiting,
        None if waited.is_empty() => Waiting::Released,
        None => return Err(EditError::SomethingWaits { dead_letter_id, waiting: waited.len() as u64 }),
    };
    let released = waiting == Waiting::Released;
    let detail = json!({"reason": reason, "release_waiting": released, "waiting": waited.len()});
    let mut entries = vec![audit::Entry::of_letter(audit::Action::Discarded, dead_letter_id, detail)];
    let mut discarded = vec![dead_letter_id];
    if !released {
        let detail = json!({"reason": reason, "with": dead_letter_id});
        let with = |id: &Uuid| audit::Entry::of_letter(audit::Action::Discarded, *id, detail.clone());
        entries.extend(waited.iter().map(with));
        discarded.extend(&waited);
    }
    sqlx::query!("UPDATE dead_letter SET state = 'DISCARDED' WHERE dead_letter_id = ANY($1)", &discarded)
        .execute(&mut *work.transaction)
        .await?;
    // Where anything waits, a worker of the group applies it; until then later messages go on waiting behind it.
    work.release(&[dead_letter_id]).await?;
    audit::write(&mut work.transaction, actor, now, entries).await?;
    work.transaction.commit().await?;
    Ok(waited.len() as u64)
}

/// Begins to work at a letter: locks its key and then the letter, as everybody does. Answers the key, too, where it is
/// parked because of this letter.
async fn lock(
    pool: &PgPool,
    dead_letter_id: Uuid,
    allowed: &'static str,
    now: Timestamp,
) -> Result<(Work, Option<Key>), EditError> {
    // None of this ever changes.
    let letter = sqlx::query!(
        r#"SELECT group_name, topic, coalesce(record_key, '') AS "key!" FROM dead_letter WHERE dead_letter_id = $1"#,
        dead_letter_id,
    )
    .fetch_optional(pool)
    .await?
    .ok_or(EditError::NotFound(dead_letter_id))?;
    let mut work = Work::begin(pool, &letter.group_name, now).await?;
    let locked = work.lock(&[dead_letter_id]).await?.pop().ok_or(EditError::NotFound(dead_letter_id))?;
    let state = locked.state;
    if !matches!(state, State::Parked | State::Waiting) {
        return Err(EditError::State { dead_letter_id, state, allowed });
    }
    let is_head = locked.waits_for == Some(dead_letter_id);
    Ok((work, is_head.then_some(Key { topic: letter.topic, record_key: letter.key })))
}
