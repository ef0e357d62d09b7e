//! `ordermill payments reconcile`: money that the gateway holds and no payment knows.
//!
//! The gateway is asked for nothing that does not stand in `payments`, committed. So a charge which it holds and which
//! no payment has, read in that order, is of an order or a round that was lost with the database, and is given back.
//! A charge of an order that may still be charged is left alone: the order may come to ask for the same one again. So is
//! one whose id does not follow from its order, as ours do: somebody else may use the same gateway.

use std::collections::HashSet;
use std::fmt;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use ordermill_domain::payments::charge_id;
use ordermill_store::orders;
use sqlx::PgPool;
use uuid::Uuid;

use crate::connections::Connections;
use crate::database::connect_pool;
use crate::output::{answer, print};
use crate::verify::charge::{Charge, rows_of};
use crate::verify::ledger::Ledger;

/// Up to which charge of an order ids are tried: it has one for each modification that made it dearer.
const CHARGES_MAX: i32 = 1_000;

/// The commands of `ordermill payments`.
#[derive(Debug, Subcommand)]
pub(crate) enum PaymentsCommand {
    /// Prints what the gateway holds for charges that no payment knows, after a database was restored; with --apply, has
    /// it given back.
    Reconcile {
        /// Has the gateway give it back.
        #[arg(long)]
        apply: bool,
    },
}

/// Runs the command; answers 0 where nothing is left that the gateway should not hold, else 1.
pub(crate) async fn run(connections: &Connections, command: PaymentsCommand) -> Result<ExitCode> {
    let PaymentsCommand::Reconcile { apply } = command;
    let pool = connect_pool(&connections.database_url, "payments-reconcile", 1).await?;
    let ledger = Ledger::of(connections.gateway_url()?, connections.gateway_ca_file.as_deref())?;
    let totals = reconcile(&pool, ledger, apply).await?;
    print(&totals.to_string())?;
    Ok(answer(totals.left() == 0))
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    given_back: (u64, i64),
    to_give_back: (u64, i64),
    undecided: (u64, i64),
    others: (u64, i64),
}

impl Totals {
    fn left(&self) -> u64 {
        self.to_give_back.0 + self.undecided.0
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |(count, sum): (u64, i64)| format!("{count} charges, {sum} in all");
        write!(f, "given back: {}", told(self.given_back))?;
        let others = [
            (self.to_give_back, "to be given back by --apply", ""),
            (
                self.undecided,
                "left alone, since the order may still be charged",
                "; run this again once the order has ended, or modify it as it had been modified",
            ),
            (self.others, "left alone, since they are not of this shop", ""),
        ];
        for (total, what, advice) in others.into_iter().filter(|(total, ..)| total.0 > 0) {
            write!(f, "\n{what}: {}{advice}", told(total))?;
        }
        Ok(())
    }
}

/// Goes through the ledger a page at a time.
async fn reconcile(pool: &PgPool, mut ledger: Ledger, apply: bool) -> Result<Totals> {
    let mut totals = Totals::default();
    while let Some(mut page) = ledger.page().await? {
        page.retain(|charge| charge.held() != 0);
        for (charge, verdict) in strays(pool, page).await? {
            let held = charge.held();
            let (what, sum) = match verdict {
                Verdict::Undecided => ("left alone: the order may still be charged", &mut totals.undecided),
                Verdict::Others => ("left alone: not a charge of this shop", &mut totals.others),
                Verdict::Lost if apply => {
                    ledger.void(&charge.charge_id).await?;
                    ("given back", &mut totals.given_back)
                }
                Verdict::Lost => ("to be given back", &mut totals.to_give_back),
            };
            *sum = (sum.0 + 1, sum.1 + held);
            print(&format!("order {}, charge {}: {held} {what}", charge.reference, charge.charge_id))?;
        }
    }
    Ok(totals)
}

/// What is to become of a charge that no payment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It was asked for in a time that was lost, and nobody will ask for it again.
    Lost,
    /// Its order may come to ask for it again.
    Undecided,
    /// It was never ours.
    Others,
}

/// `chargeable` are the orders that may still be charged.
fn judge(charge: &Charge, chargeable: &HashSet<Uuid>) -> Verdict {
    let Some(order_id) = charge.order_id() else { return Verdict::Others };
    let is_ours = (1..=CHARGES_MAX).any(|number| charge_id(order_id, number) == charge.key());
    match (is_ours, chargeable.contains(&order_id)) {
        (false, _) => Verdict::Others,
        (true, true) => Verdict::Undecided,
        (true, false) => Verdict::Lost,
    }
}

/// Those of the charges that no payment has. Whoever has them asked for, has recorded that before.
async fn strays(pool: &PgPool, mut page: Vec<Charge>) -> Result<Vec<(Charge, Verdict)>> {
    let known = rows_of(pool, &page).await?;
    page.retain(|charge| !known.contains_key(&charge.key()));
    let order_ids: Vec<Uuid> = page.iter().filter_map(Charge::order_id).collect();
    let chargeable: HashSet<Uuid> = orders::chargeable(pool, &order_ids).await?.into_iter().collect();
    Ok(page.into_iter().map(|charge| (charge.clone(), judge(&charge, &chargeable))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_charge_of_ours_that_nobody_will_ask_for_again_is_given_back() {
        let order = Uuid::from_u128(1);
        let charge = |charge_id: Uuid, reference: &str| Charge {
            charge_id: charge_id.to_string(),
            reference: reference.to_owned(),
            approved_amount: 5,
            refunded: 0,
            status: "APPROVED".to_owned(),
        };
        let ours = charge(charge_id(order, 3), &order.to_string());
        assert_eq!(judge(&ours, &HashSet::new()), Verdict::Lost);
        assert_eq!(judge(&ours, &HashSet::from([order])), Verdict::Undecided);
        let strange = charge(Uuid::from_u128(7), &order.to_string());
        assert_eq!(judge(&strange, &HashSet::new()), Verdict::Others);
        assert_eq!(judge(&charge(Uuid::from_u128(7), "pots"), &HashSet::new()), Verdict::Others);
    }

    #[test]
    fn the_totals_tell_what_is_left_and_what_to_do_about_it() {
        let totals = Totals { given_back: (2, 500), ..Totals::default() };
        assert_eq!((totals.to_string().as_str(), totals.left()), ("given back: 2 charges, 500 in all", 0));
        let totals = Totals { to_give_back: (1, 70), undecided: (3, 90), ..Totals::default() };
        assert_eq!(totals.left(), 4);
        for part in
            ["by --apply: 1 charges, 70", "left alone, since the order may still be charged: 3 charges"]
        {
            assert!(totals.to_string().contains(part), "{totals}");
        }
    }
}
