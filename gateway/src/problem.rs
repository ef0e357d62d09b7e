//! Errors as `application/problem+json` (RFC 9457), in the shape that the API uses too.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::book::Refusal;
use crate::ledger::LedgerError;

/// One field that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    pub(crate) field: &'static str,
    code: &'static str,
    detail: &'static str,
}

impl FieldError {
    pub(crate) fn out_of_range(field: &'static str, detail: &'static str) -> Self {
        Self { field, code: "OUT_OF_RANGE", detail }
    }
}

/// An answer that says what was wrong.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new() }
    }

    pub(crate) fn invalid_json(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_JSON", detail)
    }

    pub(crate) fn invalid_fields(errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::invalid("some fields are out of range") }
    }

    pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_FAILED", detail)
    }

    /// A problem where there are errors.
    pub(crate) fn of_fields(errors: impl IntoIterator<Item = FieldError>) -> Result<(), Self> {
        let errors: Vec<_> = errors.into_iter().collect();
        if errors.is_empty() { Ok(()) } else { Err(Self::invalid_fields(errors)) }
    }

    /// The fault `error` of the behaviour.
    pub(crate) fn injected() -> Self {
        let detail = "the behaviour asks for errors; nothing has happened";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INJECTED_FAULT", detail)
    }

    pub(crate) fn internal() -> Self {
        let detail = "a bug; what has happened is unknown";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", detail)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match refusal {
            Refusal::UnknownCharge(_) => (StatusCode::NOT_FOUND, "CHARGE_NOT_FOUND"),
            Refusal::Reused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED"),
            Refusal::NotRefundable => (StatusCode::CONFLICT, "CHARGE_NOT_REFUNDABLE"),
            Refusal::ExceedsCharge { .. } => (StatusCode::CONFLICT, "REFUND_EXCEEDS_CHARGE"),
        };
        Self::new(status, code, refusal.to_string())
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        let code = match error {
            LedgerError::Refused(refusal) => return refusal.into(),
            LedgerError::Overloaded => "OVERLOADED",
            LedgerError::Closed => "SHUTTING_DOWN",
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let instance = Uuid::now_v7().to_string();
        tracing::debug!(instance, code = self.code, detail = %self.detail, "answered a problem");
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "instance": instance,
        });
        if !self.errors.is_empty() {
            body["errors"] = json!(self.errors);
        }
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
