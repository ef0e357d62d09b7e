//! `ordermill relay rewind`.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use ordermill_pipeline::relay::{Rewind, RewindPlan};
use ordermill_pipeline::topics;
use sqlx::PgPool;

use crate::database::connect_pool;
use crate::output::print;
use crate::progress::Bar;

/// How often the relay is looked at while it publishes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The flags of `ordermill relay rewind`.
#[derive(Args, Debug)]
#[group(id = "what", required = true, multiple = true, args = ["to", "all", "topics"])]
pub(super) struct RewindArgs {
    /// Goes back to this position of the log: everything above it is published again.
    #[arg(long, value_name = "POSITION", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(0..))]
    to: Option<i64>,
    /// Goes back to the log's beginning.
    #[arg(long, conflicts_with = "to")]
    all: bool,
    /// Publishes records of this topic alone, named without prefix; from the log's beginning unless --to says otherwise.
    /// May be repeated.
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only prints what would be published again.
    #[arg(long)]
    dry_run: bool,
    /// Does not wait until it is published.
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(database_url: &str, args: RewindArgs) -> Result<()> {
    let pool = connect_pool(database_url, "relay-rewind", 2).await?;
    let rewind = Rewind { after: args.to.unwrap_or(0), topics: args.topics };
    let plan = rewind.plan(&pool, &topics::names(&ordermill_workers::groups())).await?;
    print(&describe(&rewind, &plan, args.dry_run))?;
    if args.dry_run || plan.records == 0 {
        return Ok(());
    }
    rewind.request(&pool).await?;
    if !plan.is_led {
        return print("no relay leads now: it is done once one does (`ordermill relay`)");
    }
    if !args.no_wait {
        wait(&pool, &rewind, &plan).await?;
        print(&format!("done: the relay is past position {} again", plan.position))?;
    }
    Ok(())
}

fn describe(rewind: &Rewind, plan: &RewindPlan, is_dry: bool) -> String {
    let RewindPlan { position, records, .. } = plan;
    let of = match rewind.topics.as_slice() {
        [] => String::new(),
        topics => format!(" of {}", topics.join(", ")),
    };
    if *records == 0 {
        return format!("nothing{of} was published above position {}", rewind.after);
    }
    let verb = if is_dry { "would publish" } else { "publishes" };
    format!("{verb} positions {} to {position} again: {records} records{of}", rewind.after + 1)
}

/// Waits until the relay is where it was, and shows how far it is where standard error is a terminal.
async fn wait(pool: &PgPool, rewind: &Rewind, plan: &RewindPlan) -> Result<()> {
    let length = u64::try_from(plan.position - rewind.after)?;
    let mut bar = Bar::new("{wide_bar} {pos}/{len} positions, {eta} left {msg}", Duration::MAX);
    loop {
        let progress = rewind.progress(pool).await?;
        if !progress.is_pending && progress.position >= plan.position {
            return Ok(());
        }
        // Before the relay has gone back, it is still at the end.
        let done = if progress.is_pending { 0 } else { progress.position - rewind.after };
        let message = if progress.is_led { "" } else { "(no relay leads; waiting for one)" };
        bar.at(u64::try_from(done).unwrap_or(0), length, message, String::new);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_again_is_told_before() {
        let rewind = Rewind { after: 10, topics: vec!["orders".to_owned()] };
        let plan = RewindPlan { position: 50, records: 7, is_led: true };
        let text = describe(&rewind, &plan, true);
        assert_eq!(text, "would publish positions 11 to 50 again: 7 records of orders");
        let none = RewindPlan { records: 0, ..plan };
        assert_eq!(describe(&rewind, &none, false), "nothing of orders was published above position 10");
    }
}
