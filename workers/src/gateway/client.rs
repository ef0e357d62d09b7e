//! The payment gateway over HTTP. No answer means unknown, never failed.

use std::time::Duration;

use ordermill_schemas::Money;
use ordermill_schemas::orders::PaymentMethod;
use ordermill_schemas::payments::RefundPart;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::json;
use thiserror::Error;
use uuid::Uuid;

/// The gateway's address can't be used.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// It is not a URL.
    #[error("the gateway's address {url:?} is not a URL like http://127.0.0.1:8090")]
    Address {
        /// What was given.
        url: String,
    },
    /// No HTTP client could be made.
    #[error("no HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

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

/// A client of the gateway. Cloning shares its connections.
#[derive(Clone, Debug)]
pub(crate) struct GatewayClient {
    client: Client,
    charges: Url,
}

impl GatewayClient {
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<GatewayClient, GatewayError> {
        let wrong = || GatewayError::Address { url: url.to_owned() };
        let mut charges: Url = url.parse().map_err(|_| wrong())?;
        charges.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().push("charges");
        let client = Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(256)
            .no_proxy()
            .build()?;
        Ok(GatewayClient { client, charges })
    }

    /// Asks for a charge; again and again under one id it is one charge.
    pub(crate) async fn charge(&self, charge: Charge, traceparent: &str) -> Answer {
        let sent = self.client.post(self.charges.clone()).json(&charge);
        let absent = Answer::Refused("the gateway has no place for charges".to_owned());
        send(sent, traceparent, |state: ChargeState| state.answer(charge.amount), absent).await
    }

    /// Asks what became of a charge.
    pub(crate) async fn look_up(&self, charge: Charge, traceparent: &str) -> Answer {
        let sent = self.client.get(self.of(charge.charge_id, None));
        let done = |state: ChargeState| state.answer(charge.amount);
        send(sent, traceparent, done, Answer::Absent).await
    }

    /// Takes a charge back, whether it was made or not.
    pub(crate) async fn void(&self, charge_id: Uuid, traceparent: &str) -> Answer {
        let sent = self.client.post(self.of(charge_id, Some("void")));
        let absent = Answer::Refused("the gateway has no place for voids".to_owned());
        send(sent, traceparent, |_: IgnoredAny| Answer::Voided, absent).await
    }

    /// Pays back a part of a charge; again and again under one id it is paid back once.
    pub(crate) async fn refund(&self, part: &RefundPart, traceparent: &str) -> Answer {
        let body = json!({"refund_id": part.refund_id, "amount": part.amount});
        let sent = self.client.post(self.of(part.charge_id, Some("refunds"))).json(&body);
        let absent = Answer::Refused("the gateway does not know the charge".to_owned());
        send(sent, traceparent, |_: IgnoredAny| Answer::Refunded, absent).await
    }

    fn of(&self, charge_id: Uuid, action: Option<&str>) -> Url {
        let mut url = self.charges.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(&charge_id.to_string()).extend(action);
        }
        url
    }
}

/// What a call has brought: what `answer` makes of the body, or `absent` where what it is about does not exist.
async fn send<T: DeserializeOwned>(
    request: RequestBuilder,
    traceparent: &str,
    answer: impl FnOnce(T) -> Answer,
    absent: Answer,
) -> Answer {
    let unknown = |error: reqwest::Error| Answer::Unknown(error.without_url().to_string());
    let response = match request.header("traceparent", traceparent).send().await {
        Ok(response) => response,
        Err(error) => return unknown(error),
    };
    match response.status() {
        StatusCode::NOT_FOUND => absent,
        status if status.is_success() => response.json().await.map_or_else(unknown, answer),
        // These two ask to come again; every other status of the kind says that the request is wrong.
        status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => {
            Answer::Unknown(format!("status {status}"))
        }
        status if status.is_client_error() => Answer::Refused(format!("status {status}")),
        status => Answer::Unknown(format!("status {status}")),
    }
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
    fn an_address_that_is_no_url_is_refused() {
        let error = GatewayClient::new("not a url", Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("not a url"));
    }
}
