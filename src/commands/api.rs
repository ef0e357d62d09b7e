//! `ordermill api`: the HTTP front in a process of its own.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use ordermill_store::keys;

use crate::arguments::TimeZoneArgs;
use crate::connections::Connections;
use crate::services::{self, listen};

/// The flags of `ordermill api`.
#[derive(Args, Debug)]
pub(crate) struct ApiArgs {
    /// Where to listen.
    #[arg(long, env = "ORDERMILL_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// An admin's API key that is stored at the start.
    #[arg(long, env = "ORDERMILL_ADMIN_KEY", hide_env_values = true)]
    admin_key: Option<String>,
    /// What the gateway signs its callbacks with.
    #[arg(long, env = "ORDERMILL_CALLBACK_SECRET", hide_env_values = true)]
    callback_secret: Option<String>,
    #[command(flatten)]
    zone: TimeZoneArgs,
}

/// Serves the API until Ctrl-C or SIGTERM.
pub(crate) async fn run(connections: &Connections, args: ApiArgs) -> Result<()> {
    let listener = listen(args.listen).await?;
    let services = services::connect(connections, None).await?;
    if let Some(key) = &args.admin_key {
        keys::insert_admin(
            &services.runtime.journal.pool,
            &ordermill_api::hash_key(key),
            services.runtime.journal.now(),
        )
        .await?;
    }
    services.run_api(listener, args.callback_secret.as_deref(), args.zone.time_zone).await
}
