//! `ordermill order ID`: the whole story of one order, as a table or as JSON.
//!
//! It only reads the database, and tells an operator what the API tells an administrator. With `--follow` it goes on
//! until the order has come to its end.

mod head;
mod story;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use ordermill_api::{OrderView, Reader, Timeline};
use ordermill_pipeline::clock::Clock;
use ordermill_store::timeline;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use crate::database::{connect_pool, explain};
use crate::one_line::one_line;

use head::Head;
use story::Story;

/// What the process answers where there is no such order.
const NO_SUCH_ORDER: u8 = 1;
/// What it answers where it could not look.
const NOT_LOOKED: u8 = 2;
/// How often a followed order is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The statuses after which nothing happens to an order.
const FINAL_STATUSES: [&str; 3] = ["REJECTED", "CANCELLED", "DELIVERED"];

/// The flags of `ordermill order`.
#[derive(Args, Clone, Debug)]
pub(crate) struct OrderArgs {
    /// The order.
    order_id: Uuid,
    /// Prints JSON instead of a table: the order and its timeline as the API shows them to an administrator.
    #[arg(long)]
    json: bool,
    /// Goes on printing what happens until the order is REJECTED, CANCELLED or DELIVERED.
    #[arg(long, conflicts_with = "json")]
    follow: bool,
}

/// An order and all that happened to it.
#[derive(Debug, Serialize)]
struct Told {
    order: OrderView,
    #[serde(flatten)]
    timeline: Timeline,
}

/// Prints an order's story. Answers 0, 1 where there is no such order, 2 where the database does not answer; then
/// with one line on standard error.
///
/// # Errors
/// Where standard output can't be written.
pub(crate) async fn run(args: &OrderArgs, database_url: Result<String>) -> Result<ExitCode> {
    let told = async {
        let pool = connect_pool(&database_url?, "order", 1).await?;
        Ok(look(&pool, args.order_id).await?.map(|told| (pool, told)))
    };
    match told.await {
        Ok(Some((pool, told))) => print(args, &pool, told).await,
        Ok(None) => {
            writeln!(std::io::stderr(), "ordermill: there is no order {}", args.order_id)?;
            Ok(ExitCode::from(NO_SUCH_ORDER))
        }
        Err(error) => not_looked(&error),
    }
}

fn not_looked(error: &anyhow::Error) -> Result<ExitCode> {
    writeln!(std::io::stderr(), "ordermill: the order could not be read: {}", one_line(error))?;
    Ok(ExitCode::from(NOT_LOOKED))
}

/// The order first: what is seen of it has its events in the log by then.
async fn look(pool: &PgPool, order_id: Uuid) -> Result<Option<Told>> {
    let Some(row) = ordermill_store::find(pool, order_id).await.map_err(explain)? else { return Ok(None) };
    let rows = timeline::of_order(pool, order_id).await.map_err(explain)?;
    let order = OrderView::of(row, Clock::system().now());
    Ok(Some(Told { order, timeline: Timeline::of(rows, &Reader::Admin) }))
}

async fn print(args: &OrderArgs, pool: &PgPool, mut told: Told) -> Result<ExitCode> {
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut head = Head::of(&told.order)?;
    writeln!(out, "{head}\n")?;
    let mut story = Story::default();
    write!(out, "{}", story.next(&told.timeline.items))?;
    while args.follow && !FINAL_STATUSES.contains(&head.status.as_str()) {
        tokio::time::sleep(LOOK_EVERY).await;
        told = match look(pool, args.order_id).await {
            Ok(told) => told.context("the order is gone")?,
            Err(error) => return not_looked(&error),
        };
        head = Head::of(&told.order)?;
        write!(out, "{}", story.next(&told.timeline.items))?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}
