//! `ordermill keys`: API keys of administrators.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use ordermill_pipeline::clock::Clock;
use ordermill_store::keys;

use crate::database::connect_pool;

/// The flags of `ordermill keys`.
#[derive(Args, Debug)]
pub(crate) struct KeysArgs {
    /// Reads the key from standard input instead of making one.
    #[arg(long)]
    stdin: bool,
}

/// Stores a key, and prints it where it was made here.
#[expect(clippy::print_stdout, reason = "the key is what the command is called for")]
pub(crate) async fn run(database_url: &str, args: &KeysArgs) -> Result<()> {
    let pool = connect_pool(database_url, "keys", 2).await?;
    let key = if args.stdin {
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
    if !args.stdin {
        println!("{key}");
    }
    Ok(())
}
