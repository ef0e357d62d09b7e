//! Notes: what people have said in words of their own about what belongs to a user, like why an order is cancelled.
//!
//! Architecture Invariant: such words stand here and nowhere else. Log, documents, Kafka and kept answers do not have them, so they are gone when
//! the user is erased.

use ordermill_pipeline::journal::{Projection, Statement};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// What a note says; the word for it is the member that shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// Why an order is cancelled, or a user's coupon taken away.
    Reason,
    /// The number that a carrier has for a shipment.
    TrackingNumber,
}

impl NoteKind {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            NoteKind::Reason => "reason",
            NoteKind::TrackingNumber => "tracking_number",
        }
    }
}

/// A note, to be written with the event that it belongs to. Of a user who has been erased nothing is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The order, the user's coupon or the shipment.
    pub about: Uuid,
    /// What it says.
    pub kind: NoteKind,
    /// To whom that belongs.
    pub user_id: Uuid,
    /// As it was said.
    pub words: String,
}

impl Projection for Note {
    fn add(&self, statement: &mut Statement) {
        let Note { about, kind, user_id, words } = self.clone();
        let (about, kind) = (statement.bind(about), statement.bind(kind.word()));
        let (user_id, words) = (statement.bind(user_id), statement.bind(words));
        // Whoever erases the user holds the row first. Who waits for that here finds that the user is erased.
        statement.part(
            "noted",
            format!(
                "INSERT INTO notes (about, kind, user_id, words)
                 SELECT {about}, {kind}, user_id, {words} FROM users
                 WHERE user_id = {user_id} AND erased_at IS NULL FOR SHARE"
            ),
        );
    }
}

/// A note as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteRow {
    /// The word for what it says.
    pub kind: String,
    /// As it was said.
    pub words: String,
}

/// The words of that kind about something; `None` where nobody has said any, or the user was erased.
///
/// # Errors
/// Where the database fails.
pub async fn find(pool: &PgPool, about: Uuid, kind: NoteKind) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!("SELECT words FROM notes WHERE about = $1 AND kind = $2", about, kind.word())
        .fetch_optional(pool)
        .await
}

/// Erases what was said about what belongs to a user.
pub(crate) async fn erase_of(connection: &mut PgConnection, user_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM notes WHERE user_id = $1", user_id).execute(connection).await?;
    Ok(())
}
