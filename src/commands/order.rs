//! `ordermill order ID`: the whole story of one order, as a table or as JSON.
//!
//! It only reads the database, and tells an operator what the API tells an administrator. With `--follow` it goes on
//! until the order has come to its end.

mod head;
mod story;

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
use crate::output::{answer, note, show, write};

use story::Story;

/// Where the database does not answer.
const NOT_READ: &str = "the order could not be read";
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

/// Prints an order's story. Answers 0, or 1 where there is no such order.
///
/// # Errors
/// Where the database does not answer.
pub(crate) async fn run(args: &OrderArgs, database_url: Result<String>) -> Result<ExitCode> {
    let first = async {
        let pool = connect_pool(&database_url?, "order", 1).await?;
        anyhow::Ok((look(&pool, args.order_id).await?, pool))
    };
    let (told, pool) = first.await.context(NOT_READ)?;
    let Some(told) = told else {
        note(&format!("ordermill: there is no order {}", args.order_id));
        return Ok(answer(false));
    };
    if args.json {
        show(&told, true, String::new)?;
        return Ok(answer(true));
    }
    let mut order = serde_json::to_value(&told.order)?;
    let mut story = Story::default();
    write(format!("{}\n\n{}", head::text(&order), story.next(&told.timeline.items)).as_bytes())?;
    while args.follow && !FINAL_STATUSES.iter().any(|status| order["status"] == *status) {
        tokio::time::sleep(LOOK_EVERY).await;
        let told = look(&pool, args.order_id).await.context(NOT_READ)?.context("the order is gone")?;
        order = serde_json::to_value(&told.order)?;
        write(story.next(&told.timeline.items).as_bytes())?;
    }
    Ok(answer(true))
}

/// The order first: what is seen of it has its events in the log by then.
async fn look(pool: &PgPool, order_id: Uuid) -> Result<Option<Told>> {
    let Some(row) = ordermill_store::find(pool, order_id).await.map_err(explain)? else { return Ok(None) };
    let rows = timeline::of_order(pool, order_id).await.map_err(explain)?;
    let order = OrderView::of(row, Clock::system().now());
    Ok(Some(Told { order, timeline: Timeline::of(rows, &Reader::Admin) }))
}
