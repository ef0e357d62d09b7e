//! Answers that say what was wrong: `application/problem+json` (RFC 9457) with stable codes.
//!
//! A [`Problem`] travels through the layers as an extension of its response and is written out by
//! `observe.rs`, which knows the request's id.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Display;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ordermill_pipeline::database::{Next, Told, next_after};
use ordermill_pipeline::journal::JournalError;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// The media type of problems.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";
/// What the `type` of every problem begins with; its code follows.
const TYPE_URN: &str = "urn:ordermill:problem:";
/// How long a client should stay away where there is something to wait for.
pub(crate) const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

macro_rules! codes {
    ($($Variant:ident $status:ident $text:literal $title:literal;)*) => {
        /// What was wrong, for programs. The texts are fixed for good; two variants may share one where the
        /// same thing is wrong with a path and with a body.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Code {
            $(#[doc = $title] $Variant,)*
        }

        impl Code {
            /// The text that clients see.
            pub(crate) const fn text(self) -> &'static str {
                match self { $(Code::$Variant => $text,)* }
            }

            /// The same for a person, whatever the request was.
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Code::$Variant => $title,)* }
            }

            /// The HTTP status.
            pub(crate) const fn status(self) -> StatusCode {
                match self { $(Code::$Variant => StatusCode::$status,)* }
            }

            #[cfg(test)]
            const ALL: &[Code] = &[$(Code::$Variant),*];
        }
    };
}

codes! {
    InvalidJson BAD_REQUEST "INVALID_JSON" "The body is not the JSON that is asked for";
    IdempotencyKeyMissing BAD_REQUEST "IDEMPOTENCY_KEY_MISSING" "A valid Idempotency-Key is needed";
    Unauthenticated UNAUTHORIZED "UNAUTHENTICATED" "A valid API key is needed";
    InvalidSignature UNAUTHORIZED "INVALID_SIGNATURE" "The signature is missing, wrong or too old";
    Forbidden FORBIDDEN "FORBIDDEN" "Only for administrators";
    NotFound NOT_FOUND "NOT_FOUND" "There is nothing at this path";
    UserNotFound NOT_FOUND "USER_NOT_FOUND" "There is no such user";
    ProductNotFound NOT_FOUND "PRODUCT_NOT_FOUND" "There is no such product";
    OrderNotFound NOT_FOUND "ORDER_NOT_FOUND" "There is no such order";
    CouponNotFound NOT_FOUND "COUPON_NOT_FOUND" "There is no such coupon";
    ClaimNotFound NOT_FOUND "CLAIM_NOT_FOUND" "There is no such claim";
    UserCouponNotFound NOT_FOUND "USER_COUPON_NOT_FOUND" "There is no such coupon of a user";
    ShipmentNotFound NOT_FOUND "SHIPMENT_NOT_FOUND" "There is no such shipment";
    DeadLetterNotFound NOT_FOUND "DEAD_LETTER_NOT_FOUND" "There is no such dead letter";
    ReplayNotFound NOT_FOUND "REPLAY_NOT_FOUND" "There is no such replay";
    HaltNotFound NOT_FOUND "HALT_NOT_FOUND" "No such group has stopped";
    MethodNotAllowed METHOD_NOT_ALLOWED "METHOD_NOT_ALLOWED" "This path does not take this method";
    RequestTimeout REQUEST_TIMEOUT "REQUEST_TIMEOUT" "The request did not arrive in time";
    EmailTaken CONFLICT "EMAIL_TAKEN" "The e-mail address belongs to another user";
    CouponSoldOut CONFLICT "COUPON_SOLD_OUT" "There is none of this coupon left";
    CouponNotClaimable CONFLICT "COUPON_NOT_CLAIMABLE" "The coupon can't be claimed now";
    CouponAlreadyClaimed CONFLICT "COUPON_ALREADY_CLAIMED" "The user has claimed this coupon before";
    CouponNotUsable CONFLICT "COUPON_NOT_USABLE" "The coupon is used for an order";
    OrderBusy CONFLICT "ORDER_BUSY" "The order can't do that now";
    OrderShipped CONFLICT "ORDER_SHIPPED" "The order was shipped, in part or whole";
    OrderNotCancellable CONFLICT "ORDER_NOT_CANCELLABLE" "The order was refused, so there is nothing to cancel";
    OutOfStock CONFLICT "OUT_OF_STOCK" "There are fewer units than that";
    NothingToShip CONFLICT "NOTHING_TO_SHIP" "The order has less left to ship";
    DeadLetterBusy CONFLICT "DEAD_LETTER_BUSY" "A replay has selected the dead letter";
    DeadLetterSettled CONFLICT "DEAD_LETTER_SETTLED" "The dead letter is done with";
    IdempotencyKeyInUse CONFLICT "IDEMPOTENCY_KEY_IN_USE" "The first request of this key still runs";
    VersionMismatch PRECONDITION_FAILED "VERSION_MISMATCH" "The order has changed since";
    PreconditionRequired PRECONDITION_REQUIRED "PRECONDITION_REQUIRED" "Say which version you have seen";
    RateLimited TOO_MANY_REQUESTS "RATE_LIMITED" "Too many requests, come again later";
    PayloadTooLarge PAYLOAD_TOO_LARGE "PAYLOAD_TOO_LARGE" "The body is too large";
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "UNSUPPORTED_MEDIA_TYPE" "The body must be JSON";
    ValidationFailed UNPROCESSABLE_ENTITY "VALIDATION_FAILED" "Some fields are out of range";
    InvalidAmount UNPROCESSABLE_ENTITY "INVALID_AMOUNT" "The amount is out of range";
    IdempotencyKeyReused UNPROCESSABLE_ENTITY "IDEMPOTENCY_KEY_REUSED" "The key was used for another body";
    OrderedProductNotFound UNPROCESSABLE_ENTITY "PRODUCT_NOT_FOUND" "A product that was ordered is unknown";
    ProductWithdrawn UNPROCESSABLE_ENTITY "PRODUCT_WITHDRAWN" "A product is not for sale any more";
    SelectedDeadLetterNotFound UNPROCESSABLE_ENTITY "DEAD_LETTER_NOT_FOUND" "A dead letter that was selected is unknown";
    Internal INTERNAL_SERVER_ERROR "INTERNAL" "Something is broken here";
    Overloaded SERVICE_UNAVAILABLE "OVERLOADED" "Too busy, try again";
    NotReady SERVICE_UNAVAILABLE "NOT_READY" "Not everything answers";
    VerificationRunning SERVICE_UNAVAILABLE "VERIFICATION_RUNNING" "The verification has not ended yet";
}

/// What may refuse a request: what a route takes of it, a code of its own, or several of these.
pub(crate) trait Refuses {
    /// Adds the codes that it refuses with.
    fn add_codes(codes: &mut Vec<Code>);
}

macro_rules! together {
    ($(($($Part:ident)*))*) => {
        $(impl<$($Part: Refuses),*> Refuses for ($($Part,)*) {
            fn add_codes(_codes: &mut Vec<Code>) {
                $($Part::add_codes(_codes);)*
            }
        })*
    };
}

together! { () (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H I J) }

macro_rules! own {
    ($($Variant:ident)*) => {
        $(
            pub(crate) struct $Variant;

            impl super::Refuses for $Variant {
                fn add_codes(codes: &mut Vec<super::Code>) {
                    codes.push(super::Code::$Variant);
                }
            }
        )*
    };
}

/// The codes that routes have of their own, each as a type.
pub(crate) mod code {
    own! {
        CouponAlreadyClaimed CouponNotClaimable CouponNotUsable CouponSoldOut DeadLetterBusy
        DeadLetterSettled EmailTaken HaltNotFound InvalidAmount InvalidJson InvalidSignature NotReady
        NothingToShip OrderBusy OrderNotCancellable OrderShipped OrderedProductNotFound OutOfStock
        PayloadTooLarge PreconditionRequired ProductWithdrawn RequestTimeout SelectedDeadLetterNotFound
        UserNotFound ValidationFailed VerificationRunning VersionMismatch
    }
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Where it is, like `lines[2].quantity`.
    #[schema(value_type = String, example = "lines[2].quantity")]
    pub(crate) field: Cow<'static, str>,
    /// What is wrong with it, for programs.
    #[schema(value_type = String, example = "OUT_OF_RANGE")]
    pub(crate) code: &'static str,
    /// What is wrong with it, for people.
    #[schema(value_type = String, example = "must be from 1 to 10000")]
    pub(crate) detail: Cow<'static, str>,
}

/// An answer that says what was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    claim_id: Option<Uuid>,
    /// How long to stay away; a second where nothing is said.
    retry_after: Option<Duration>,
}

impl Problem {
    /// What was wrong, for a program and for a person. No error text of the database may get in here.
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem { code, detail: detail.into(), errors: Vec::new(), claim_id: None, retry_after: None }
    }

    /// The same with what is wrong with each field.
    pub(crate) fn with_errors(mut self, errors: Vec<FieldError>) -> Problem {
        self.errors = errors;
        self
    }

    /// The same with the claim that there is already.
    pub(crate) fn with_claim(mut self, claim_id: Uuid) -> Problem {
        self.claim_id = Some(claim_id);
        self
    }

    /// A bug or a broken set-up; whoever answers this has logged why.
    pub(crate) fn internal() -> Problem {
        Problem::new(
            Code::Internal,
            "the request could not be served; quote the instance when you report this",
        )
    }

    /// Too busy, and nothing is wrong with the request.
    pub(crate) fn overloaded() -> Problem {
        Problem::new(Code::Overloaded, "too busy just now; send the same again a little later")
    }

    /// So many orders are before this one that it would not come to rest in time.
    pub(crate) fn overloaded_for(retry_after: Duration) -> Problem {
        let detail =
            "too many orders wait just now; send the same again after the time that Retry-After says";
        Problem { retry_after: Some(retry_after), ..Problem::new(Code::Overloaded, detail) }
    }

    /// Too many requests of whoever has sent this one; `detail` says of whom.
    pub(crate) fn rate_limited(detail: &'static str, retry_after: Duration) -> Problem {
        Problem { retry_after: Some(retry_after), ..Problem::new(Code::RateLimited, detail) }
    }

    /// The code.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// The problem as the answer to the request of that id. What `response` already says in its headers stays.
    pub(crate) fn write_to(&self, response: Response, request_id: Uuid) -> Response {
        let body = ProblemBody {
            r#type: format!("{TYPE_URN}{}", self.code.text()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: &self.detail,
            code: self.code.text(),
            instance: request_id,
            errors: &self.errors,
            claim_id: self.claim_id,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let (mut parts, _) = response.into_parts();
        parts.status = self.code.status();
        // The layers within have counted the bytes of the empty body.
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        match self.code {
            Code::Overloaded
            | Code::RateLimited
            | Code::IdempotencyKeyInUse
            | Code::NotReady
            | Code::VerificationRunning => {
                let seconds = self.retry_after.map(|after| HeaderValue::from(whole_seconds(after)));
                parts.headers.insert(header::RETRY_AFTER, seconds.unwrap_or(RETRY_AFTER_S));
            }
            Code::Unauthenticated => {
                parts.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        Response::from_parts(parts, Body::from(body))
    }
}

/// At least so long, and at least one second: whoever comes earlier comes in vain.
fn whole_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

/// The shape of a problem.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// A name for the kind of problem; it leads nowhere.
    #[schema(example = "urn:ordermill:problem:VALIDATION_FAILED")]
    r#type: String,
    /// The kind of problem, for people.
    title: &'a str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What is wrong with this request, for people.
    detail: &'a str,
    /// The kind of problem, for programs.
    #[schema(example = "VALIDATION_FAILED")]
    code: &'a str,
    /// The request's id, as in the header `X-Request-Id` and in the logs.
    instance: Uuid,
    /// What is wrong with each field, where fields are what is wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<FieldError>, required = false)]
    errors: &'a [FieldError],
    /// The claim that there is already, where a coupon was claimed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    claim_id: Option<Uuid>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Infallible> for Problem {
    fn from(never: Infallible) -> Problem {
        match never {}
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Problem {
        Problem::from(&error)
    }
}

impl From<&sqlx::Error> for Problem {
    fn from(error: &sqlx::Error) -> Problem {
        of_database(next_after(error), &Told(error), "the database refused a statement")
    }
}

impl From<JournalError> for Problem {
    fn from(error: JournalError) -> Problem {
        of_database(error.next(), &error, "what was decided could not be written")
    }
}

/// A database that is away is no bug; anything else is, and `bug` says which.
fn of_database(next: Next, error: &dyn Display, bug: &'static str) -> Problem {
    match next {
        Next::Retry => {
            tracing::warn!(%error, "the database could not serve a request");
            Problem::overloaded()
        }
        Next::Reject | Next::Bug => {
            tracing::error!(%error, "{bug}");
            Problem::internal()
        }
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Problem {
        tracing::error!(%error, "an answer or an event could not be written as JSON");
        Problem::internal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_says_what_was_wrong_in_every_member_of_the_contract() {
        let error = FieldError { field: "name".into(), code: "TOO_LONG", detail: "at most 200".into() };
        let problem = Problem::new(Code::ValidationFailed, "some fields").with_errors(vec![error]);
        let response = problem.write_to(problem.clone().into_response(), Uuid::nil());
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "type": "urn:ordermill:problem:VALIDATION_FAILED",
            "title": "Some fields are out of range",
            "status": 422,
            "detail": "some fields",
            "code": "VALIDATION_FAILED",
            "instance": "00000000-0000-0000-0000-000000000000",
            "errors": [{"field": "name", "code": "TOO_LONG", "detail": "at most 200"}],
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn whoever_should_come_back_is_told_when() {
        for code in Code::ALL {
            let problem = Problem::new(*code, "");
            let response = problem.write_to(problem.clone().into_response(), Uuid::nil());
            let has_retry_after = response.headers().contains_key(header::RETRY_AFTER);
            let is_for_later =
                [429, 503].contains(&code.status().as_u16()) || *code == Code::IdempotencyKeyInUse;
            assert_eq!(has_retry_after, is_for_later, "{code:?}");
        }
    }

    #[test]
    fn whoever_waits_as_long_as_the_header_says_has_waited_long_enough() {
        for (after_ms, seconds) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (59_999, "60")] {
            let problem = Problem::rate_limited("", Duration::from_millis(after_ms));
            let response = problem.write_to(problem.clone().into_response(), Uuid::nil());
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds, "{after_ms} ms");
        }
    }

    #[test]
    fn a_database_that_is_away_is_no_bug_and_its_words_stay_here() {
        let away = Problem::from(sqlx::Error::PoolTimedOut);
        assert_eq!(away, Problem::overloaded());
        let bug = Problem::from(sqlx::Error::ColumnNotFound("secret_column".to_owned()));
        assert_eq!(bug, Problem::internal());
    }
}
