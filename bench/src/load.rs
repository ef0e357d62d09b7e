//! `ordermill-bench load`: the process that places the orders, apart from the one that is measured.
//!
//! Two ways of placing them. The *closed loop* keeps every connection busy: the next order is sent when the last one is
//! answered, which finds the highest rate, but a slow answer also holds back the orders that would have met it. The
//! *open loop* sends at moments fixed beforehand, whatever has become of the orders before, and measures from those
//! moments on, so that waiting anywhere shows: in the API, or here for a free connection.
//!
//! In both, one order in ten is held by the API until it rests, unless told otherwise. Those have connections of their own,
//! so that they keep no other order waiting.
//!
//! In place of orders it can also send claims of a coupon.
//!
//! One thread does it all, so that it takes little from what it measures; a second one keeps the time of the open loop.

pub mod args;
mod claims;
mod closed;
mod lines;
mod open;
mod outcome;
pub mod report;
mod tally;
mod work;

use std::io::Write as _;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result, bail};
use tokio::task::LocalSet;

use crate::load::args::LoadArgs;
use crate::load::tally::Tally;
use crate::load::work::Work;
use crate::shop::Shop;

pub(crate) use crate::load::args::HELD_EVERY;

/// Places the orders and prints what became of them: a line that says how late they were sent, then the report.
///
/// # Errors
/// Where the flags or the shop can't be used, or nobody listens there.
pub async fn run(args: &LoadArgs) -> Result<()> {
    let address = args.address()?;
    let work = Rc::new(Work::prepare(args, address, read_shop(&args.shop)?)?);
    let tally = Rc::new(Tally::new()?);
    let placing = async {
        match args.rate {
            None => closed::run(&work, &tally, args.connections).await,
            Some(rate) => open::run(&work, &tally, args.connections, rate).await,
        }
    };
    LocalSet::new().run_until(placing).await?;
    let (report, lateness) = tally.told();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&lateness)?)?;
    writeln!(out, "{}", serde_json::to_string(&report)?)?;
    Ok(())
}

fn read_shop(path: &Path) -> Result<Shop> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let shop: Shop =
        serde_json::from_str(&text).with_context(|| format!("{} is not a shop", path.display()))?;
    if shop.users.is_empty() {
        bail!("{} has no users", path.display());
    }
    Ok(shop)
}
