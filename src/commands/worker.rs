//! `ordermill worker`: workers in a process of their own.

use anyhow::{Context as _, Result};
use clap::Args;
use ordermill_workers::Worker;

use crate::arguments::{FloodArgs, ServiceArgs};
use crate::connections::Connections;
use crate::pools::Parts;
use crate::services;

/// The flags of `ordermill worker`.
#[derive(Args, Debug)]
pub(crate) struct WorkerArgs {
    /// The workers: orders, stock, payments, coupons, sales, timers. All if none is named.
    #[arg(value_parser = worker)]
    names: Vec<Worker>,
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten)]
    flood: FloodArgs,
}

fn worker(name: &str) -> Result<Worker> {
    let known = Worker::ALL.iter().map(|worker| worker.name()).collect::<Vec<_>>().join(", ");
    Worker::from_name(name).with_context(|| format!("there is no worker {name:?}; there are {known}"))
}

/// Runs workers until Ctrl-C or SIGTERM.
pub(crate) async fn run(connections: &Connections, args: WorkerArgs) -> Result<()> {
    let gateway = connections.gateway()?;
    let mut services = services::connect(Parts::Workers, connections, args.service.metrics_listen).await?;
    services.flood_limit = args.flood.limit();
    let workers = if args.names.is_empty() { Worker::ALL.to_vec() } else { args.names };
    services.may_run(workers.iter().map(|worker| worker.role())).await?;
    services.run_workers(&workers, &gateway).await
}
