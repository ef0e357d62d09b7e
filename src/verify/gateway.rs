//! What the gateway holds against what we say it holds, order by order, both ways.
//!
//! The ledger is read a page at a time, and each page is held against our charges of its orders; then our completed
//! charges are read a page at a time, and each must be in the ledger. What stays in memory is the ids of the ledger's
//! charges, some thirty bytes each.
//!
//! Both sides move on while this reads. A charge is requested before the gateway is asked and completed after it
//! has answered, and so is a refund: what has just come is undecided here, and a charge that has just been
//! completed stands at the ledger's end, which is read again before it is called unknown. A charge that looks
//! wrong is looked at again, our side first, since a void or a refund may lie between the two readings.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ordermill_pipeline::audit::Check;
use ordermill_store::verification::charges::{self, ChargeRow};
use sqlx::PgPool;
use uuid::Uuid;

use super::charge::Charge;
use super::ledger::Ledger;

/// How many completed charges are read at once.
const PAGE_ROWS: i64 = 10_000;
/// How many charges are looked at again; beyond that, it is not the timing that is wrong.
const SUSPECTS_MAX: usize = 1_000;
/// How long charges that look wrong have to become right.
const SETTLE_WITHIN: Duration = Duration::from_secs(3);
/// How long is waited between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Compares the gateway's ledger with our charges; without a gateway that is left out.
pub(super) async fn check(pool: &PgPool, gateway_url: Option<&str>) -> Result<Check> {
    let mut check = Check::new("gateway");
    let Some(url) = gateway_url else {
        check.note = Some("left out: the gateway's address is not known".to_owned());
        return Ok(check);
    };
    let ledger = Ledger::of(url)?;
    let comparison = Comparison { pool, ledger, known: HashSet::new(), suspects: Vec::new(), check };
    comparison.run().await.with_context(|| format!("gateway {url}"))
}

/// A charge that looked wrong, and why.
struct Suspect {
    charge: Charge,
    violation: String,
}

struct Comparison<'a> {
    pool: &'a PgPool,
    ledger: Ledger,
    /// The ids of the ledger's charges.
    known: HashSet<Uuid>,
    suspects: Vec<Suspect>,
    check: Check,
}

impl Comparison<'_> {
    async fn run(mut self) -> Result<Check> {
        self.read_on().await?;
        self.look_for_completed().await?;
        self.look_again().await?;
        for Suspect { violation, .. } in self.suspects {
            self.check.violation(violation);
        }
        self.check.checked = self.known.len() as u64;
        Ok(self.check)
    }

    /// Reads the ledger on to its end.
    async fn read_on(&mut self) -> Result<()> {
        loop {
            let (mut charges, is_last) = self.ledger.page().await?;
            charges.retain(|charge| self.known.insert(charge.key()));
            self.compare(charges).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    async fn compare(&mut self, charges: Vec<Charge>) -> Result<()> {
        let rows = self.rows(charges.iter()).await?;
        for charge in charges {
            let Some(violation) = charge.violation(rows.get(&charge.key())) else { continue };
            if self.suspects.len() < SUSPECTS_MAX {
                self.suspects.push(Suspect { charge, violation });
            } else {
                self.check.violation(violation);
            }
        }
        Ok(())
    }

    /// Our side of those charges, as it is now.
    async fn rows(&self, charges: impl Iterator<Item = &Charge>) -> Result<HashMap<Uuid, ChargeRow>> {
        let (mut order_ids, mut charge_ids) = (Vec::new(), Vec::new());
        for charge in charges {
            order_ids.extend(charge.order_id());
            charge_ids.push(charge.key());
        }
        let rows = charges::of(self.pool, &order_ids, &charge_ids).await?;
        Ok(rows.into_iter().map(|row| (row.charge_id, row)).collect())
    }

    /// Every completed charge is in the ledger.
    async fn look_for_completed(&mut self) -> Result<()> {
        let mut after = Uuid::nil();
        loop {
            let mut rows = charges::completed(self.pool, after, PAGE_ROWS).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.order_id;
            rows.retain(|row| !self.known.contains(&row.charge_id));
            if rows.is_empty() {
                continue;
            }
            self.read_on().await?;
            for ChargeRow { order_id, charge_id, amount, .. } in rows {
                if !self.known.contains(&charge_id) {
                    self.check.violation(format!(
                        "order {order_id}, charge {charge_id}: paid {amount}, but the gateway does not know the charge"
                    ));
                }
            }
        }
    }

    /// Drops the suspects that were only caught between two readings.
    async fn look_again(&mut self) -> Result<()> {
        let started = Instant::now();
        while !self.suspects.is_empty() && started.elapsed() < SETTLE_WITHIN {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            let rows = self.rows(self.suspects.iter().map(|suspect| &suspect.charge)).await?;
            let mut still = Vec::new();
            for mut suspect in std::mem::take(&mut self.suspects) {
                if let Some(charge) = self.ledger.charge(&suspect.charge.charge_id).await? {
                    let Some(violation) = charge.violation(rows.get(&charge.key())) else { continue };
                    suspect = Suspect { charge, violation };
                }
                still.push(suspect);
            }
            self.suspects = still;
        }
        Ok(())
    }
}
