//! Callbacks: the gateway tells the shop how a charge was decided.
//!
//! They are a courtesy, never a promise. What waits is bounded and kept in memory only, so a callback
//! can come late, twice or (queue full, receiver down, gateway restarted) never; whoever needs to know
//! asks the gateway. That keeps them out of the way of the charges: to announce one is a `try_send`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use reqwest::{Client, Url};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::book::Charge;
use crate::signature::{SIGNATURE_HEADER, sign};

const QUEUE_MAX: usize = 10_000;
const CONCURRENCY_MAX: usize = 32;
const ATTEMPTS_MAX: u32 = 4;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after the first attempt; it doubles with every further one.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Where callbacks go, and what they are signed with.
pub(crate) struct CallbackTarget {
    url: Url,
    secret: Vec<u8>,
}

/// Why callbacks can't be sent. The texts say what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallbackError {
    /// The URL can't be parsed.
    #[error("the callback URL {0:?} is not a URL; give one like http://127.0.0.1:8080/v1/payments/callbacks")]
    NotAUrl(String),
    /// The URL isn't plain `http`.
    #[error(
        "the callback URL {0:?} is not http; this gateway is a mock without TLS and calls plain http only"
    )]
    NotHttp(String),
    /// The secret is empty.
    #[error(
        "callbacks need a secret; give --callback-secret or set ORDERMILL_CALLBACK_SECRET, or give --callbacks off"
    )]
    NoSecret,
}

impl CallbackTarget {
    /// Checks a URL and a secret.
    ///
    /// # Errors
    /// If the URL isn't a plain `http` one, or the secret is empty.
    pub(crate) fn new(url: &str, secret: &str) -> Result<Self, CallbackError> {
        let parsed = Url::parse(url).map_err(|_| CallbackError::NotAUrl(url.to_owned()))?;
        if parsed.scheme() != "http" {
            return Err(CallbackError::NotHttp(url.to_owned()));
        }
        if secret.is_empty() {
            return Err(CallbackError::NoSecret);
        }
        Ok(Self { url: parsed, secret: secret.into() })
    }
}

/// The queue of callbacks.
pub(crate) struct Callbacks {
    queue: mpsc::Sender<Bytes>,
    lost: Arc<Lost>,
}

impl Callbacks {
    /// Starts to send what will be announced, until `stop`; what then waits is dropped.
    ///
    /// # Errors
    /// If the HTTP client can't be built.
    pub(crate) fn start(
        target: CallbackTarget,
        first_pause: Duration,
        stop: CancellationToken,
    ) -> reqwest::Result<Self> {
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ATTEMPT_TIMEOUT)
            .pool_max_idle_per_host(CONCURRENCY_MAX)
            .build()?;
        let lost = Arc::new(Lost::default());
        let courier = Arc::new(Courier { client, target, first_pause, lost: lost.clone() });
        let (queue, mut waiting) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(async move {
            let bodies = stream::poll_fn(|context| waiting.poll_recv(context));
            let delivery = bodies.for_each_concurrent(CONCURRENCY_MAX, |body| courier.clone().deliver(body));
            stop.run_until_cancelled(delivery).await
        });
        Ok(Self { queue, lost })
    }

    /// Has a charge's decision sent `times` times. Never waits.
    pub(crate) fn announce(&self, charge: &Charge, times: u8) {
        // One that is sent twice has one id.
        let body = json!({
            "event_id": Uuid::now_v7(),
            "charge_id": charge.order.charge_id,
            "reference": charge.order.reference,
            "status": charge.status,
            "approved_amount": charge.approved_amount,
            "at": charge.created_at,
        });
        let body = Bytes::from(body.to_string());
        for _ in 0..times {
            if self.queue.try_send(body.clone()).is_err() {
                self.lost.count("the queue is full or closed");
            }
        }
    }
}

/// Counts callbacks that will not come, and says so at 1, 2, 4, 8…: a receiver that is down for long
/// must not fill the log.
#[derive(Default)]
struct Lost(AtomicU64);

impl Lost {
    fn count(&self, reason: &str) {
        let lost = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        if lost.is_power_of_two() {
            tracing::warn!(lost, reason, "callbacks are being lost");
        }
    }
}

/// Sends single callbacks.
struct Courier {
    client: Client,
    target: CallbackTarget,
    first_pause: Duration,
    lost: Arc<Lost>,
}

impl Courier {
    async fn deliver(self: Arc<Self>, body: Bytes) {
        let mut pause = self.first_pause;
        for attempt in 1.. {
            let (failure, is_final) = match self.attempt(body.clone()).await {
                Ok(status) if status.is_success() => return,
                Ok(status) => (format!("the receiver answered {status}"), is_final(status)),
                Err(error) => (error.to_string(), false),
            };
            if is_final || attempt == ATTEMPTS_MAX {
                return self.lost.count(&failure);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Signs and sends, anew each time, for a signature ages.
    async fn attempt(&self, body: Bytes) -> reqwest::Result<StatusCode> {
        let signature = sign(&self.target.secret, Timestamp::now().as_second(), &body);
        let response = self
            .client
            .post(self.target.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(SIGNATURE_HEADER, signature)
            .body(body)
            .send()
            .await?;
        let status = response.status();
        // Read to its end, or the connection can't be used again.
        response.bytes().await?;
        Ok(status)
    }
}

/// A receiver that says the request itself is wrong will say so again.
fn is_final(status: StatusCode) -> bool {
    let may_pass = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    !status.is_server_error() && !may_pass.contains(&status)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::post;
    use serde_json::Value;
    use tokio_util::sync::DropGuard;

    use super::*;
    use crate::book::{ChargeOrder, ChargeStatus, Method};

    const SECRET: &str = "a secret of the tests";
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A receiver that answers the given statuses in turn, then 200.
    struct Receiver {
        callbacks: Callbacks,
        received: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
        _stop: DropGuard,
    }

    impl Receiver {
        async fn answering(statuses: &'static [u16]) -> Self {
            let (sender, received) = mpsc::unbounded_channel();
            let calls = Arc::new(AtomicU64::new(0));
            let receive = move |headers: HeaderMap, body: Bytes| async move {
                sender.send((headers, body)).unwrap();
                let call = calls.fetch_add(1, Ordering::Relaxed) as usize;
                StatusCode::from_u16(statuses.get(call).copied().unwrap_or(200)).unwrap()
            };
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/callbacks", listener.local_addr().unwrap());
            let router = Router::new().route("/callbacks", post(receive));
            tokio::spawn(async move { axum::serve(listener, router).await });

            let stop = CancellationToken::new();
            let target = CallbackTarget::new(&url, SECRET).unwrap();
            let pause = Duration::from_millis(1);
            let callbacks = Callbacks::start(target, pause, stop.clone()).unwrap();
            Self { callbacks, received, _stop: stop.drop_guard() }
        }

        async fn next(&mut self) -> (HeaderMap, Value) {
            let received = tokio::time::timeout(PATIENCE, self.received.recv()).await;
            let (headers, body) = received.unwrap().unwrap();
            let signature = headers[SIGNATURE_HEADER].to_str().unwrap();
            let seconds = signature[2..].split(',').next().unwrap().parse().unwrap();
            assert_eq!(signature, sign(SECRET.as_bytes(), seconds, &body));
            let body = serde_json::from_slice(&body).unwrap();
            (headers, body)
        }
    }

    fn charge(id: &str) -> Charge {
        let (charge_id, reference, method) = (id.into(), "order".into(), Method::Card);
        Charge {
            order: ChargeOrder { charge_id, reference, amount: 100, method },
            approved_amount: 50,
            refunded: 0,
            status: ChargeStatus::Approved,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn a_callback_says_how_the_charge_was_decided_and_is_signed() {
        let mut receiver = Receiver::answering(&[]).await;
        receiver.callbacks.announce(&charge("a"), 1);
        let (headers, mut body) = receiver.next().await;
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert!(body.as_object_mut().unwrap().remove("event_id").is_some());
        let expected = json!({
            "charge_id": "a", "reference": "order", "status": "APPROVED",
            "approved_amount": 50, "at": "1970-01-01T00:00:00Z",
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn a_duplicate_comes_twice_with_one_event_id_and_a_dropped_one_not_at_all() {
        let mut receiver = Receiver::answering(&[]).await;
        receiver.callbacks.announce(&charge("dropped"), 0);
        receiver.callbacks.announce(&charge("a"), 2);
        let (_, first) = receiver.next().await;
        let (_, second) = receiver.next().await;
        assert_eq!(first["charge_id"], "a");
        assert_eq!(first, second);
    }

    #[tokio::test]
    async fn a_callback_is_repeated_while_the_receiver_fails() {
        let mut receiver = Receiver::answering(&[500, 503, 429]).await;
        receiver.callbacks.announce(&charge("a"), 1);
        let (_, first) = receiver.next().await;
        for _ in 1..ATTEMPTS_MAX {
            assert_eq!(receiver.next().await.1, first);
        }
    }

    #[tokio::test]
    async fn a_callback_that_is_refused_is_given_up_at_once() {
        let receiver = Receiver::answering(&[401]).await;
        receiver.callbacks.announce(&charge("a"), 1);
        // A second attempt would be answered 200, and nothing would ever be lost.
        let is_lost = async {
            while receiver.callbacks.lost.0.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, is_lost).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_queue_loses_callbacks_rather_than_time() {
        let (queue, _waiting) = mpsc::channel(1);
        let lost = Arc::new(Lost::default());
        let callbacks = Callbacks { queue, lost: lost.clone() };
        callbacks.announce(&charge("a"), 2);
        assert_eq!(lost.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_target_is_plain_http_and_has_a_secret() {
        let target = CallbackTarget::new;
        assert!(target("http://127.0.0.1:1/x", SECRET).is_ok());
        assert!(matches!(target("nonsense", SECRET), Err(CallbackError::NotAUrl(_))));
        assert!(matches!(target("https://shop.test/", SECRET), Err(CallbackError::NotHttp(_))));
        assert!(matches!(target("http://shop.test/", ""), Err(CallbackError::NoSecret)));
    }
}
