//! The flags of `ordermill-bench load`.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use uuid::Uuid;

/// How many lines the API takes in one order.
pub const LINES_MAX: usize = 50;

/// Of so many orders one is held until it rests.
pub(crate) const HELD_EVERY: usize = 10;

/// What is to be placed, and where.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Where the API listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: String,
    /// The file that says who orders what: {"users": [{"user_id", "api_key"}], "products": ["id"]}.
    #[arg(long, value_name = "FILE")]
    pub shop: PathBuf,
    /// How many orders, or claims.
    #[arg(long)]
    pub orders: usize,
    /// How many connections; the orders that are held until they rest have further ones.
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    pub connections: usize,
    /// Chooses who orders what.
    #[arg(long)]
    pub seed: u64,
    /// Stands before the number of every order in its idempotency key.
    #[arg(long)]
    pub label: String,
    /// Sends nothing any more after this many seconds.
    #[arg(long)]
    pub within_s: u64,
    /// Sends so many orders a second, answered or not: the open loop. Without it, the closed one.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Lines of every order; by default one, and two in every fifth order.
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=LINES_MAX as u64))]
    pub lines: Option<usize>,
    /// Of so many orders one is held by the API until it rests; 0 for none.
    #[arg(long, default_value_t = HELD_EVERY)]
    pub held_every: usize,
    /// Claims this coupon in place of orders, each user once, in the order of the file.
    #[arg(long, value_name = "COUPON")]
    pub claim: Option<Uuid>,
}

impl LoadArgs {
    /// The address, its name looked up.
    ///
    /// # Errors
    /// Where it is not of the form HOST:PORT, or the name is not known.
    pub fn address(&self) -> Result<SocketAddr> {
        let found = self.address.to_socket_addrs();
        let mut found = found.with_context(|| format!("--address {} is no HOST:PORT", self.address))?;
        found.next().with_context(|| format!("{} has no address", self.address))
    }
}
