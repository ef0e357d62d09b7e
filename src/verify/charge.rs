//! One charge: what the gateway holds against what we say.

use std::collections::HashMap;

use ordermill_domain::payments::ChargeState;
use ordermill_store::verification::charges::{self, ChargeRow};
use serde::Deserialize;
use sqlx::PgExecutor;
use uuid::Uuid;

/// A charge as the gateway shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Charge {
    pub(crate) charge_id: String,
    /// The order that it is for.
    pub(crate) reference: String,
    pub(crate) approved_amount: i64,
    pub(crate) refunded: i64,
    pub(crate) status: String,
}

impl Charge {
    /// The id as ours are. Others' ids need not be UUIDs; those stand for themselves under one derived from them,
    /// which no payment of ours has.
    pub(crate) fn key(&self) -> Uuid {
        let derived = || Uuid::new_v5(&Uuid::NAMESPACE_OID, self.charge_id.as_bytes());
        Uuid::try_parse(&self.charge_id).unwrap_or_else(|_| derived())
    }

    /// What the gateway holds for it.
    pub(crate) fn held(&self) -> i64 {
        self.approved_amount - self.refunded
    }

    /// The order that it is for, where it is for one of ours.
    pub(crate) fn order_id(&self) -> Option<Uuid> {
        Uuid::try_parse(&self.reference).ok()
    }

    /// What is wrong with it, given our charge of that id.
    pub(super) fn violation(&self, row: Option<&ChargeRow>) -> Option<String> {
        let Charge { charge_id, reference, approved_amount, refunded, status } = self;
        let held = self.held();
        let says = format!(
            "order {reference}, charge {charge_id}: the gateway holds {held} \
             ({status}, {approved_amount} approved, {refunded} refunded), but"
        );
        let Some(row) = row else {
            return (held != 0).then(|| format!("{says} no payment has that charge"));
        };
        if row.order_id.to_string() != *reference {
            return Some(format!("{says} the charge is for order {}", row.order_id));
        }
        let is_approved = status == APPROVED;
        let (is_right, due) = match row.state {
            // The answer is on its way, or is being asked for.
            ChargeState::Requested | ChargeState::Voiding => return None,
            ChargeState::Completed => {
                let is_charged = is_approved && *approved_amount == row.amount;
                // A refund is made in one piece, and the gateway makes it before we know.
                let is_refunded = [row.refunded, row.refunded + row.refunding].contains(refunded);
                (is_charged && is_refunded, row.amount - row.refunded)
            }
            ChargeState::Failed => (!is_approved && held == 0, 0),
        };
        let ours = format!("{} of {}, {} refunded", word(row.state), row.amount, row.refunded);
        let refunding =
            if row.refunding > 0 { format!(", {} being refunded", row.refunding) } else { String::new() };
        (!is_right).then(|| format!("{says} it should hold {due} ({ours}{refunding})"))
    }
}

/// Our side of those charges, by id.
pub(crate) async fn rows_of<'a>(
    database: impl PgExecutor<'_>,
    charges: impl IntoIterator<Item = &'a Charge>,
) -> Result<HashMap<Uuid, ChargeRow>, sqlx::Error> {
    let (mut order_ids, mut charge_ids) = (Vec::new(), Vec::new());
    for charge in charges {
        order_ids.extend(charge.order_id());
        charge_ids.push(charge.key());
    }
    let rows = charges::of(database, &order_ids, &charge_ids).await?;
    Ok(rows.into_iter().map(|row| (row.charge_id, row)).collect())
}

/// The gateway's word for a charge that took money.
const APPROVED: &str = "APPROVED";

/// The state as the table says it.
fn word(state: ChargeState) -> String {
    format!("{state:?}").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: Uuid = Uuid::from_u128(1);
    const CHARGE: Uuid = Uuid::from_u128(2);

    fn charge(status: &str, approved_amount: i64, refunded: i64) -> Charge {
        let (charge_id, reference) = (CHARGE.to_string(), ORDER.to_string());
        Charge { charge_id, reference, approved_amount, refunded, status: status.to_owned() }
    }

    fn row(state: ChargeState) -> ChargeRow {
        ChargeRow { order_id: ORDER, charge_id: CHARGE, amount: 500, refunded: 0, refunding: 0, state }
    }

    #[test]
    fn a_completed_charge_is_approved_in_full_and_refunded_as_far_as_we_say() {
        let refunded = ChargeRow { refunded: 200, ..row(ChargeState::Completed) };
        assert_eq!(charge("APPROVED", 500, 0).violation(Some(&row(ChargeState::Completed))), None);
        assert_eq!(charge("APPROVED", 500, 200).violation(Some(&refunded)), None);
        for (charge, row) in [
            (charge("APPROVED", 499, 0), row(ChargeState::Completed)),
            (charge("APPROVED", 500, 500), row(ChargeState::Completed)),
            (charge("APPROVED", 501, 1), row(ChargeState::Completed)),
            (charge("DECLINED", 0, 0), row(ChargeState::Completed)),
            (charge("VOIDED", 0, 0), row(ChargeState::Completed)),
            (charge("APPROVED", 500, 0), refunded.clone()),
            (charge("APPROVED", 500, 201), refunded.clone()),
            (charge("VOIDED", 200, 200), ChargeRow { refunded: 500, ..refunded }),
        ] {
            assert!(charge.violation(Some(&row)).is_some(), "{charge:?} {row:?}");
        }
    }

    #[test]
    fn a_refund_under_way_may_have_been_made_or_not_but_not_in_part() {
        let row = ChargeRow { refunded: 200, refunding: 100, ..row(ChargeState::Completed) };
        for refunded in [200, 300] {
            assert_eq!(charge("APPROVED", 500, refunded).violation(Some(&row)), None);
        }
        for refunded in [0, 250, 400] {
            let text = charge("APPROVED", 500, refunded).violation(Some(&row)).unwrap();
            assert!(text.contains("200 refunded, 100 being refunded"), "{text}");
        }
    }

    #[test]
    fn a_failed_charge_was_declined_or_voided() {
        for charge in [charge("DECLINED", 0, 0), charge("VOIDED", 0, 0), charge("VOIDED", 30, 30)] {
            assert_eq!(charge.violation(Some(&row(ChargeState::Failed))), None, "{charge:?}");
        }
        for charge in [charge("APPROVED", 500, 0), charge("APPROVED", 500, 500), charge("VOIDED", 30, 0)] {
            assert!(charge.violation(Some(&row(ChargeState::Failed))).is_some(), "{charge:?}");
        }
    }

    #[test]
    fn a_violation_names_order_charge_and_both_amounts() {
        let text = charge("APPROVED", 250, 0).violation(Some(&row(ChargeState::Failed))).unwrap();
        for part in [&ORDER.to_string(), &CHARGE.to_string(), "holds 250", "should hold 0"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn an_undecided_charge_may_hold_anything() {
        for state in [ChargeState::Requested, ChargeState::Voiding] {
            assert_eq!(charge("APPROVED", 250, 0).violation(Some(&row(state))), None);
        }
    }

    #[test]
    fn a_charge_that_no_payment_has_holds_nothing() {
        assert_eq!(charge("DECLINED", 0, 0).violation(None), None);
        assert!(charge("APPROVED", 1, 0).violation(None).unwrap().contains("no payment"));
    }

    #[test]
    fn a_charge_for_another_order_is_a_violation() {
        let mut charge = charge("APPROVED", 500, 0);
        charge.reference = "cups".to_owned();
        assert!(charge.violation(Some(&row(ChargeState::Completed))).unwrap().contains("for order"));
        assert_eq!(charge.order_id(), None);
        charge.charge_id = "cup-1".to_owned();
        assert_ne!(charge.key(), CHARGE);
    }
}
