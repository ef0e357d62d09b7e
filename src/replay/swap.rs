//! A projection made again and put in place.

use std::time::Instant;

use anyhow::Result;
use derive_more::Display;
use ordermill_domain::sales::Sums;
use ordermill_pipeline::{audit, database};
use ordermill_store::replay::shadow::Shadow;
use ordermill_store::replay::swap::{self, Basis, Projection, Swapped};
use serde::Serialize;
use sqlx::PgPool;

use super::progress::Progress;
use super::rebuild::keep_others_away;
use crate::database::{connect_pool, explain};
use crate::verify::groups;

/// What was put in place.
#[derive(Debug, Display, Serialize)]
#[display(
    "{projection}: made from {events} events in {seconds:.1} s; {} rows were written, {} removed",
    swapped.written,
    swapped.removed
)]
pub(crate) struct SwapReport {
    projection: &'static str,
    events: u64,
    #[serde(flatten)]
    swapped: Swapped,
    seconds: f64,
}

/// Makes a projection again from the log and puts it in the place of the live one.
pub(crate) async fn swap(database_url: &str, projection: Projection) -> Result<SwapReport> {
    let Projection::Sales = projection;
    let started = Instant::now();
    let pool = connect_pool(database_url, "replay", 4).await?;
    let alone = keep_others_away(&pool).await?;
    let progress = Progress::default();
    let swapped = progress.shown(sales(&pool, &progress)).await.map_err(explain)?;
    drop(alone);
    pool.close().await;
    let seconds = started.elapsed().as_secs_f64();
    Ok(SwapReport { projection: "sales", events: progress.done(), swapped, seconds })
}

async fn sales(pool: &PgPool, progress: &Progress) -> Result<Swapped, sqlx::Error> {
    let group = groups().sales;
    let mut writer = pool.acquire().await?;
    let shadow = Shadow::make(&mut writer).await?;
    let mut snapshot = audit::snapshot(pool).await?;
    progress.expect(swap::count(&mut snapshot).await?);
    let mut basis = Basis::begin(&mut snapshot, group).await?;
    let mut after = 0;
    while let Some((reached, page)) = swap::events(&mut snapshot, after).await? {
        after = reached;
        let (mut sums, count) = (Sums::default(), page.len() as u64);
        for logged in page {
            basis.take(logged, &mut sums).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        }
        shadow.add_sales(&mut writer, &sums).await?;
        progress.add(count);
    }
    snapshot.rollback().await?;
    let mut transaction = database::begin(pool).await?;
    let swapped = swap::put_in_place(&mut transaction, &shadow, basis, group).await?;
    transaction.commit().await?;
    Ok(swapped)
}
