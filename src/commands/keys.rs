//! `ordermill keys`: API keys of administrators and customers; its subcommand `wire`: the keys by which records are authentic.

mod wire;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use ordermill_pipeline::clock::Clock;
use ordermill_store::keys::{self, KeyName, KeyRef, KeyRow, KeyState, KeysError, NewKey, Rotated};
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use crate::connections::ConnectionArgs;
use crate::database::{connect_pool, explain};
use crate::output::{note, print, show, table, time};

/// The flags of `ordermill keys`.
#[derive(Args, Debug)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Lists the keys of administrators, or of one customer; never a key itself.
    List {
        /// The customer whose keys are listed.
        #[arg(long, value_name = "USER_ID")]
        user: Option<Uuid>,
        /// Prints JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Makes a key and prints it, this once.
    Create(CreateArgs),
    /// Makes a key in the place of another, with its name, and prints it, this once.
    Rotate(RotateArgs),
    /// Has a key be good no more.
    Revoke {
        /// The name of an administrator's key, or the id of any key.
        #[arg(value_name = "NAME-OR-ID")]
        key: KeyRef,
    },
    /// Looks at the keys by which records in Kafka are authentic, and changes them.
    #[command(subcommand)]
    Wire(wire::WireCommand),
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// What the key is called, and an administrator who has it: letters, digits, `.`, `_` and `-`.
    #[arg(long)]
    name: KeyName,
    /// How long the key is good, like 90d or 12h; for good where nothing is said.
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    expires_in: Option<SignedDuration>,
    /// The customer whose key it is; an administrator's where nothing is said.
    #[arg(long, value_name = "USER_ID")]
    user: Option<Uuid>,
}

#[derive(Args, Debug)]
struct RotateArgs {
    /// The name of an administrator's key, or the id of any key.
    #[arg(value_name = "NAME-OR-ID")]
    key: KeyRef,
    /// How long the former key is good beside the new one, like 1h or 7d.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    grace: SignedDuration,
}

/// A time from 0 on. A day has 24 hours.
fn duration(text: &str) -> Result<SignedDuration> {
    const WANTED: &str = "give a time like 30m, 12h or 90d";
    let span: Span = text.parse().context(WANTED)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).context(WANTED)?;
    if duration.is_negative() {
        bail!(WANTED);
    }
    Ok(duration)
}

/// A time above 0.
fn lifetime(text: &str) -> Result<SignedDuration> {
    let lifetime = duration(text)?;
    if lifetime.is_zero() {
        bail!("a key that is good for no time is of no use");
    }
    Ok(lifetime)
}

/// Does what a subcommand says.
pub(crate) async fn run(connections: &ConnectionArgs, args: KeysArgs) -> Result<()> {
    match args.command {
        KeysCommand::List { user, json } => list(&open(connections).await?, user, json).await,
        KeysCommand::Create(args) => create(&open(connections).await?, &args).await,
        KeysCommand::Rotate(args) => rotate(&open(connections).await?, &args).await,
        KeysCommand::Revoke { key } => revoke(&open(connections).await?, &key).await,
        KeysCommand::Wire(command) => wire::run(connections, command).await,
    }
}

async fn open(connections: &ConnectionArgs) -> Result<PgPool> {
    connect_pool(&connections.database_url()?, "keys", 2).await
}

fn now() -> Timestamp {
    Clock::system().now()
}

fn after(now: Timestamp, duration: SignedDuration) -> Result<Timestamp> {
    now.checked_add(duration).context("no calendar goes that far: give a shorter time")
}

/// Why keys are as they were, in words for this command.
fn refused(error: KeysError) -> anyhow::Error {
    match error {
        KeysError::Database(error) => explain(error),
        refused => anyhow::Error::new(refused),
    }
}

async fn list(pool: &PgPool, user_id: Option<Uuid>, json: bool) -> Result<()> {
    let now = now();
    let keys = keys::list(pool, user_id).await.map_err(explain)?;
    let keys: Vec<Shown> = keys.iter().map(|key| Shown::of(key, now)).collect();
    show(&keys, json, || listed(&keys))
}

async fn create(pool: &PgPool, args: &CreateArgs) -> Result<()> {
    let now = now();
    let expires_at = args.expires_in.map(|lasts| after(now, lasts)).transpose()?;
    let new = NewKey { name: args.name, user_id: args.user, expires_at };
    let (key, key_hash) = ordermill_api::new_api_key()?;
    let key_id = keys::create(pool, &key_hash, &new, now).await.map_err(refused)?;
    print(&key)?;
    note(&format!("{}; the key is shown this once", made(key_id, args.name, expires_at)));
    Ok(())
}

async fn rotate(pool: &PgPool, args: &RotateArgs) -> Result<()> {
    let now = now();
    let former_until = after(now, args.grace)?;
    let (key, key_hash) = ordermill_api::new_api_key()?;
    let rotated = keys::rotate(pool, &args.key, &key_hash, former_until, now).await.map_err(refused)?;
    let Rotated { key_id, former_id, name, expires_at } = rotated;
    let former = if args.grace.is_zero() {
        "is refused within 3 seconds".to_owned()
    } else {
        format!("is good until {} at most", time(Some(former_until)))
    };
    print(&key)?;
    note(&format!(
        "{}; the key is shown this once. The former one, {former_id}, {former}",
        made(key_id, name, expires_at)
    ));
    Ok(())
}

fn made(key_id: Uuid, name: KeyName, expires_at: Option<Timestamp>) -> String {
    let until = expires_at.map_or_else(String::new, |at| format!(" until {}", time(Some(at))));
    format!("{name}'s key {key_id} is good{until}")
}

async fn revoke(pool: &PgPool, key: &KeyRef) -> Result<()> {
    for key_id in keys::revoke(pool, key, now()).await.map_err(refused)? {
        print(&format!("{key_id} is revoked, and refused within 3 seconds"))?;
    }
    Ok(())
}

/// A key as it is shown.
#[derive(Serialize)]
struct Shown {
    id: Uuid,
    name: String,
    scope: &'static str,
    user_id: Option<Uuid>,
    state: &'static str,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    replaced_until: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    /// The first digits of the key's hash, as the API logs them.
    key_hash: String,
}

impl Shown {
    fn of(key: &KeyRow, now: Timestamp) -> Shown {
        Shown {
            id: key.key_id,
            name: key.name.to_string(),
            scope: if key.user_id.is_some() { "customer" } else { "admin" },
            user_id: key.user_id,
            state: match key.state(now) {
                KeyState::Valid => "VALID",
                KeyState::Replaced => "REPLACED",
                KeyState::Expired => "EXPIRED",
                KeyState::Revoked => "REVOKED",
            },
            created_at: key.created_at,
            expires_at: key.expires_at,
            replaced_until: key.replaced_until,
            revoked_at: key.revoked_at,
            key_hash: key.mark.clone(),
        }
    }
}

fn listed(keys: &[Shown]) -> String {
    table(
        keys,
        &[
            ("name", |key| key.name.clone()),
            ("key", |key| key.id.to_string()),
            ("scope", |key| key.scope.to_owned()),
            ("state", |key| key.state.to_owned()),
            ("made", |key| time(Some(key.created_at))),
            ("expires", |key| time(key.expires_at)),
            ("good until", |key| time(key.replaced_until)),
            ("revoked", |key| time(key.revoked_at)),
            ("hash", |key| key.key_hash.clone()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_one_of_hours_days_or_weeks() {
        for (text, hours) in
            [("0s", 0), ("12h", 12), ("90d", 90 * 24), ("1d 12h", 36), ("2w", 2 * 7 * 24), ("P1D", 24)]
        {
            assert_eq!(duration(text).unwrap(), SignedDuration::from_hours(hours), "{text}");
        }
        for wrong in ["", "7", "soon", "-1h", "1 month", "1y"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(lifetime("0s").is_err() && lifetime("1s").is_ok());
    }

    #[test]
    fn a_time_beyond_every_calendar_is_refused() {
        assert!(after(Timestamp::MAX, SignedDuration::from_secs(1)).is_err());
    }
}
