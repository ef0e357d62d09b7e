//! `ordermill keys wire`: the keys by which records in Kafka are authentic.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use jiff::Timestamp;
use ordermill_pipeline::authenticity::{self, KeyId, KeyRow, KeyState, Revocation, RootSecret, Secrets};
use serde::Serialize;

use crate::connections::ConnectionArgs;
use crate::database::connect_pool;
use crate::output::{print, show, table, time};

/// What is to be done with wire keys.
#[derive(Debug, Subcommand)]
pub(super) enum WireCommand {
    /// Prints a new secret file.
    Secret,
    /// Lists the keys.
    List {
        /// Prints JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Has a new key sign; what the former one has signed stays authentic.
    Rotate,
    /// Has nothing be authentic any more that a key has signed; relays publish it again.
    Revoke {
        /// The key, as `list` shows it.
        id: KeyId,
    },
}

pub(super) async fn run(connections: &ConnectionArgs, command: WireCommand) -> Result<()> {
    if let WireCommand::Secret = command {
        return print(RootSecret::generate()?.file().trim_end());
    }
    let pool = connect_pool(&connections.database_url()?, "keys", 2).await?;
    if let WireCommand::List { json } = command {
        let keys: Vec<Shown> = authenticity::list(&pool).await?.iter().map(Shown::from).collect();
        return show(&keys, json, || listed(&keys));
    }
    let file = connections.wire_secret_file()?;
    let secrets = Secrets::read(&file)?;
    match command {
        WireCommand::Secret | WireCommand::List { .. } => Ok(()),
        WireCommand::Rotate => {
            let (made, former) = authenticity::rotate(&pool, &secrets).await?;
            print(&rotated(&made, former.as_ref()))
        }
        WireCommand::Revoke { id } => {
            let revocation = authenticity::revoke(&pool, &secrets, &id).await?;
            let noted = note_revocation(&file, &secrets, &id);
            let told = print(&revoked(&id, &revocation));
            // What is left to be done is told whether or not somebody reads the rest.
            noted.with_context(|| {
                let line = Secrets::revocation_line(&id);
                format!(
                    "the key is revoked, but {} can't be written: add the line `{}` to it, or a database that is restored \
                     from a backup will trust the key again",
                    file.display(),
                    line.trim_end()
                )
            })?;
            told?;
            print(&format!(
                "{} says so, too, which a database that is restored can't forget: give this file to all processes; they read it \
                 when they start",
                file.display()
            ))
        }
    }
}

/// Has the file say that a key is revoked.
fn note_revocation(file: &Path, secrets: &Secrets, id: &KeyId) -> Result<()> {
    if secrets.revokes(id) {
        return Ok(());
    }
    // Appended, so that the file stays whose it is and where it is, and two who revoke lose nothing.
    let ends = if fs::read_to_string(file)?.ends_with('\n') { "" } else { "\n" };
    let mut file = File::options().append(true).open(file)?;
    file.write_all(format!("{ends}{}", Secrets::revocation_line(id)).as_bytes())?;
    Ok(file.sync_all()?)
}

fn rotated(made: &KeyId, former: Option<&KeyId>) -> String {
    let former = former.map_or_else(String::new, |former| {
        format!(
            "\n{former} is retired: it signs nothing more, and what it has signed stays authentic. Once topics hold nothing that \
             is older than this change, it may be revoked; until then nothing is to be done"
        )
    });
    format!("{made} signs from now on; relays take it within a second{former}")
}

fn revoked(id: &KeyId, revocation: &Revocation) -> String {
    let Revocation { was_revoked, signs_now } = revocation;
    let is = if *was_revoked { "was revoked before" } else { "is revoked" };
    let mut text = format!(
        "{id} {is}: within a second nothing that it has signed counts any more. What of that was the relay's and is still needed is \
         published again by itself"
    );
    if let Some(made) = signs_now {
        text.push_str(&format!("\n{made} signs from now on; relays take it within a second"));
    }
    text.push_str(
        "\nwhoever knows a key may know the secret that it derives from; then a new key does not help, and the secret must be \
         changed, too: see \"A wire secret is known to others\" in docs/OPERATIONS.md",
    );
    text
}

/// A key as it is shown.
#[derive(Serialize)]
struct Shown {
    id: String,
    state: &'static str,
    /// The fingerprint of the secret that it derives from.
    secret: Option<String>,
    created_at: Timestamp,
    retired_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl From<&KeyRow> for Shown {
    fn from(row: &KeyRow) -> Shown {
        Shown {
            id: row.id.to_string(),
            state: match row.state() {
                KeyState::Signs => "SIGNS",
                KeyState::Retired => "RETIRED",
                KeyState::Revoked => "REVOKED",
            },
            secret: row.secret_fingerprint(),
            created_at: row.created_at,
            retired_at: row.retired_at,
            revoked_at: row.revoked_at,
        }
    }
}

fn listed(keys: &[Shown]) -> String {
    table(
        keys,
        &[
            ("key", |key| key.id.clone()),
            ("state", |key| key.state.to_owned()),
            ("secret", |key| key.secret.clone().unwrap_or_default()),
            ("made", |key| time(Some(key.created_at))),
            ("retired", |key| time(key.retired_at)),
            ("revoked", |key| time(key.revoked_at)),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_a_line_of_the_file_once_whatever_it_ended_with() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("wire.secret");
        let id: KeyId = "1-2-0123456789abcdef".parse().unwrap();
        fs::write(&file, RootSecret::generate().unwrap().file().trim_end()).unwrap();
        for _ in 0..2 {
            note_revocation(&file, &Secrets::read(&file).unwrap(), &id).unwrap();
        }
        assert!(Secrets::read(&file).unwrap().revokes(&id));
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.matches("revoked").count(), 1, "{text}");
    }
}
