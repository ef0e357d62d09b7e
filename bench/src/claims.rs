//! Claims of a coupon of which there are too few: how many a second come to a decision.
//!
//! Each user claims once, as fast as the connections go. A claim is decided when it is issued or rejected; one that the API
//! refuses since the coupon is known to be sold out is decided as well. The time ends with the last decision.

use anyhow::{Result, bail};
use jiff::Timestamp;
use ordermill_store::coupons;
use serde::Serialize;
use uuid::Uuid;

use crate::args::RunArgs;
use crate::load::report::LoadReport;
use crate::machine::{Usage, Work};
use crate::phase::{Ground, LOOK_EVERY, Phase, REST_WITHIN, seconds};
use crate::server::checkpoint;
use crate::setup;

/// The file that has the users.
const CLAIMANTS: &str = "claimants.json";
/// How the load names the refusal that is a decision.
const SOLD_OUT: &str = "409 COUPON_SOLD_OUT";

/// What became of the claims.
#[derive(Clone, Debug, Serialize)]
pub struct Claims {
    /// Claims that were sent.
    pub claims: u64,
    /// How many there are of the coupon.
    pub coupons: usize,
    /// Taken, and decided by the worker.
    pub decided_by_worker: u64,
    /// Refused at once, since the coupon was sold out.
    pub refused_at_once: u64,
    /// Decisions a second, from the first claim sent to the last decision.
    pub claims_per_s: f64,
    /// Who used the processors meanwhile.
    pub work: Work,
    /// What went wrong.
    pub errors: Vec<String>,
}

/// Has many users claim.
///
/// # Errors
/// Where it can't be measured.
pub(crate) async fn measure(ground: &Ground, admin_key: &str, args: &RunArgs) -> Result<Claims> {
    let shop = setup::claimants(&ground.api_url, admin_key, args.claimants).await?;
    ground.keep(CLAIMANTS, &shop)?;
    let coupon_id = setup::coupon(&ground.api_url, admin_key, args.coupons).await?;
    checkpoint(&ground.pool).await?;
    let closed = Phase::closed("claims", args.claimants, args.concurrency);
    let phase = Phase { shop: CLAIMANTS, ..closed };
    let then = Usage::now()?;
    let (load, _) = ground.load(&phase, &[format!("--claim={coupon_id}")]).await?;
    let decided_at_us = until_decided(ground, coupon_id).await?;
    let work = Usage::now()?.since(&then);
    let issued = coupons::count_issued(&ground.pool, coupon_id).await?;
    let mut claims = told(load, decided_at_us, args.coupons, work);
    let expected = args.coupons.min(args.claimants);
    if usize::try_from(issued)? != expected {
        claims.errors.push(format!("{issued} coupons were issued, not {expected}"));
    }
    Ok(claims)
}

/// Waits until no claim is undecided; when that was.
async fn until_decided(ground: &Ground, coupon_id: Uuid) -> Result<i64> {
    let decided = async {
        while coupons::has_undecided(&ground.pool, coupon_id).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(Timestamp::now().as_microsecond())
    };
    match tokio::time::timeout(REST_WITHIN, decided).await {
        Ok(decided) => decided,
        Err(_) => bail!("claims are undecided after {} s", REST_WITHIN.as_secs()),
    }
}

fn told(mut load: LoadReport, decided_at_us: i64, coupons: usize, work: Work) -> Claims {
    let refused_at_once = load.errors.remove(SOLD_OUT).unwrap_or_default();
    let decided = load.accepted + refused_at_once;
    Claims {
        claims: load.sent,
        coupons,
        decided_by_worker: load.accepted,
        refused_at_once,
        claims_per_s: decided as f64 / seconds(load.first_sent_us, decided_at_us),
        work,
        errors: load.errors.iter().map(|(kind, count)| format!("{kind}: {count}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_as_sold_out_is_decided_and_every_other_refusal_an_error() {
        let errors = [(SOLD_OUT.to_owned(), 60), ("503 OVERLOADED".to_owned(), 5)].into();
        let load = LoadReport { sent: 105, accepted: 40, first_sent_us: 0, errors, ..LoadReport::default() };
        let work = Work { seconds: 1.0, parts: [].into() };
        let claims = told(load, 2_000_000, 10, work);
        assert_eq!((claims.decided_by_worker, claims.refused_at_once), (40, 60));
        assert!((claims.claims_per_s - 50.0).abs() < 1e-9);
        assert_eq!(claims.errors, ["503 OVERLOADED: 5"]);
    }
}
