//! The rules of the ledger: what a charge, a refund or a void does to the charges there are.
//!
//! Nothing here waits, fails for an outside reason, looks at the clock or draws a random number.
//! A request is decided against the book (`charge`, `refund`, `void`) and the decision's entry, if
//! it has one, is then applied. Applying the entries of a ledger file in their order gives the same
//! book again, which is how the gateway survives a restart.
//!
//! Invariant: `0 <= refunded <= approved_amount <= amount`, and the money this gateway holds for a
//! charge is `approved_amount - refunded`, whatever the charge's status.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An identifier chosen by the caller. It is opaque to a gateway, so it need not be a UUID.
pub(crate) type Id = Arc<str>;

/// How a charge is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Method {
    /// From the customer's balance with the shop.
    Balance,
    /// By card.
    Card,
    /// By bank transfer.
    BankTransfer,
}

/// What has become of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ChargeStatus {
    /// Money was taken: `approved_amount` of it, which may be less than was asked for.
    Approved,
    /// No money was taken.
    Declined,
    /// Given back by a void, or voided before it arrived.
    Voided,
}

/// A request to take money, already checked for its form. Amounts are in the currency's minor unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChargeOrder {
    /// The caller's identifier and idempotency key.
    pub(crate) charge_id: Id,
    /// What the charge is for: the order's identifier.
    pub(crate) reference: Id,
    pub(crate) amount: i64,
    pub(crate) method: Method,
}

/// A charge, as `GET /charges/{charge_id}` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Charge {
    /// What was asked for.
    #[serde(flatten)]
    pub(crate) order: ChargeOrder,
    /// What was taken. A void lowers it to what had been refunded by then.
    pub(crate) approved_amount: i64,
    /// What the refunds have given back.
    pub(crate) refunded: i64,
    /// What has become of the charge.
    pub(crate) status: ChargeStatus,
    /// When the gateway decided the charge.
    pub(crate) created_at: Timestamp,
}

/// A request to give money back, already checked for its form; also its answer, which holds nothing that later refunds
/// change, so that a repeat equals the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefundOrder {
    pub(crate) charge_id: Id,
    pub(crate) refund_id: Id,
    pub(crate) amount: i64,
}

/// What the card network, so to speak, says to a new charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Approve,
    Decline,
    /// Half of the amount, rounded down, is approved.
    Partial,
}

/// One line of the ledger file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(crate) enum Entry {
    Charge(Charge),
    Refund {
        #[serde(flatten)]
        order: RefundOrder,
        at: Timestamp,
    },
    Void {
        charge_id: Id,
        at: Timestamp,
    },
}

/// The answer to `POST /charges` and to a void.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChargeAnswer {
    pub(crate) charge_id: Id,
    pub(crate) status: ChargeStatus,
    pub(crate) approved_amount: i64,
}

/// What is to be written down, if anything, and what is then answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision<A> {
    /// `None` when the request is a repeat, or only reads.
    pub(crate) entry: Option<Entry>,
    pub(crate) answer: A,
}

/// Why a request has no effect. The texts are shown to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no charge {0}")]
    UnknownCharge(Id),
    #[error("{0} was used before, with other contents")]
    Reused(Id),
    #[error("the charge is not approved, so there is nothing to refund")]
    NotRefundable,
    #[error("only {left} of the charge can still be refunded")]
    ExceedsCharge { left: i64 },
}

/// An entry that contradicts the ones before it: a damaged ledger file, or a bug in a decision.
#[derive(Debug, thiserror::Error)]
#[error("the entry contradicts the ones before it")]
pub(crate) struct Contradiction;

/// Every charge there is, in the order of arrival, and the ways to find one.
#[derive(Default)]
pub(crate) struct Book {
    charges: IndexMap<Id, Charge>,
    /// Positions in `charges`.
    by_reference: HashMap<Id, Vec<usize>>,
    refunds: HashMap<Id, RefundOrder>,
    /// Voids whose charge has not arrived.
    voided_ahead: HashSet<Id>,
}

impl Book {
    /// How many charges there are.
    pub(crate) fn len(&self) -> usize {
        self.charges.len()
    }

    pub(crate) fn find(&self, charge_id: &str) -> Option<&Charge> {
        self.charges.get(charge_id)
    }

    /// The charges of one reference, in the order of their arrival.
    pub(crate) fn of_reference(&self, reference: &str) -> impl Iterator<Item = &Charge> {
        let positions = self.by_reference.get(reference);
        positions.into_iter().flatten().map(|&at| &self.charges[at])
    }

    /// At most `limit` charges from position `start` on. A charge keeps its position for ever, so
    /// pages skip and repeat nothing while charges arrive.
    pub(crate) fn page(&self, start: usize, limit: usize) -> Vec<Charge> {
        self.charges.values().skip(start).take(limit).cloned().collect()
    }

    /// Decides a charge; `verdict` counts only if the charge is new and was not voided ahead.
    ///
    /// A repeat answers with what the charge is now: the first answer, unless it has been voided
    /// since. To answer APPROVED to a charge whose money is back would have an order paid by nothing.
    pub(crate) fn charge(
        &self,
        order: &ChargeOrder,
        verdict: Verdict,
        at: Timestamp,
    ) -> Result<Decision<ChargeAnswer>, Refusal> {
        if let Some(known) = self.find(&order.charge_id) {
            if known.order != *order {
                return Err(Refusal::Reused(order.charge_id.clone()));
            }
            return Ok(Decision { entry: None, answer: ChargeAnswer::of(known) });
        }
        let (status, approved_amount) = if self.voided_ahead.contains(&order.charge_id) {
            (ChargeStatus::Voided, 0)
        } else {
            match verdict {
                Verdict::Approve => (ChargeStatus::Approved, order.amount),
                Verdict::Decline => (ChargeStatus::Declined, 0),
                Verdict::Partial => (ChargeStatus::Approved, order.amount / 2),
            }
        };
        let charge = Charge { order: order.clone(), approved_amount, refunded: 0, status, created_at: at };
        Ok(Decision { answer: ChargeAnswer::of(&charge), entry: Some(Entry::Charge(charge)) })
    }

    /// Decides a refund. A repeat answers as the first did, even if the charge was voided since.
    pub(crate) fn refund(
        &self,
        order: &RefundOrder,
        at: Timestamp,
    ) -> Result<Decision<RefundOrder>, Refusal> {
        if let Some(known) = self.refunds.get(&order.refund_id) {
            if known != order {
                return Err(Refusal::Reused(order.refund_id.clone()));
            }
            return Ok(Decision { entry: None, answer: order.clone() });
        }
        let charge =
            self.find(&order.charge_id).ok_or_else(|| Refusal::UnknownCharge(order.charge_id.clone()))?;
        if charge.status != ChargeStatus::Approved {
            return Err(Refusal::NotRefundable);
        }
        let left = charge.approved_amount - charge.refunded;
        if order.amount > left {
            return Err(Refusal::ExceedsCharge { left });
        }
        let entry = Entry::Refund { order: order.clone(), at };
        Ok(Decision { entry: Some(entry), answer: order.clone() })
    }

    /// Decides a void, which is never refused: afterwards the charge is VOIDED, whatever it was,
    /// and no money of it is left here. Of a partly refunded charge the void gives back the rest.
    /// A void of an unknown charge is remembered, for the charge may still be on its way.
    pub(crate) fn void(&self, charge_id: &Id, at: Timestamp) -> Decision<ChargeAnswer> {
        let known = self.find(charge_id);
        let is_done = match known {
            Some(charge) => charge.status == ChargeStatus::Voided,
            None => self.voided_ahead.contains(charge_id),
        };
        let entry = (!is_done).then(|| Entry::Void { charge_id: charge_id.clone(), at });
        let answer = ChargeAnswer {
            charge_id: charge_id.clone(),
            status: ChargeStatus::Voided,
            approved_amount: known.map_or(0, |charge| charge.refunded),
        };
        Decision { entry, answer }
    }

    /// Takes an entry into the book.
    ///
    /// # Errors
    /// If the entry contradicts the book, which no entry does that was decided against this book.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<(), Contradiction> {
        match entry {
            Entry::Charge(charge) => self.apply_charge(charge),
            Entry::Refund { order, .. } => self.apply_refund(order),
            Entry::Void { charge_id, .. } => {
                self.apply_void(charge_id);
                Ok(())
            }
        }
    }

    fn apply_charge(&mut self, charge: &Charge) -> Result<(), Contradiction> {
        let ChargeOrder { charge_id, reference, .. } = &charge.order;
        if self.charges.contains_key(charge_id) {
            return Err(Contradiction);
        }
        self.voided_ahead.remove(charge_id);
        self.by_reference.entry(reference.clone()).or_default().push(self.charges.len());
        self.charges.insert(charge_id.clone(), charge.clone());
        Ok(())
    }

    fn apply_refund(&mut self, order: &RefundOrder) -> Result<(), Contradiction> {
        let charge = self.charges.get_mut(&order.charge_id).ok_or(Contradiction)?;
        let is_new = !self.refunds.contains_key(&order.refund_id);
        if !is_new || order.amount > charge.approved_amount - charge.refunded {
            return Err(Contradiction);
        }
        charge.refunded += order.amount;
        self.refunds.insert(order.refund_id.clone(), order.clone());
        Ok(())
    }

    fn apply_void(&mut self, charge_id: &Id) {
        match self.charges.get_mut(charge_id) {
            Some(charge) => {
                charge.status = ChargeStatus::Voided;
                charge.approved_amount = charge.refunded;
            }
            None => {
                self.voided_ahead.insert(charge_id.clone());
            }
        }
    }
}

impl ChargeAnswer {
    fn of(charge: &Charge) -> Self {
        Self {
            charge_id: charge.order.charge_id.clone(),
            status: charge.status,
            approved_amount: charge.approved_amount,
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
