//! `ordermill api`: the HTTP front in a process of its own.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use clap::Args;
use ordermill_store::database_roles::DatabaseRole;
use ordermill_store::keys::{self, KeysError};

use crate::arguments::{RateLimitArgs, ServiceArgs, TimeZoneArgs};
use crate::connections::Connections;
use crate::pools::Parts;
use crate::services::{self, listen};

/// The name of the administrator whose key is given at the start.
const ADMIN: &str = "environment";

/// The flags of `ordermill api`.
#[derive(Args, Debug)]
pub(crate) struct ApiArgs {
    /// Where to listen.
    #[arg(long, env = "ORDERMILL_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The API key of the administrator `environment`, 32 characters at least; a former one is revoked at the start.
    #[arg(long, env = "ORDERMILL_ADMIN_KEY", hide_env_values = true)]
    admin_key: Option<String>,
    /// What the gateway signs its callbacks with.
    #[arg(long, env = "ORDERMILL_CALLBACK_SECRET", hide_env_values = true)]
    callback_secret: Option<String>,
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten)]
    zone: TimeZoneArgs,
    #[command(flatten)]
    rate_limits: RateLimitArgs,
}

/// Serves the API until Ctrl-C or SIGTERM.
pub(crate) async fn run(connections: &Connections, args: ApiArgs) -> Result<()> {
    const UNUSABLE: &str = "ORDERMILL_ADMIN_KEY (--admin-key) can't be used";
    let key_hash = args.admin_key.as_deref().map(ordermill_api::hash_chosen_key).transpose();
    let key_hash = key_hash.context(UNUSABLE)?;
    if args.callback_secret.as_deref().unwrap_or_default().is_empty() {
        // Whoever can't serve must not revoke anybody's key.
        return Err(ordermill_api::ApiError::NoCallbackSecret.into());
    }
    let listener = listen(args.listen).await?;
    let mut services = services::connect(Parts::Api, connections, args.service.metrics_listen).await?;
    services.may_run([DatabaseRole::Api]).await?;
    services.rate_limits = args.rate_limits.config();
    if let Some(key_hash) = key_hash {
        let journal = &services.runtime.journal;
        match keys::establish(&journal.pool, ADMIN, &key_hash, journal.now()).await {
            Ok(0) => {}
            Ok(_) => tracing::warn!("ORDERMILL_ADMIN_KEY has changed; the former key is revoked"),
            // It lets nobody in. Customers are served all the same.
            Err(error @ (KeysError::Over | KeysError::OfAnother)) => tracing::error!(%error, "{UNUSABLE}"),
            Err(error) => return Err(error).context(UNUSABLE),
        }
    }
    services.run_api(listener, args.callback_secret.as_deref(), args.zone.time_zone).await
}
