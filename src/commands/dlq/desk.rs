//! What the subcommands work with.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use nix::unistd::{Uid, User};
use ordermill_api::dead_letters::WholeLetterView;
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::dead_letters::letters::{self, WholeLetter};
use ordermill_schemas::Event;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use crate::database::explain;
use crate::output::{self, Column, print, table};

/// The database, the time, and what is to be printed.
pub(super) struct Desk {
    pub(super) pool: PgPool,
    /// What stands before every topic in Kafka.
    pub(super) prefix: String,
    pub(super) clock: Clock,
    pub(super) json: bool,
}

impl Desk {
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A letter with everything.
    pub(super) async fn letter(&self, id: Uuid) -> Result<WholeLetter> {
        let letter = letters::get::<Event>(&self.pool, id).await.map_err(explain)?;
        letter.with_context(|| format!("there is no dead letter {id}: see `ordermill dlq list`"))
    }

    /// Prints what was found, as JSON or as text.
    pub(super) fn show(&self, found: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        output::show(found, self.json, text)
    }

    /// Prints a list, as JSON or as a table; where it is empty, `none`.
    pub(super) fn list<T>(
        &self,
        found: &impl Serialize,
        items: &[T],
        none: &str,
        columns: &[Column<T>],
    ) -> Result<()> {
        self.show(found, || if items.is_empty() { none.to_owned() } else { table(items, columns) })
    }

    /// Tells what was done to a letter: as JSON by the letter as it is now.
    pub(super) async fn changed(&self, id: Uuid, text: &str) -> Result<()> {
        if self.json {
            let letter = WholeLetterView::from(self.letter(id).await?);
            return self.show(&letter, String::new);
        }
        print(text)
    }
}

/// Who runs the command, for the audit: `cli:<user>@<host>`, the user as the operating system knows it, not as a variable
/// says.
pub(super) fn actor() -> String {
    let uid = Uid::current();
    let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("cli:{user}@{}", host.trim())
}
