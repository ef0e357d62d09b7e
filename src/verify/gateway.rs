//! What the gateway holds against what we say it holds, order by order, both ways.
//!
//! The ledger is read a page at a time, and each page is held against our charges of its orders. That every completed
//! charge of ours is in the ledger is known by counting: those of one moment in the database, before the ledger is read,
//! and those of them that turn up in it, in buckets by id. Only where a bucket has too few, its charges are looked up one
//! by one. In memory are a page, the counts, and up to a thousand charges that look wrong, however many there are.
//!
//! Both sides move on while this reads. A charge is requested before the gateway is asked and completed after it
//! has answered, and so is a refund: what has just come is undecided here, and what was completed before the ledger
//! is read is in it. A charge that looks wrong is looked at again, our side first, since a void or a refund may lie
//! between the two readings.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ordermill_pipeline::audit::{self, Check, SHOWN_MAX};
use ordermill_store::verification::charges::{self, BUCKETS, ChargeRow, bucket_of};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::charge::{Charge, rows_of};
use super::ledger::Ledger;
use crate::connections::Connections;

/// How many charges are looked up between two queries.
const PAGE_ROWS: i64 = 500;
/// How many charges are looked up at the gateway one by one.
const LOOK_UPS_MAX: usize = 10_000;
/// How many charges are looked at again; beyond that, it is not the timing that is wrong.
const SUSPECTS_MAX: usize = 1_000;
/// How long charges that look wrong have to become right.
const SETTLE_WITHIN: Duration = Duration::from_secs(3);
/// How long is waited between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Compares the gateway's ledger with our charges; without a gateway that is left out.
pub(super) async fn check(pool: &PgPool, connections: &Connections) -> Result<Check> {
    let mut check = Check::new("gateway");
    let Some(url) = connections.gateway_url.as_deref() else {
        check.note = Some("left out: the gateway's address is not known".to_owned());
        return Ok(check);
    };
    let ledger = Ledger::of(url, connections.gateway_ca_file.as_deref())?;
    let comparison = Comparison { pool, ledger, met: vec![0; BUCKETS], suspects: Vec::new(), check };
    comparison.run().await.with_context(|| format!("gateway {url}"))
}

struct Comparison<'a> {
    pool: &'a PgPool,
    ledger: Ledger,
    /// How many of the charges that the gateway must know it has listed, by bucket.
    met: Vec<u32>,
    /// Charges that looked wrong, and why.
    suspects: Vec<(Charge, String)>,
    check: Check,
}

impl Comparison<'_> {
    async fn run(mut self) -> Result<Check> {
        let mut moment = audit::snapshot(self.pool).await?;
        let due = charges::count_completed(&mut moment).await?;
        while let Some(page) = self.ledger.page().await? {
            self.check.checked += page.len() as u64;
            self.meet(&mut moment, &page).await?;
            self.compare(page).await?;
        }
        self.look_for_lacking(&mut moment, &due).await?;
        moment.rollback().await?;
        self.look_again().await?;
        for (_, violation) in self.suspects {
            self.check.violation(violation);
        }
        Ok(self.check)
    }

    /// Counts those of the charges that the gateway had to know at that moment.
    async fn meet(&mut self, moment: &mut PgConnection, page: &[Charge]) -> Result<()> {
        let rows = rows_of(moment, page).await?;
        let known = page.iter().filter_map(|charge| rows.get(&charge.key()));
        for row in known.filter(|row| row.must_be_known()) {
            self.met[usize::from(bucket_of(row.charge_id))] += 1;
        }
        Ok(())
    }

    async fn compare(&mut self, charges: Vec<Charge>) -> Result<()> {
        let rows = rows_of(self.pool, &charges).await?;
        for charge in charges {
            let Some(violation) = charge.violation(rows.get(&charge.key())) else { continue };
            if self.suspects.len() < SUSPECTS_MAX {
                self.suspects.push((charge, violation));
            } else {
                self.check.violation(violation);
            }
        }
        Ok(())
    }

    /// Names the charges that the ledger lacks; of very many, the first.
    async fn look_for_lacking(&mut self, moment: &mut PgConnection, due: &[u32]) -> Result<()> {
        let (buckets, mut lacking) = lacking(due, &self.met);
        let (mut named, mut looked_up, mut after) = (0, 0, Uuid::nil());
        while lacking > 0 && named < SHOWN_MAX && looked_up < LOOK_UPS_MAX {
            let rows = charges::completed_in(moment, &buckets, after, PAGE_ROWS).await?;
            // The gateway answers for all of them, though it has not listed them.
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.order_id;
            looked_up += rows.len();
            for ChargeRow { order_id, charge_id, amount, .. } in rows {
                if self.ledger.charge(&charge_id.to_string()).await?.is_none() {
                    (named, lacking) = (named + 1, lacking.saturating_sub(1));
                    self.check.violation(format!(
                        "order {order_id}, charge {charge_id}: paid {amount}, but the gateway does not know the charge"
                    ));
                }
            }
        }
        self.check.violations_beyond(lacking);
        Ok(())
    }

    /// Drops the suspects that were only caught between two readings.
    async fn look_again(&mut self) -> Result<()> {
        let started = Instant::now();
        while !self.suspects.is_empty() && started.elapsed() < SETTLE_WITHIN {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            let rows = rows_of(self.pool, self.suspects.iter().map(|(charge, _)| charge)).await?;
            let mut still = Vec::new();
            for mut suspect in std::mem::take(&mut self.suspects) {
                if let Some(charge) = self.ledger.charge(&suspect.0.charge_id).await? {
                    let Some(violation) = charge.violation(rows.get(&charge.key())) else { continue };
                    suspect = (charge, violation);
                }
                still.push(suspect);
            }
            self.suspects = still;
        }
        Ok(())
    }
}

/// The buckets in which fewer were met than are due, and how many fewer in all.
fn lacking(due: &[u32], met: &[u32]) -> (Vec<i32>, u64) {
    let lacks = |(bucket, (due, met)): (i32, (&u32, &u32))| {
        due.checked_sub(*met).filter(|lacks| *lacks > 0).map(|lacks| (bucket, u64::from(lacks)))
    };
    let lacking: Vec<(i32, u64)> = (0..).zip(due.iter().zip(met)).filter_map(lacks).collect();
    (lacking.iter().map(|(bucket, _)| *bucket).collect(), lacking.iter().map(|(_, lacks)| lacks).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_in_which_fewer_were_met_than_are_due_is_lacking() {
        assert_eq!(lacking(&[3, 5, 0, 2], &[3, 1, 0, 1]), (vec![1, 3], 5));
        assert_eq!(lacking(&[3], &[4]), (Vec::new(), 0));
    }
}
