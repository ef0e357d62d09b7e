//! What a client has an order do.

use jiff::{SignedDuration, Timestamp};
use ordermill_domain::orders::{Order, Orders, Refusal};
use uuid::Uuid;

use crate::app::Api;
use crate::auth::Caller;
use crate::path;
use crate::problem::{Code, Problem};

/// The order, where the caller may act for it.
///
/// # Errors
/// `ORDER_NOT_FOUND`.
pub(crate) fn order_of(state: &Orders, caller: Caller, order_id: Uuid) -> Result<&Order, Problem> {
    let order = state.orders.get(&order_id).filter(|order| caller.may_act_for(order.purchase.user_id));
    order.ok_or_else(path::unknown::<path::Order>)
}

impl Api {
    /// Until when what begins at some time should have come to an end.
    pub(crate) fn deadline(&self) -> impl Fn(Timestamp) -> Timestamp + Send + 'static {
        let deadline = SignedDuration::try_from(self.config.order_deadline).unwrap_or(SignedDuration::MAX);
        move |now| now.checked_add(deadline).unwrap_or(Timestamp::MAX)
    }
}

/// Why an order does not do what it is asked for.
pub(crate) fn refusal(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Busy => Problem::new(
            Code::OrderBusy,
            "the order's status does not allow this now; look at the order and try again when it has changed",
        ),
        Refusal::Shipped => {
            Problem::new(Code::OrderShipped, "what was shipped can't be cancelled or changed")
        }
        Refusal::NotCancellable => {
            Problem::new(Code::OrderNotCancellable, "the order was refused; nothing is held or paid for it")
        }
        Refusal::NothingToShip => Problem::new(
            Code::NothingToShip,
            "a line names a product that is not in the order, or more of it than is left to ship",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_code_of_the_contract() {
        for (given, code) in [
            (Refusal::Busy, "ORDER_BUSY"),
            (Refusal::Shipped, "ORDER_SHIPPED"),
            (Refusal::NotCancellable, "ORDER_NOT_CANCELLABLE"),
            (Refusal::NothingToShip, "NOTHING_TO_SHIP"),
        ] {
            let problem = refusal(given);
            assert_eq!((problem.code().text(), problem.code().status().as_u16()), (code, 409));
        }
    }
}
