//! `ordermill relay adopt`.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use ordermill_pipeline::kafka::admission;
use ordermill_pipeline::relay::{Adoption, Reason};

use crate::connections::Connections;
use crate::database::connect_pool;
use crate::output::{note, print};

/// The flags of `ordermill relay adopt`.
#[derive(Args, Debug)]
pub(super) struct AdoptArgs {
    /// Deletes the topics under the prefix, with all they hold, and makes them anew.
    #[arg(long)]
    recreate_topics: bool,
    /// Begins a new era although nothing is wrong.
    #[arg(long)]
    force: bool,
    /// The number of the new era, where consumers outside have seen higher ones than database and Kafka know.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(2..))]
    era: Option<i32>,
    /// Only prints what would be done.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(connections: &Connections, args: AdoptArgs) -> Result<()> {
    let pool = connect_pool(&connections.database_url, "relay-adopt", 2).await?;
    let kafka = &connections.kafka;
    admission::admitted(kafka).await?;
    let groups = ordermill_workers::groups();
    let adoption = Adoption::look(&pool, kafka, &groups, args.era).await?;
    print(&describe(&adoption, args.recreate_topics, &kafka.prefix))?;
    if args.dry_run {
        return Ok(());
    }
    note("looking for some seconds whether a relay or a worker is at work ...");
    adoption.carry_out(&pool, kafka, args.recreate_topics, args.force).await?;
    print(&format!(
        "era {} has begun: start relays and workers; then see what the gateway holds for orders that are lost, \
         before customers are let in again: `ordermill payments reconcile`",
        adoption.era
    ))
}

fn describe(adoption: &Adoption, recreate_topics: bool, prefix: &str) -> String {
    let Adoption { former_era, era, log_end, after, .. } = adoption;
    let mut text = match &adoption.reason {
        None => "nothing is wrong: the log is this cluster's and Kafka is not ahead of it".to_owned(),
        Some(Reason::Unfinished) => format!("the adoption that began era {era} was not finished"),
        Some(Reason::OtherDatabase) => "the log began in another database cluster".to_owned(),
        Some(Reason::KafkaAhead { topic, found }) => {
            format!("Kafka's topic {topic} holds {found}, an event that the log does not have")
        }
    };
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "\nera {former_era} ends and era {era} begins\nthe log ends at {log_end}: whatever era {former_era} has above \
         that is lost\npublished from position {} on: what lies before, every group has applied",
        after + 1
    );
    if recreate_topics {
        text.push_str("\nthese topics are deleted and made anew:");
        for (topic, records) in &adoption.topics {
            let _ = write!(text, "\n  {prefix}{topic}: {records} records");
        }
    }
    text
}
