//! `ordermill topics access`: what Kafka's users may do.

use anyhow::Result;
use clap::Args;
use ordermill_pipeline::kafka::access::{Right, Role};
use ordermill_pipeline::kafka::{KafkaConfig, administration, admission};

use crate::output::print;

/// The flags of `ordermill topics access`. Each may be repeated.
#[derive(Args, Debug)]
#[group(id = "users", required = true, multiple = true, args = ["operator", "relay", "worker", "api", "reader"])]
pub(super) struct AccessArgs {
    /// A user who makes topics, and deletes them for a new era.
    #[arg(long, value_name = "USER")]
    operator: Vec<String>,
    /// The user of relays. It alone writes.
    #[arg(long, value_name = "USER")]
    relay: Vec<String>,
    /// The user of workers.
    #[arg(long, value_name = "USER")]
    worker: Vec<String>,
    /// The user of the API, and of `verify`.
    #[arg(long, value_name = "USER")]
    api: Vec<String>,
    /// A user outside, who reads along, in groups whose names begin with `reader`.
    #[arg(long, value_name = "USER")]
    reader: Vec<String>,
    /// Only prints what would be allowed.
    #[arg(long)]
    dry_run: bool,
}

impl AccessArgs {
    /// The users that were named, each with its role.
    fn users(&self) -> impl Iterator<Item = (Role, &str)> {
        let users = [
            (Role::Operator, &self.operator),
            (Role::Relay, &self.relay),
            (Role::Worker, &self.worker),
            (Role::Api, &self.api),
            (Role::Reader, &self.reader),
        ];
        users.into_iter().flat_map(|(role, users)| users.iter().map(move |user| (role, user.as_str())))
    }
}

/// Allows the users what their roles need, and prints it.
pub(super) async fn run(kafka: &KafkaConfig, args: &AccessArgs) -> Result<()> {
    let groups = ordermill_workers::groups();
    let rights: Vec<Right> =
        args.users().flat_map(|(role, user)| role.rights(user, kafka, &groups)).collect();
    if !args.dry_run {
        admission::admitted(kafka).await?;
        administration::allow(kafka, &rights).await?;
    }
    print(&rights.iter().map(Right::to_string).collect::<Vec<_>>().join("\n"))
}
