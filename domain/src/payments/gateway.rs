//! What the gateway is to be asked for an order, and what its answer does.

use ordermill_schemas::payments::Attempt;

use crate::capability::Capability as _;

use super::{
    BalanceCaptured, BalanceRefunded, BalanceReleased, Charge, ChargeState, Decided, Event, Failure,
    FailureCode, Money, Payment, PaymentCompleted, PaymentFailed, PaymentMethod, PaymentRefunded, Payments,
    Refund, RefundPart, Uuid,
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
        let last = payment.charges.last();
        let asked = |number: i32| last.filter(|charge| charge.number == number);
        let events = match &outcome.result {
            GatewayResult::Approved(number) => asked(*number)
                .filter(|charge| charge.state == ChargeState::Requested)
                .map(|charge| self.completed(order_id, payment, charge, attempts)),
            GatewayResult::Refused(number, failure) => asked(*number)
                .filter(|charge| matches!(charge.state, ChargeState::Requested | ChargeState::Voiding))
                .map(|charge| self.failed(order_id, payment, charge, failure.clone(), attempts)),
            GatewayResult::Voided(number) => {
                let detail = "the charge was not decided in time and was voided".to_owned();
                let failure = Failure { code: FailureCode::PaymentUnavailable, detail };
                asked(*number)
                    .filter(|charge| charge.state == ChargeState::Voiding)
                    .map(|charge| self.failed(order_id, payment, charge, failure, attempts))
            }
            GatewayResult::Refunded(round) => {
                let refund = payment.refund.as_ref().filter(|refund| refund.round == *round);
                refund.map(|refund| self.refunded(order_id, payment, refund, attempts))
            }
        };
        self.record(events.into_iter().flatten())
    }

    fn completed(
        &self,
        order_id: Uuid,
        payment: &Payment,
        charge: &Charge,
        attempts: Vec<Attempt>,
    ) -> Vec<Event> {
        let (user_id, method, amount) = (payment.user_id, payment.method, charge.amount);
        let captured = self.balance_of(payment).map(|(available, held)| {
            BalanceCaptured { user_id, order_id, amount, available, held: held - amount }.into()
        });
        let (charge_id, charge_number) = (Some(charge.charge_id), charge.number);
        let completed =
            PaymentCompleted { order_id, user_id, charge_id, charge_number, amount, method, attempts };
        captured.into_iter().chain([completed.into()]).collect()
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
        let released = self.balance_of(payment).map(|(available, held)| {
            let (available, held) = (available + amount, held - amount);
            BalanceReleased { user_id, order_id, amount, available, held }.into()
        });
        let (charge_id, charge_number) = (Some(charge.charge_id), charge.number);
        let failed = PaymentFailed { order_id, user_id, charge_id, charge_number, failure, attempts };
        released.into_iter().chain([failed.into()]).collect()
    }

    fn refunded(
        &self,
        order_id: Uuid,
        payment: &Payment,
        refund: &Refund,
        attempts: Vec<Attempt>,
    ) -> Vec<Event> {
        let (user_id, method, round) = (payment.user_id, payment.method, refund.round);
        let amount = refund.parts.iter().map(|part| part.amount).sum();
        let returned = self.balance_of(payment).map(|(available, held)| {
            BalanceRefunded { user_id, order_id, amount, available: available + amount, held }.into()
        });
        let refunded = PaymentRefunded { order_id, user_id, round, amount, method, attempts };
        returned.into_iter().chain([refunded.into()]).collect()
    }

    /// What is available and held of the balance that is paid from, if it is one.
    fn balance_of(&self, payment: &Payment) -> Option<(Money, Money)> {
        (payment.method == PaymentMethod::Balance).then(|| self.money_of(payment.user_id))
    }
}
