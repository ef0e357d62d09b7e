//! The payment gateway over HTTP. No answer means unknown, never failed.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use ordermill_schemas::Money;
use ordermill_schemas::orders::PaymentMethod;
use ordermill_schemas::payments::RefundPart;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::http::{GatewayError, GatewayHttp, with_causes};

/// What a call has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The whole amount is charged.
    Approved,
    /// Only this much is charged.
    Partial(Money),
    /// Nothing is charged.
    Declined,
    /// The charge is taken back, or will never be made.
    Voided,
    /// The gateway has no such charge.
    Absent,
    /// The money is paid back.
    Refunded,
    /// The gateway answers that it will not do this, which it should.
    Refused(String),
    /// Nobody knows; to be asked again.
    Unknown(String),
}

impl Answer {
    /// As the timeline and the figures call it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Answer::Approved => "APPROVED",
            Answer::Partial(_) => "PARTIAL",
            Answer::Declined => "DECLINED",
            Answer::Voided => "VOIDED",
            Answer::Absent => "ABSENT",
            Answer::Refunded => "REFUNDED",
            Answer::Refused(_) => "REFUSED",
            Answer::Unknown(_) => "UNKNOWN",
        }
    }
}

/// A charge as it is asked for.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Charge {
    pub(crate) charge_id: Uuid,
    pub(crate) amount: Money,
    pub(crate) method: PaymentMethod,
    #[serde(rename = "reference")]
    pub(crate) order_id: Uuid,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ChargeStatus {
    Approved,
    Declined,
    Voided,
}

#[derive(Deserialize)]
struct ChargeState {
    status: ChargeStatus,
    approved_amount: Money,
}

impl ChargeState {
    fn answer(&self, asked: Money) -> Answer {
        match self.status {
            ChargeStatus::Approved if self.approved_amount == asked => Answer::Approved,
            ChargeStatus::Approved => Answer::Partial(self.approved_amount),
            ChargeStatus::Declined => Answer::Declined,
            ChargeStatus::Voided => Answer::Voided,
        }
    }
}

/// How long an answer may be, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// A client of the gateway. Cloning shares its connections.
#[derive(Clone, Debug)]
pub(crate) struct GatewayClient {
    http: GatewayHttp,
    /// Where charges are, without a slash at the end.
    charges: String,
    timeout: Duration,
}

impl GatewayClient {
    pub(crate) fn new(
        url: &str,
        ca_file: Option<&Path>,
        timeout: Duration,
    ) -> Result<GatewayClient, GatewayError> {
        let http = GatewayHttp::new(url, ca_file, timeout)?;
        Ok(GatewayClient { http, charges: format!("{}/charges", url.trim_end_matches('/')), timeout })
    }

    /// Asks for a charge; again and again under one id it is one charge.
    pub(crate) async fn charge(&self, charge: Charge, traceparent: &str) -> Answer {
        let absent = Answer::Refused("the gateway has no place for charges".to_owned());
        let request = self.post(&self.charges, traceparent, &charge);
        self.send(request, |state: ChargeState| state.answer(charge.amount), absent).await
    }

    /// Asks what became of a charge.
    pub(crate) async fn look_up(&self, charge: Charge, traceparent: &str) -> Answer {
        let url = format!("{}/{}", self.charges, charge.charge_id);
        let request = request(Method::GET, &url, traceparent, Vec::new());
        self.send(request, |state: ChargeState| state.answer(charge.amount), Answer::Absent).await
    }

    /// Takes a charge back, whether it was made or not.
    pub(crate) async fn void(&self, charge_id: Uuid, traceparent: &str) -> Answer {
        let url = format!("{}/{charge_id}/void", self.charges);
        let absent = Answer::Refused("the gateway has no place for voids".to_owned());
        let request = request(Method::POST, &url, traceparent, Vec::new());
        self.send(request, |_: IgnoredAny| Answer::Voided, absent).await
    }

    /// Pays back a part of a charge; again and again under one id it is paid back once.
    pub(crate) async fn refund(&self, part: &RefundPart, traceparent: &str) -> Answer {
        let url = format!("{}/{}/refunds", self.charges, part.charge_id);
        let body = json!({"refund_id": part.refund_id, "amount": part.amount});
        let absent = Answer::Refused("the gateway does not know the charge".to_owned());
        let request = self.post(&url, traceparent, &body);
        self.send(request, |_: IgnoredAny| Answer::Refunded, absent).await
    }

    fn post(&self, url: &str, traceparent: &str, body: &impl Serialize) -> Built {
        let body = serde_json::to_vec(body).map_err(|error| Answer::Refused(error.to_string()))?;
        request(Method::POST, url, traceparent, body)
    }

    /// What a call has brought: what `answer` makes of the body, or `absent` where what it is about does not exist.
    async fn send<T: DeserializeOwned>(
        &self,
        request: Built,
        answer: impl FnOnce(T) -> Answer,
        absent: Answer,
    ) -> Answer {
        let answered = async {
            let response = self.http.send(request?).await.map_err(unknown)?;
            let status = response.status();
            if status.is_success() {
                let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
                let body = body.map_err(|error| Answer::Unknown(error.to_string()))?.to_bytes();
                return serde_json::from_slice(&body).map(answer).map_err(unknown);
            }
            Err(match status {
                StatusCode::NOT_FOUND => absent,
                // These two ask to come again; every other status of the kind says that the request is wrong.
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                    Answer::Unknown(format!("status {status}"))
                }
                status if status.is_client_error() => Answer::Refused(format!("status {status}")),
                status => Answer::Unknown(format!("status {status}")),
            })
        };
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(answer) | Err(answer)) => answer,
            Err(_) => Answer::Unknown(format!("no answer within {:?}", self.timeout)),
        }
    }
}

/// A request, or what its call comes to without one.
type Built = Result<Request<Full<Bytes>>, Answer>;

fn request(method: Method, url: &str, traceparent: &str, body: Vec<u8>) -> Built {
    let mut request = Request::builder()
        .method(method)
        .uri(url)
        .header("traceparent", traceparent)
        .header(header::ACCEPT, "application/json");
    // Some servers refuse an empty body that is said to be JSON.
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request.body(Full::from(body)).map_err(|error| Answer::Refused(error.to_string()))
}

/// An error says nothing of what the gateway has done.
fn unknown(error: impl std::error::Error) -> Answer {
    Answer::Unknown(with_causes(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_full_amount_counts_as_approved() {
        let state = |status, approved_amount| ChargeState { status, approved_amount };
        assert_eq!(state(ChargeStatus::Approved, 100).answer(100), Answer::Approved);
        assert_eq!(state(ChargeStatus::Approved, 50).answer(100), Answer::Partial(50));
        assert_eq!(state(ChargeStatus::Declined, 0).answer(100), Answer::Declined);
        assert_eq!(state(ChargeStatus::Voided, 0).answer(100), Answer::Voided);
    }

    #[test]
    fn charges_are_below_the_address() {
        for url in ["http://shop.example/pay/", "http://shop.example/pay"] {
            let client = GatewayClient::new(url, None, Duration::from_secs(1)).unwrap();
            assert_eq!(client.charges, "http://shop.example/pay/charges");
        }
    }
}
