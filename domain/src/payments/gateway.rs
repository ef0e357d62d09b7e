//! What the gateway is to be asked for an order, and what its answer does.

use ordermill_schemas::payments::Attempt;

use crate::capability::Capability as _;

use super::{
    BalanceCaptured, BalanceRefunded, BalanceReleased, Charge, ChargeState, Decided, Event, Failure,
    FailureCode, Money, Payment, PaymentCompleted, PaymentFailed, PaymentMethod, PaymentRefunded, Payments,
    RefundPart, Uuid,
};

/// What the gateway is to be asked for an order. There is one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayTask {
    /// To charge.
    Charge {
        /// The ordinal of the charge among the order's.
        number: i32,
        /// Its id.
        charge_id: Uuid,
        /// How much.
        amount: Money,
        /// How.
        method: PaymentMethod,
    },
    /// To take a charge back, whether it was made or not.
    Void {
        /// The ordinal of the charge among the order's.
        number: i32,
        /// Its id.
        charge_id: Uuid,
    },
    /// To pay back.
    Refund {
        /// The round of the order that it is for.
        round: i32,
        /// Which charges it is taken from.
        parts: Vec<RefundPart>,
    },
}

/// What the gateway has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayResult {
    /// The whole amount of the charge of that number was charged.
    Approved(i32),
    /// Nothing was charged, for this reason, and never will be under the id of the charge of that number.
    Refused(i32, Failure),
    /// The charge of that number is taken back, or will never be made.
    Voided(i32),
    /// What was to be paid back in that round is.
    Refunded(i32),
}

/// What the gateway has done, and the calls that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What came of it.
    pub result: GatewayResult,
    /// The calls, oldest first.
    pub attempts: Vec<Attempt>,
}

impl Payment {
    /// What the gateway is to be asked now; `None` where it is not needed.
    #[must_use]
    pub fn task(&self) -> Option<GatewayTask> {
        if let Some(refund) = &self.refund {
            return Some(GatewayTask::Refund { round: refund.round, parts: refund.parts.clone() });
        }
        let charge = self.charges.last()?;
        let (number, charge_id) = (charge.number, charge.charge_id);
        match charge.state {
            ChargeState::Requested => {
                let (amount, method) = (charge.amount, self.method);
                Some(GatewayTask::Charge { number, charge_id, amount, method })
            }
            ChargeState::Voiding => Some(GatewayTask::Void { number, charge_id }),
            ChargeState::Completed | ChargeState::Failed => None,
        }
    }
}

impl Payments {
    /// What follows from what the gateway has done for an order; nothing if it is settled already, or something else is asked
    /// of the gateway meanwhile.
    pub fn settle(&mut self, order_id: Uuid, outcome: &Outcome) -> Vec<Decided> {
        let Some(payment) = self.payments.get(&order_id) else { return Vec::new() };
        let attempts = outcome.attempts.clone();
        let undecided = payment
            .charges
            .last()
            .filter(|charge| matches!(charge.state, ChargeState::Requested | ChargeState::Voiding));
        let events = match (&outcome.result, undecided) {
            (GatewayResult::Approved(number), Some(charge))
                if *number == charge.number && charge.state == ChargeState::Requested =>
            {
                self.completed(order_id, payment, charge, attempts)
            }
            (GatewayResult::Refused(number, failure), Some(charge)) if *number == charge.number => {
                self.failed(order_id, payment, charge, failure.clone(), attempts)
            }
            (GatewayResult::Voided(number), Some(charge))
                if *number == charge.number && charge.state == ChargeState::Voiding =>
            {
                let detail = "the charge was not decided in time and was voided".to_owned();
                let failure = Failure { code: FailureCode::PaymentUnavailable, detail };
                self.failed(order_id, payment, charge, failure, attempts)
            }
            (GatewayResult::Refunded(round), _) => self.refunded(order_id, payment, *round, attempts),
            _ => Vec::new(),
        };
        self.record(events)
    }

    fn completed(
        &self,
        order_id: Uuid,
        payment: &Payment,
        charge: &Charge,
        attempts: Vec<Attempt>,
    ) -> Vec<Event> {
        let (user_id, method, amount) = (payment.user_id, payment.method, charge.amount);
        let mut events = Vec::with_capacity(2);
        if method == PaymentMethod::Balance {
            let (available, held) = self.money_of(user_id);
            let held = held - amount;
            events.push(BalanceCaptured { user_id, order_id, amount, available, held }.into());
        }
        let (charge_id, charge_number) = (Some(charge.charge_id), charge.number);
        events.push(
            PaymentCompleted { order_id, user_id, charge_id, charge_number, amount, method, attempts }.into(),
        );
        events
    }

    fn failed(
        &self,
        order_id: Uuid,
        payment: &Payment,
        charge: &Charge,
        failure: Failure,
        attempts: Vec<Attempt>,
    ) -> Vec<Event> {
        let (user_id, amount) = (payment.user_id, charge.amount);
        let mut events = Vec::with_capacity(2);
        if payment.method == PaymentMethod::Balance {
            let (available, held) = self.money_of(user_id);
            let (available, held) = (available + amount, held - amount);
            events.push(BalanceReleased { user_id, order_id, amount, available, held }.into());
        }
        let (charge_id, charge_number) = (Some(charge.charge_id), charge.number);
        events.push(PaymentFailed { order_id, user_id, charge_id, charge_number, failure, attempts }.into());
        events
    }

    fn refunded(&self, order_id: Uuid, payment: &Payment, round: i32, attempts: Vec<Attempt>) -> Vec<Event> {
        let Some(refund) = payment.refund.as_ref().filter(|refund| refund.round == round) else {
            return Vec::new();
        };
        let (user_id, method) = (payment.user_id, payment.method);
        let amount: Money = refund.parts.iter().map(|part| part.amount).sum();
        let mut events = Vec::with_capacity(2);
        if method == PaymentMethod::Balance {
            let (available, held) = self.money_of(user_id);
            let available = available + amount;
            events.push(BalanceRefunded { user_id, order_id, amount, available, held }.into());
        }
        events.push(PaymentRefunded { order_id, user_id, round, amount, method, attempts }.into());
        events
    }
}
