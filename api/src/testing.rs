//! What tests of the router share: a front whose database and broker are not there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request};
use jiff::tz::TimeZone;
use ordermill_pipeline::authenticity::RootSecret;
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::journal::Journal;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_pipeline::wake::Wake;
use prometheus_client::registry::Registry;
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{Api, ApiConfig, ApiMetrics};

/// The secret that callbacks are signed with.
pub(crate) const CALLBACK_SECRET: &str = "secret";
/// A program on this machine, as the front sees it.
pub(crate) const THIS_MACHINE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Nothing listens there.
const NOWHERE: &str = "127.0.0.1:1";

/// What a front needs.
pub(crate) struct Parts {
    pub(crate) journal: Journal,
    pub(crate) config: ApiConfig,
    pub(crate) metrics: ApiMetrics,
    pub(crate) registry: Arc<Registry>,
}

/// The parts of a front whose database and broker do not answer.
pub(crate) fn parts_without_database() -> Parts {
    let pool = PgPoolOptions::new()
        .acquire_timeout(Duration::from_millis(100))
        .connect_lazy(&format!("postgres://nobody@{NOWHERE}/nothing"))
        .unwrap();
    let journal = Journal::new(pool, Clock::system(), Wake::default(), 12);
    let mut registry = Registry::with_prefix("ordermill");
    let metrics = ApiMetrics::register(&mut registry);
    let kafka = KafkaConfig::new(NOWHERE, "", RootSecret::generate().unwrap().into());
    let config = ApiConfig::new(kafka, CALLBACK_SECRET, TimeZone::UTC);
    Parts { journal, config, metrics, registry: Arc::new(registry) }
}

/// A front whose database and broker do not answer.
pub(crate) fn api_without_database() -> Api {
    api_without_database_with(|_| {})
}

/// The same with another configuration.
pub(crate) fn api_without_database_with(change: impl FnOnce(&mut ApiConfig)) -> Api {
    let Parts { journal, mut config, metrics, registry } = parts_without_database();
    change(&mut config);
    Api::start(journal, config, metrics, registry, &CancellationToken::new()).unwrap()
}

/// What the front answered.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of a problem, in the form that tests compare with.
    pub(crate) fn code(&self) -> &'static str {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text());
        Box::leak(self.json()["code"].as_str().unwrap().to_owned().into_boxed_str())
    }
}

/// Sends a request through the router, as from this machine.
pub(crate) async fn ask(
    router: &Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Received {
    ask_from(router, THIS_MACHINE, method, path, headers, body).await
}

/// The same from another address.
pub(crate) async fn ask_from(
    router: &Router,
    peer: IpAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Received {
    let mut request = Request::builder().method(method).uri(path);
    request = request.extension(ConnectInfo(SocketAddr::new(peer, 40_000)));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Received { status: parts.status.as_u16(), headers: parts.headers, body }
}
