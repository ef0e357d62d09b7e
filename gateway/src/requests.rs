//! What clients send, and its checks. Everything is checked for its form before any fault is drawn.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::book::{ChargeOrder, Id, RefundOrder};
use crate::problem::{FieldError, Problem};

/// Identifiers are kept for ever, so they are short.
const ID_CHARS_MAX: usize = 64;
const PAGE_DEFAULT: usize = 100;
/// Large, for those who read the whole ledger.
const PAGE_MAX: usize = 10_000;

/// A JSON body, whatever its content type is said to be. What isn't JSON of this shape is refused.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|rejection| match rejection.status() {
            status @ StatusCode::PAYLOAD_TOO_LARGE => {
                Problem::new(status, "PAYLOAD_TOO_LARGE", "a body has at most 64 KiB")
            }
            _ => Problem::invalid_json(rejection.body_text()),
        })?;
        let parsed = serde_json::from_slice(&body);
        parsed.map(Self).map_err(|error| Problem::invalid_json(error.to_string()))
    }
}

/// The charge id of a path.
pub(crate) struct ChargeId(pub(crate) Id);

impl<S: Send + Sync> FromRequestParts<S> for ChargeId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        // A path that isn't UTF-8 holds no id either.
        let id = id.map(|Path(id)| id).unwrap_or_default();
        Problem::of_fields(check_id("charge_id", &id))?;
        Ok(Self(id.into()))
    }
}

/// The body of `POST /charges`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChargeRequest {
    charge_id: String,
    amount: i64,
    method: String,
    reference: String,
}

impl ChargeRequest {
    pub(crate) fn check(self) -> Result<ChargeOrder, Problem> {
        let method = serde_json::from_value(self.method.into()).ok();
        let no_method = || FieldError::out_of_range("method", "must be BALANCE, CARD or BANK_TRANSFER");
        let errors: Vec<_> = [
            check_id("charge_id", &self.charge_id),
            check_amount(self.amount),
            method.is_none().then(no_method),
            check_id("reference", &self.reference),
        ]
        .into_iter()
        .flatten()
        .collect();
        match method {
            Some(method) if errors.is_empty() => Ok(ChargeOrder {
                charge_id: self.charge_id.into(),
                reference: self.reference.into(),
                amount: self.amount,
                method,
            }),
            _ => Err(Problem::invalid_fields(errors)),
        }
    }
}

/// The body of `POST /charges/{charge_id}/refunds`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefundRequest {
    refund_id: String,
    amount: i64,
}

impl RefundRequest {
    pub(crate) fn check(self, charge_id: Id) -> Result<RefundOrder, Problem> {
        let checks = [check_id("refund_id", &self.refund_id), check_amount(self.amount)];
        Problem::of_fields(checks.into_iter().flatten())?;
        Ok(RefundOrder { charge_id, refund_id: self.refund_id.into(), amount: self.amount })
    }
}

/// Which charges a list is to hold: all of one reference, or else a page of the whole ledger, `limit`
/// charges from position `cursor` on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChargeQuery {
    pub(crate) reference: Option<String>,
    #[serde(default)]
    pub(crate) cursor: usize,
    #[serde(default = "page_default")]
    pub(crate) limit: usize,
}

fn page_default() -> usize {
    PAGE_DEFAULT
}

impl<S: Send + Sync> FromRequestParts<S> for ChargeQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<Self>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|rejection| Problem::invalid(rejection.body_text()))?;
        let error = || FieldError::out_of_range("limit", "must be from 1 to 10000");
        Problem::of_fields((!(1..=PAGE_MAX).contains(&query.limit)).then(error))?;
        Ok(query)
    }
}

fn check_id(field: &'static str, id: &str) -> Option<FieldError> {
    let is_visible = id.bytes().all(|byte| byte.is_ascii_graphic());
    let is_id = is_visible && (1..=ID_CHARS_MAX).contains(&id.len());
    let detail = "must have 1 to 64 visible ASCII characters";
    (!is_id).then(|| FieldError::out_of_range(field, detail))
}

fn check_amount(amount: i64) -> Option<FieldError> {
    (amount <= 0).then(|| FieldError::out_of_range("amount", "must be more than 0"))
}
