//! `ordermill keys`: API keys of administrators; its subcommand `wire`: the keys by which records are authentic.

mod wire;

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use ordermill_pipeline::clock::Clock;
use ordermill_store::keys;

use crate::connections::ConnectionArgs;
use crate::database::connect_pool;
use crate::output::print;

/// The flags of `ordermill keys`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct KeysArgs {
    /// Reads the key from standard input instead of making one.
    #[arg(long)]
    stdin: bool,
    #[command(subcommand)]
    command: Option<KeysCommand>,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Looks at the keys by which records in Kafka are authentic, and changes them.
    #[command(subcommand)]
    Wire(wire::WireCommand),
}

/// Stores an admin's key, or does what a subcommand says.
pub(crate) async fn run(connections: &ConnectionArgs, args: KeysArgs) -> Result<()> {
    match args.command {
        None => store_admin_key(&connections.database_url()?, args.stdin).await,
        Some(KeysCommand::Wire(command)) => wire::run(connections, command).await,
    }
}

/// Stores a key, read from standard input or made here and printed.
async fn store_admin_key(database_url: &str, stdin: bool) -> Result<()> {
    let pool = connect_pool(database_url, "keys", 2).await?;
    let key = if stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("can't read the key")?;
        text.trim().to_owned()
    } else {
        ordermill_api::new_api_key()?.0
    };
    if key.len() < 16 {
        bail!("a key needs at least 16 characters; run without --stdin to have one made");
    }
    keys::insert_admin(&pool, &ordermill_api::hash_key(&key), Clock::system().now()).await?;
    if stdin { Ok(()) } else { print(&key) }
}
