//! `ordermill keys`: API keys of administrators.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use ordermill_pipeline::clock::Clock;
use ordermill_store::keys;

use crate::database::connect_pool;
use crate::output::print;

/// Stores a key, read from standard input or made here and printed.
pub(crate) async fn run(database_url: &str, stdin: bool) -> Result<()> {
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
