//! How fast the log is replayed, against plainly reading it: the same rows and columns, page by page over one
//! connection, with nothing made of them.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ordermill::replay::{Options, Progress, processors, rebuild};
use ordermill_pipeline::audit::{self, PAGE_EVENTS};
use serde::Serialize;
use sqlx::PgPool;

/// The log as it was read and replayed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ReplayRates {
    /// Events of the log that this run has written.
    pub events: u64,
    /// How many parts of it were replayed side by side.
    pub jobs: u32,
    /// Events a second, plainly read.
    pub read_per_s: f64,
    /// Events a second, folded, and their rows written to the shadow.
    pub replayed_per_s: f64,
    /// The latter as a share of the former.
    pub replayed_per_read: f64,
}

/// Reads the log twice, the first time to have it in memory, then replays it.
///
/// # Errors
/// Where the database fails, or an event can't be read.
pub(crate) async fn measure(database_url: &str, pool: &PgPool) -> Result<ReplayRates> {
    read(pool).await?;
    let (read, read_in) = read(pool).await?;
    let jobs = processors();
    let options = Options { jobs, check: false, until: None };
    let rebuilt = rebuild(database_url, options, &Progress::default()).await?;
    if rebuilt.events != read || rebuilt.undecodable.count > 0 {
        let (events, undecodable) = (rebuilt.events, rebuilt.undecodable.count);
        bail!("of {read} events {events} were replayed, and {undecodable} could not be decoded");
    }
    let (read_per_s, replayed_per_s) = (rate(read, read_in), rate(rebuilt.events, rebuilt.took));
    let replayed_per_read = replayed_per_s / read_per_s;
    Ok(ReplayRates { events: read, jobs, read_per_s, replayed_per_s, replayed_per_read })
}

async fn read(pool: &PgPool) -> Result<(u64, Duration)> {
    let started = Instant::now();
    let mut connection = pool.acquire().await?;
    let (mut after, mut events) = (0, 0);
    while let Some((reached, page)) = audit::page(&mut connection, after, PAGE_EVENTS).await? {
        after = reached;
        events += page.len() as u64;
    }
    Ok((events, started.elapsed()))
}

fn rate(events: u64, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64().max(f64::EPSILON)
}
