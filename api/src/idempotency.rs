//! What a key that was used before means: the first answer is given again.
//!
//! The answer is kept in the transaction that does the work, so there is never one without the other. While a
//! first request runs, this process knows its key; between processes the database's unique key decides.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ordermill_store::idempotency::{FirstAnswer, Kept, KeptBody, Request};
use serde::Serialize;
use uuid::Uuid;

use crate::problem::{Code, Problem};
use crate::routes::orders::view::OrderView;

/// The header that tells a repetition's answer from a first one.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The keys whose first requests run in this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunningKeys(Arc<Mutex<HashSet<Uuid>>>);

/// A key that is running until this is dropped.
#[derive(Debug)]
pub(crate) struct RunningKey {
    id: Uuid,
    keys: RunningKeys,
}

impl RunningKeys {
    /// Claims a key; `None` where a request of it runs already.
    pub(crate) fn claim(&self, request: &Request) -> Option<RunningKey> {
        let id = request.id();
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(id).then(|| RunningKey { id, keys: self.clone() })
    }
}

impl Drop for RunningKey {
    fn drop(&mut self) {
        self.keys.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// What a key that was used before means for a request.
///
/// # Errors
/// `IDEMPOTENCY_KEY_REUSED` where it was used for another body.
pub(crate) fn replay(kept: Kept, request: &Request) -> Result<Answer, Problem> {
    if kept.body_hash != request.body_hash {
        let detail = "this Idempotency-Key was used for another body; take a new key for a new request";
        return Err(Problem::new(Code::IdempotencyKeyReused, detail));
    }
    let (location, body) = match kept.body {
        KeptBody::Text(text) => (kept.location, text),
        // As it was then: no deadline had passed.
        KeptBody::Accepted(order) => {
            let (order_id, at) = (order.purchase.order_id, order.purchase.created_at);
            (Some(location_of(order_id)), serde_json::to_string(&OrderView::of(*order, at))?)
        }
    };
    Ok(Answer { first: FirstAnswer { status: kept.status, location, body }, is_replay: true })
}

/// Where an order is found.
pub(crate) fn location_of(order_id: Uuid) -> String {
    format!("/v1/orders/{order_id}")
}

/// The refusal of a request whose key is running.
pub(crate) fn in_use() -> Problem {
    let detail = "a request with this Idempotency-Key still runs; repeat this one when it has ended";
    Problem::new(Code::IdempotencyKeyInUse, detail)
}

/// An answer to a request with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The answer to the first request of the key.
    pub(crate) first: FirstAnswer,
    /// This request is not the first.
    pub(crate) is_replay: bool,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = u16::try_from(self.first.status).ok().and_then(|code| StatusCode::from_u16(code).ok());
        let mut response = Response::new(Body::from(self.first.body));
        *response.status_mut() = status.unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(location) = self.first.location.and_then(|location| HeaderValue::try_from(location).ok())
        {
            headers.insert(header::LOCATION, location);
        }
        if self.is_replay {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// The answer to the first request of a key.
///
/// # Errors
/// None in practice: views are plain data with text keys.
pub(crate) fn first_answer(
    status: i16,
    location: Option<String>,
    view: &impl Serialize,
) -> Result<FirstAnswer, Problem> {
    Ok(FirstAnswer { status, location, body: serde_json::to_string(view)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &str) -> Request {
        Request {
            caller: "admin".to_owned(),
            route: "POST /v1/products".to_owned(),
            key: key.to_owned(),
            body_hash: vec![1],
        }
    }

    fn kept() -> Kept {
        let location = Some("/v1/products/1".to_owned());
        Kept { body_hash: vec![1], status: 201, location, body: KeptBody::Text("{}".to_owned()) }
    }

    #[test]
    fn a_key_runs_once_at_a_time_and_can_run_again_afterwards() {
        let keys = RunningKeys::default();
        let running = keys.claim(&request("k"));
        assert!(running.is_some());
        assert!(keys.claim(&request("k")).is_none());
        assert!(keys.claim(&request("other")).is_some());
        drop(running);
        assert!(keys.claim(&request("k")).is_some());
    }

    #[test]
    fn the_same_body_gets_the_first_answer_again_and_another_is_refused() {
        let response = replay(kept(), &request("k")).unwrap().into_response();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()[header::LOCATION], "/v1/products/1");
        assert_eq!(response.headers()["idempotency-replayed"], "true");
        let other = Request { body_hash: vec![2], ..request("k") };
        assert_eq!(replay(kept(), &other).unwrap_err().code(), Code::IdempotencyKeyReused);
    }

    #[test]
    fn a_first_answer_does_not_claim_to_be_a_replay() {
        let response =
            Answer { first: replay(kept(), &request("k")).unwrap().first, is_replay: false }.into_response();
        assert!(!response.headers().contains_key("idempotency-replayed"));
    }
}
