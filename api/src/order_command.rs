//! What a client has an order do, and how it is answered.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use jiff::{SignedDuration, Timestamp};
use ordermill_domain::orders::{Order, Orders, Refusal};
use uuid::Uuid;

use crate::app::Api;
use crate::auth::Caller;
use crate::etag;
use crate::idempotency::Answer;
use crate::path;
use crate::problem::{Code, Problem};

/// When to ask how far an order is that has something to do, in seconds.
pub(crate) const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

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

/// The answer to a command, with the headers of an order.
pub(crate) fn answer(answer: Answer) -> Response {
    let version = version_in(&answer.first.body);
    let mut response = answer.into_response();
    response.headers_mut().insert(header::ETAG, etag::of_version(version));
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S);
    response
}

/// Where an order is.
pub(crate) fn location(order_id: Uuid) -> HeaderValue {
    let path = format!("/v1/orders/{order_id}");
    HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static("/v1/orders"))
}

/// The version that a kept answer shows.
fn version_in(body: &str) -> i32 {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: i32,
    }
    serde_json::from_str(body).map_or(0, |Versioned { version }| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_answer_tells_its_version() {
        assert_eq!(version_in(r#"{"order_id":"x","version":7}"#), 7);
        assert_eq!(version_in("[]"), 0);
    }

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
