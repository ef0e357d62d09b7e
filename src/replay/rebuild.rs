//! The whole log into the shadow, slice by slice, side by side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use jiff::Timestamp;
use ordermill_pipeline::audit::{self, Applied, Moment, SHOWN_MAX, Slice};
use ordermill_store::replay::compare::Found;
use ordermill_store::replay::shadow::{self, Shadow, TableSummary};
use ordermill_store::replay::{Fold, Pass, Totals, last_page, sales};
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::task::JoinSet;

use super::progress::Progress;
use crate::database::{connect_pool, explain};
use crate::verify::groups;

/// What is replayed, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many slices at once; each takes two connections.
    pub jobs: u32,
    /// Whether it is compared with the live tables.
    pub check: bool,
    /// Up to when; all of it where that is absent.
    pub until: Option<Timestamp>,
}

/// What came of a replay.
#[derive(Debug)]
pub struct Rebuilt {
    /// How many events were read.
    pub events: u64,
    /// How long it took to read and to write them, in all.
    pub took: Duration,
    /// The shadow in figures.
    pub tables: Vec<TableSummary>,
    /// What differs from the live tables.
    pub found: Found,
    /// Events that could not be decoded.
    pub undecodable: Undecodable,
}

/// Events that could not be decoded.
#[derive(Debug, Default)]
pub struct Undecodable {
    /// How many.
    pub count: u64,
    /// The first of them, [`SHOWN_MAX`] at most, in words.
    pub shown: Vec<String>,
}

impl Undecodable {
    fn extend(&mut self, count: u64, shown: Vec<String>) {
        self.count += count;
        let room = SHOWN_MAX.saturating_sub(self.shown.len());
        self.shown.extend(shown.into_iter().take(room));
    }
}

/// A connection that keeps other replays away until it is closed.
///
/// # Errors
/// Where another one is at work, or others could do there what we may.
pub(super) async fn keep_others_away(pool: &PgPool) -> Result<PoolConnection<Postgres>> {
    let mut connection = pool.acquire().await?;
    if !shadow::lock(&mut connection).await.map_err(explain)? {
        bail!("another replay is at work in this database; wait for its end");
    }
    if shadow::is_a_trap(&mut connection).await.map_err(explain)? {
        bail!(
            "this user has the rights of the owner of the tables, and operators could do the same by what they leave in the schema \
             replay: give a user who is a member of ordermill_operator alone as DATABASE_URL, or take the schema from them by DROP SCHEMA \
             replay CASCADE; they have it again after `ordermill roles`"
        );
    }
    Ok(connection)
}

/// Makes the shadow anew from the log, as it is at one moment.
///
/// # Errors
/// Where the database fails, or another replay is at work.
pub async fn rebuild(database_url: &str, options: Options, progress: &Progress) -> Result<Rebuilt> {
    // Besides those of the jobs, one keeps others away, one holds the moment and one writes the rest.
    let pool = connect_pool(database_url, "replay", 2 * options.jobs + 3).await?;
    let alone = keep_others_away(&pool).await?;
    let rebuilt = all_slices(&pool, options, progress).await.map_err(explain)?;
    drop(alone);
    pool.close().await;
    Ok(rebuilt)
}

async fn all_slices(pool: &PgPool, options: Options, progress: &Progress) -> Result<Rebuilt, sqlx::Error> {
    let started = Instant::now();
    let mut writer = pool.acquire().await?;
    let shadow = Shadow::make(&mut writer).await?;
    let mut snapshot = audit::snapshot(pool).await?;
    let moment = audit::moment(&mut snapshot).await?;
    progress.expect(audit::count(&mut snapshot).await?);
    let job = Job {
        pool: pool.clone(),
        options,
        moment,
        shadow: shadow.clone(),
        orders: Arc::new(audit::applied(&mut snapshot, groups().orders).await?),
        sales: Arc::new(audit::applied(&mut snapshot, groups().sales).await?),
        progress: progress.clone(),
    };
    let aggregates = audit::slices(&mut snapshot, options.jobs).await?;
    let mut done = run_all(&job, aggregates, Slice::even(options.jobs)).await?;
    let (totals, found) = last_page(&mut snapshot, done.totals, options.check).await?;
    done.found.extend(found);
    if options.check {
        done.found.extend(sales::differences(&mut snapshot, groups().sales).await?);
    }
    snapshot.rollback().await?;
    shadow.write(&mut writer, totals).await?;
    let took = started.elapsed();
    let tables = shadow::summary(&mut writer).await?;
    let (found, undecodable) = (done.found, done.undecodable);
    Ok(Rebuilt { events: progress.done(), took, tables, found, undecodable })
}

async fn run_all(job: &Job, aggregates: Vec<Slice>, coupons: Vec<Slice>) -> Result<Done, sqlx::Error> {
    let mut jobs = JoinSet::new();
    for slice in aggregates {
        jobs.spawn(job.clone().aggregates(slice));
    }
    let mut done = Done::default();
    // As soon as one has ended another begins, so no more are at work than were asked for.
    let mut coupons = coupons.into_iter();
    while let Some(ended) = jobs.join_next().await {
        done.add(ended.unwrap_or(Err(sqlx::Error::WorkerCrashed))?);
        if let Some(slice) = coupons.next() {
            jobs.spawn(job.clone().user_coupons(slice));
        }
    }
    Ok(done)
}

/// What slices have brought.
#[derive(Debug, Default)]
struct Done {
    totals: Totals,
    found: Found,
    undecodable: Undecodable,
}

impl Done {
    fn add(&mut self, other: Done) {
        self.totals.add(other.totals);
        self.found.extend(other.found);
        self.undecodable.extend(other.undecodable.count, other.undecodable.shown);
    }
}

/// What every slice needs to know.
#[derive(Clone)]
struct Job {
    pool: PgPool,
    options: Options,
    moment: Moment,
    shadow: Shadow,
    orders: Arc<Applied>,
    sales: Arc<Applied>,
    progress: Progress,
}

impl Job {
    async fn aggregates(self, slice: Slice) -> Result<Done, sqlx::Error> {
        let fold = Fold::of_aggregates(slice, &self.orders).with_sales(&self.sales);
        self.run(fold, true).await
    }

    async fn user_coupons(self, slice: Slice) -> Result<Done, sqlx::Error> {
        // Their events are those of aggregates, and counted there.
        self.run(Fold::of_user_coupons(slice, &self.orders), false).await
    }

    async fn run(&self, fold: Fold<'_>, is_counted: bool) -> Result<Done, sqlx::Error> {
        let mut snapshot = audit::snapshot_of(&self.pool, &self.moment).await?;
        let mut writer = self.pool.acquire().await?;
        let mut pass = Pass::begin(&mut snapshot, fold.until(self.options.until)).await?;
        if self.options.check {
            pass = pass.compared();
        }
        let mut undecodable = Undecodable::default();
        while let Some(mut page) = pass.next(&mut snapshot).await? {
            if is_counted {
                let texts = std::mem::take(&mut page.undecodable);
                undecodable.extend(texts.len() as u64, texts);
                self.progress.add(page.events);
            }
            self.shadow.write(&mut writer, page).await?;
        }
        snapshot.rollback().await?;
        let (totals, found) = pass.finish();
        Ok(Done { totals, found, undecodable })
    }
}
