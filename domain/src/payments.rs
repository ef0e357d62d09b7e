//! Payments: what is asked of the gateway, and what its answer does to the balance.
//!
//! An order has a charge for its placing and one for every modification that made it dearer. What is asked of the
//! gateway stands in the payment's state before the gateway is asked, so that whoever takes over asks the same.

mod gateway;

use std::collections::BTreeMap;

use jiff::Timestamp;
use ordermill_schemas::balances::{
    BalanceCaptured, BalanceCharged, BalanceHeld, BalanceOpened, BalanceRefunded, BalanceReleased,
};
use ordermill_schemas::orders::{Failure, FailureCode, OrderPaymentDue, PaymentMethod};
use ordermill_schemas::payments::{
    PaymentCompleted, PaymentFailed, PaymentRefunded, PaymentRefunding, PaymentRequested, PaymentVoiding,
    RefundPart,
};
use ordermill_schemas::{Event, Money, Topic};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::aggregate::{Aggregate, Follows, Kind, documents, is_default};
use crate::capability::{Capability, Decided, Reacts};
use crate::times;

pub use gateway::{GatewayResult, GatewayTask, Outcome};

/// A user's money.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// What can be spent.
    pub available: Money,
    /// What is held for orders that are being paid.
    pub held: Money,
    /// How many events its history has.
    pub sequence: i32,
    /// When it last changed.
    #[serde(with = "times::required")]
    pub updated_at: Timestamp,
}

impl Aggregate for Balance {
    const KIND: Kind = Kind {
        follows: Some(Follows::Member {
            of: Payment::NOUN,
            member: "user_id",
            given: Some(("method", "BALANCE")),
        }),
        sums: &["available", "held"],
        ..Kind::new("balances", "balance")
    };
    type Bulk = ();

    fn check(&self, _before: Option<&Balance>) -> Result<(), &'static str> {
        if self.available < 0 || self.held < 0 { Err("it would be below zero") } else { Ok(()) }
    }
}

/// What became of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ChargeState {
    /// The gateway is being asked.
    Requested,
    /// Nobody waits for the charge any more, and the gateway is being asked to take it back.
    Voiding,
    /// The charge was approved, or there was nothing to pay.
    Completed,
    /// The charge was not made, and will not be.
    Failed,
}

/// A charge of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Its ordinal: the round of the order that it pays for.
    pub number: i32,
    /// Its id at the gateway.
    pub charge_id: Uuid,
    /// How much.
    pub amount: Money,
    /// How much of it was paid back.
    pub refunded: Money,
    /// What became of it.
    pub state: ChargeState,
}

/// Money that is being paid back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// The round of the order that it is for.
    pub round: i32,
    /// Which charges it is taken from.
    pub parts: Vec<RefundPart>,
}

/// Since when the gateway is being asked for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The ordinal of the payment's event that it follows from.
    pub sequence: i32,
    /// When that happened.
    #[serde(with = "times::required")]
    pub at: Timestamp,
}

/// An order's payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Who pays.
    pub user_id: Uuid,
    /// How.
    pub method: PaymentMethod,
    /// The charges, oldest first; at least one, and only the last can be undecided.
    pub charges: Vec<Charge>,
    /// The refund that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund: Option<Refund>,
    /// The last round that was paid back, in whole or part; 0 before any.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refund_round: i32,
    /// What the gateway is asked for; absent where it has nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// How many events its history has.
    pub sequence: i32,
}

impl Aggregate for Payment {
    const KIND: Kind = Kind {
        part_of: Some(Topic::Orders.name()),
        counted_by: Some("charges[last].state"),
        sums: &["charges[*].amount", "charges[*].refunded"],
        ..Kind::new("payments", "payment")
    };
    type Bulk = ();
}

impl Payment {
    fn new(user_id: Uuid, method: PaymentMethod) -> Payment {
        let (charges, refund, refund_round, asked, sequence) = (Vec::new(), None, 0, None, 0);
        Payment { user_id, method, charges, refund, refund_round, asked, sequence }
    }

    /// The payment after an event of its history.
    fn evolve(&mut self, event: &Event, at: Timestamp) {
        let before = self.task();
        match event {
            Event::PaymentRequested(e) => {
                self.set_charge(new_charge(e.order_id, e.charge_number, e.amount, ChargeState::Requested));
            }
            Event::PaymentVoiding(e) => {
                if let Some(charge) = self.charge_mut(e.charge_number) {
                    charge.state = ChargeState::Voiding;
                }
            }
            Event::PaymentCompleted(e) => {
                self.set_charge(new_charge(e.order_id, e.charge_number, e.amount, ChargeState::Completed));
            }
            // A charge that the balance did not cover was never requested, so it is new here and has no amount.
            Event::PaymentFailed(e) => {
                self.set_charge(new_charge(e.order_id, e.charge_number, 0, ChargeState::Failed));
            }
            Event::PaymentRefunding(e) => {
                self.refund_round = e.round;
                self.refund = Some(Refund { round: e.round, parts: e.parts.clone() });
            }
            Event::PaymentRefunded(e) => {
                self.refund_round = e.round;
                for part in self.refund.take().map(|refund| refund.parts).unwrap_or_default() {
                    if let Some(charge) = self.charge_mut(part.charge_number) {
                        charge.refunded += part.amount;
                    }
                }
            }
            _ => {}
        }
        self.sequence += 1;
        let task = self.task();
        if task != before {
            self.asked = task.map(|_| Asked { sequence: self.sequence, at });
        }
    }

    /// Of a charge that is known only the state changes.
    fn set_charge(&mut self, charge: Charge) {
        match self.charge_mut(charge.number) {
            Some(known) => known.state = charge.state,
            None => self.charges.push(charge),
        }
    }

    fn charge_mut(&mut self, number: i32) -> Option<&mut Charge> {
        self.charges.iter_mut().find(|charge| charge.number == number)
    }

    /// What was paid, in all.
    #[must_use]
    pub fn paid(&self) -> Money {
        let completed = self.charges.iter().filter(|charge| charge.state == ChargeState::Completed);
        completed.map(|charge| charge.amount).sum()
    }

    fn last_number(&self) -> i32 {
        self.charges.last().map_or(0, |charge| charge.number)
    }

    fn charge(&self, number: i32) -> Option<&Charge> {
        self.charges.iter().find(|charge| charge.number == number)
    }

    /// Which charges an amount is taken from, the newest first: card schemes refund recent charges most readily.
    fn refund_parts(&self, round: i32, mut amount: Money) -> Vec<RefundPart> {
        let mut parts = Vec::new();
        for charge in self.charges.iter().rev().filter(|charge| charge.state == ChargeState::Completed) {
            let part = amount.min(charge.amount - charge.refunded);
            if part > 0 {
                amount -= part;
                parts.push(RefundPart {
                    refund_id: refund_id(charge.charge_id, round),
                    charge_id: charge.charge_id,
                    charge_number: charge.number,
                    amount: part,
                });
            }
        }
        parts
    }
}

/// Balances by user and payments by order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payments {
    /// The time at which is decided.
    pub now: Timestamp,
    /// The payments, by order id.
    pub payments: BTreeMap<Uuid, Payment>,
    /// The balances, by user id.
    pub balances: BTreeMap<Uuid, Balance>,
}

documents! { Payments { payments: Payment, balances: Balance } }

/// The round of an order's placing, and the number of its charge.
const PLACING: i32 = 1;

impl Reacts for Payments {
    const READS: &'static [Topic] = &[Topic::Orders];

    fn keys(event: &Event) -> Vec<(&'static str, Uuid)> {
        match event {
            Event::OrderPaymentDue(due) if due.payment_method == PaymentMethod::Balance => {
                vec![(Payment::NOUN, due.order_id), (Balance::NOUN, due.user_id)]
            }
            Event::OrderPaymentDue(_)
            | Event::OrderRejecting(_)
            | Event::OrderCancelling(_)
            | Event::OrderModificationApplying(_)
            | Event::OrderModificationRefusing(_) => vec![(Payment::NOUN, event.key())],
            _ => Vec::new(),
        }
    }

    fn react(&mut self, event: &Event, _at: Timestamp) -> Vec<Decided> {
        let decision = match event {
            Event::OrderPaymentDue(due) => self.request(due),
            Event::OrderRejecting(order) => {
                let due = order.charge_due.then_some(&order.failure);
                self.undo(order.order_id, order.user_id, PLACING, due)
            }
            Event::OrderModificationRefusing(order) => {
                let due = order.charge_due.then_some(&order.failure);
                self.undo(order.order_id, order.user_id, order.round, due)
            }
            Event::OrderModificationApplying(order) if order.refund > 0 => {
                self.refund(order.order_id, order.round, order.refund)
            }
            Event::OrderCancelling(order) => self.refund(order.order_id, order.round, Money::MAX),
            _ => Vec::new(),
        };
        self.record(decision)
    }
}

/// The id of an order's n-th charge: derived, so that whoever asks again asks for the same charge.
#[must_use]
pub fn charge_id(order_id: Uuid, charge_number: i32) -> Uuid {
    Uuid::new_v5(&order_id, format!("charge:{charge_number}").as_bytes())
}

/// The id of what is paid back of a charge in a round: derived, so that it is paid back once.
#[must_use]
pub fn refund_id(charge_id: Uuid, round: i32) -> Uuid {
    Uuid::new_v5(&charge_id, format!("refund:{round}").as_bytes())
}

impl Payments {
    fn request(&self, due: &OrderPaymentDue) -> Vec<Event> {
        let OrderPaymentDue { order_id, user_id, charge_number, amount, payment_method: method } = *due;
        if charge_number <= self.payments.get(&order_id).map_or(0, Payment::last_number) {
            return Vec::new();
        }
        if amount == 0 {
            let (charge_id, attempts) = (None, Vec::new());
            let nothing =
                PaymentCompleted { order_id, user_id, charge_id, charge_number, amount, method, attempts };
            return vec![nothing.into()];
        }
        let charge_id = charge_id(order_id, charge_number);
        let request = PaymentRequested { order_id, user_id, charge_id, charge_number, amount, method }.into();
        if method != PaymentMethod::Balance {
            return vec![request];
        }
        let (available, held) = self.money_of(user_id);
        if available < amount {
            let detail = format!("the balance has {available} of the {amount} that are due");
            let failure = Failure { code: FailureCode::InsufficientBalance, detail };
            return vec![never_asked(order_id, user_id, charge_number, failure)];
        }
        let (available, held) = (available - amount, held + amount);
        vec![BalanceHeld { user_id, order_id, amount, available, held }.into(), request]
    }

    /// Takes back what was charged in a round, whether that is decided yet or not. `due` is why the order is refused that
    /// waits for a charge: one that was never asked for here, since that was discarded as a dead letter, fails.
    fn undo(&self, order_id: Uuid, user_id: Uuid, round: i32, due: Option<&Failure>) -> Vec<Event> {
        let known = self.payments.get(&order_id).and_then(|payment| Some((payment, payment.charge(round)?)));
        let Some((payment, charge)) = known else {
            let failed = |failure: &Failure| never_asked(order_id, user_id, round, failure.clone());
            return due.map(failed).into_iter().collect();
        };
        match charge.state {
            ChargeState::Requested => {
                let (user_id, charge_id) = (payment.user_id, charge.charge_id);
                vec![PaymentVoiding { order_id, user_id, charge_id, charge_number: round }.into()]
            }
            ChargeState::Completed => self.refund(order_id, round, charge.amount),
            ChargeState::Voiding | ChargeState::Failed => Vec::new(),
        }
    }

    /// Pays back so much of what was paid, or all of it where that is less.
    fn refund(&self, order_id: Uuid, round: i32, amount: Money) -> Vec<Event> {
        let Some(payment) = self.payments.get(&order_id) else { return Vec::new() };
        if round <= payment.refund_round {
            return Vec::new();
        }
        let (user_id, method) = (payment.user_id, payment.method);
        let parts = payment.refund_parts(round, amount);
        if parts.is_empty() {
            let (amount, attempts) = (0, Vec::new());
            return vec![PaymentRefunded { order_id, user_id, round, amount, method, attempts }.into()];
        }
        let amount = parts.iter().map(|part| part.amount).sum();
        vec![PaymentRefunding { order_id, user_id, round, amount, parts }.into()]
    }

    /// Puts money into a balance; nothing where there is none.
    pub fn charge(&mut self, user_id: Uuid, amount: Money) -> Option<Decided> {
        let balance = self.balances.get(&user_id)?;
        let (available, held) = (balance.available.checked_add(amount)?, balance.held);
        self.record([BalanceCharged { user_id, amount, available, held }.into()]).pop()
    }

    /// Opens the balance of a new user, at 0.
    pub fn open(&mut self, user_id: Uuid) -> Vec<Decided> {
        self.record([BalanceOpened { user_id }.into()])
    }

    fn set_balance(&mut self, user_id: Uuid, available: Money, held: Money, at: Timestamp) {
        let balance = self.balances.entry(user_id).or_default();
        (balance.available, balance.held, balance.updated_at) = (available, held, at);
        balance.sequence += 1;
    }

    fn money_of(&self, user_id: Uuid) -> (Money, Money) {
        self.balances.get(&user_id).map_or((0, 0), |balance| (balance.available, balance.held))
    }
}

impl Capability for Payments {
    const TOPIC: Topic = Topic::Payments;

    fn now(&mut self) -> &mut Timestamp {
        &mut self.now
    }

    fn sequence(&self, event: &Event) -> i32 {
        let key = event.key();
        match event.topic() {
            Topic::Payments => self.payments.get(&key).map_or(0, |payment| payment.sequence),
            _ => self.balances.get(&key).map_or(0, |balance| balance.sequence),
        }
    }

    fn evolve(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::BalanceOpened(e) => self.set_balance(e.user_id, 0, 0, at),
            Event::BalanceCharged(e) => self.set_balance(e.user_id, e.available, e.held, at),
            Event::BalanceHeld(e) => self.set_balance(e.user_id, e.available, e.held, at),
            Event::BalanceCaptured(e) => self.set_balance(e.user_id, e.available, e.held, at),
            Event::BalanceReleased(e) => self.set_balance(e.user_id, e.available, e.held, at),
            Event::BalanceRefunded(e) => self.set_balance(e.user_id, e.available, e.held, at),
            Event::PaymentRequested(PaymentRequested { order_id, user_id, method, .. })
            | Event::PaymentCompleted(PaymentCompleted { order_id, user_id, method, .. }) => {
                let payment = self.payments.entry(*order_id);
                payment.or_insert_with(|| Payment::new(*user_id, *method)).evolve(event, at);
            }
            Event::PaymentFailed(e) => {
                let payment = self.payments.entry(e.order_id);
                payment.or_insert_with(|| Payment::new(e.user_id, PaymentMethod::Balance)).evolve(event, at);
            }
            Event::PaymentVoiding(_) | Event::PaymentRefunding(_) | Event::PaymentRefunded(_) => {
                if let Some(payment) = self.payments.get_mut(&event.key()) {
                    payment.evolve(event, at);
                }
            }
            _ => {}
        }
    }
}

/// A charge fails that the gateway is not asked for.
fn never_asked(order_id: Uuid, user_id: Uuid, charge_number: i32, failure: Failure) -> Event {
    let (charge_id, attempts) = (None, Vec::new());
    PaymentFailed { order_id, user_id, charge_id, charge_number, failure, attempts }.into()
}

fn new_charge(order_id: Uuid, number: i32, amount: Money, state: ChargeState) -> Charge {
    Charge { number, charge_id: charge_id(order_id, number), amount, refunded: 0, state }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(number: i32, amount: Money, refunded: Money, state: ChargeState) -> Charge {
        Charge { refunded, ..new_charge(Uuid::nil(), number, amount, state) }
    }

    fn payment(charges: Vec<Charge>) -> Payment {
        Payment {
            user_id: Uuid::nil(),
            method: PaymentMethod::Card,
            charges,
            refund: None,
            refund_round: 0,
            asked: None,
            sequence: 1,
        }
    }

    fn parts(payment: &Payment, amount: Money) -> Vec<(i32, Money)> {
        payment.refund_parts(9, amount).iter().map(|part| (part.charge_number, part.amount)).collect()
    }

    #[test]
    fn money_is_paid_back_from_the_newest_charge_first() {
        let payment = payment(vec![
            charge(1, 500, 0, ChargeState::Completed),
            charge(2, 0, 0, ChargeState::Failed),
            charge(3, 200, 50, ChargeState::Completed),
        ]);
        assert_eq!(parts(&payment, 100), [(3, 100)]);
        assert_eq!(parts(&payment, 150), [(3, 150)]);
        assert_eq!(parts(&payment, 400), [(3, 150), (1, 250)]);
        assert_eq!(parts(&payment, Money::MAX), [(3, 150), (1, 500)]);
        assert_eq!(payment.paid(), 700);
    }

    #[test]
    fn ids_at_the_gateway_are_the_same_for_whoever_derives_them_and_different_for_each_round() {
        let order_id = Uuid::from_u128(1);
        assert_eq!(charge_id(order_id, 1), charge_id(order_id, 1));
        assert_ne!(charge_id(order_id, 1), charge_id(order_id, 2));
        assert_ne!(refund_id(charge_id(order_id, 1), 2), refund_id(charge_id(order_id, 1), 3));
    }
}
