//! A front on a database of its own, whoever calls it, and what they ask about.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ordermill_api::{Api, ApiConfig, ApiMetrics, Run, Verifier, hash_key, router};
use ordermill_pipeline::audit::Report;
use ordermill_pipeline::authenticity::RootSecret;
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::journal::Journal;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_pipeline::wake::Wake;
use ordermill_pipeline::{database, relay, topics};
use ordermill_schemas::Topic;
use ordermill_stack::TestStack;
use ordermill_store::keys::{self, NewKey};
use ordermill_store::migrations;
use prometheus_client::registry::Registry;
use serde_json::Value;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::table::{CLAIM, COUPON, ORDER, PRODUCT, Route, USER};

const ADMIN_KEY: &str = "om_the_key_of_an_administrator_0123456789";
/// An administrator's: were it not refused, it would open everything.
const REVOKED_KEY: &str = "om_a_key_that_was_revoked_0123456789";
const UNKNOWN_KEY: &str = "om_a_key_of_nobody_0123456789";
const CALLBACK_SECRET: &str = "secret of the tests";
const PARTITIONS: i16 = 1;
/// Everybody asks from elsewhere: to programs on the same machine some routes answer without a key.
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), 50_000);
/// How long an answer may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Without a key.
    Nobody,
    /// With a key that there is not.
    UnknownKey,
    /// With a key that was revoked.
    RevokedKey,
    /// With a right signature, and no key.
    Gateway,
    /// A customer who has nothing to do with it.
    Stranger,
    /// The customer whose it is.
    Owner,
    /// An administrator.
    Admin,
}

impl Caller {
    pub(crate) const ALL: [Caller; 7] = [
        Caller::Nobody,
        Caller::UnknownKey,
        Caller::RevokedKey,
        Caller::Gateway,
        Caller::Stranger,
        Caller::Owner,
        Caller::Admin,
    ];
}

/// A customer, and what stands for the names in braces in a request about what is theirs.
#[derive(Clone)]
pub(crate) struct Things {
    key: String,
    names: BTreeMap<&'static str, String>,
}

impl Things {
    /// The text with what the names stand for.
    fn fill(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// The same with ids that nobody has in the place of what is the customer's.
    pub(crate) fn of_nobody(&self) -> Things {
        let mut things = self.clone();
        for name in ["{user_id}", "{order_id}", "{claim_id}"] {
            things.names.insert(name, new_id());
        }
        things
    }
}

/// What was answered. Of a stream only that it was begun: it does not end by itself.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The code of a problem. An answer to HEAD has none, since it has no body.
    pub(crate) fn code(&self) -> Option<String> {
        let is_problem = self.header("content-type") == Some("application/problem+json");
        (is_problem && !self.body.is_empty()).then(|| text(&self.json(), "code"))
    }

    /// All that a client sees of a problem, but the id of its request.
    pub(crate) fn without_its_request(&self) -> (u16, HeaderMap, Value) {
        let (mut headers, mut body) = (self.headers.clone(), self.json());
        headers.remove("x-request-id");
        body["instance"] = Value::Null;
        (self.status, headers, body)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A front with a product, a coupon and a customer; no relay and no worker runs beside it.
pub(crate) struct Shop {
    router: Router,
    shutdown: CancellationToken,
    /// What all requests name alike.
    names: BTreeMap<&'static str, String>,
    stranger_key: String,
}

impl Shop {
    pub(crate) async fn open() -> Shop {
        let stack = TestStack::shared().await;
        let pool = database::connect(&stack.fresh_database().await, "test", 8).await.unwrap();
        migrations::run(&pool).await.unwrap();
        relay::install(&pool, None, PARTITIONS).await.unwrap();
        let secrets = RootSecret::generate().unwrap().into();
        let kafka = KafkaConfig::new(&stack.kafka_brokers, &stack.fresh_prefix(), secrets);
        kafka.keyring.open(&pool).await.unwrap();
        topics::ensure::<Topic>(&kafka, PARTITIONS, &[]).await.unwrap();
        make_keys(&pool).await;
        let shutdown = CancellationToken::new();
        let router = front(pool, kafka, &shutdown);
        let mut shop = Shop { router, shutdown, names: BTreeMap::new(), stranger_key: String::new() };
        let product = shop.make(ADMIN_KEY, "/v1/products", PRODUCT).await;
        let coupon = shop.make(ADMIN_KEY, "/v1/coupons", COUPON).await;
        shop.names = BTreeMap::from([
            ("{product_id}", text(&product, "product_id")),
            ("{coupon_id}", text(&coupon, "coupon_id")),
            ("{group}", "stock".to_owned()),
            ("{*rest}", "swagger-ui.css".to_owned()),
        ]);
        for unknown in ["{shipment_id}", "{user_coupon_id}", "{dead_letter_id}", "{replay_id}"] {
            shop.names.insert(unknown, new_id());
        }
        shop.stranger_key = shop.sign_up().await.key;
        shop
    }

    pub(crate) fn close(self) {
        self.shutdown.cancel();
    }

    /// A customer who has signed up, and what the route names of theirs. Each request gets others, so none depends on another.
    pub(crate) async fn things_for(&self, route: &Route) -> Things {
        let mut things = self.sign_up().await;
        for (name, path, body, id) in [
            ("{order_id}", "/v1/orders", ORDER, "order_id"),
            ("{claim_id}", "/v1/coupons/{coupon_id}/claims", CLAIM, "claim_id"),
        ] {
            if route.path.contains(name) {
                let made = self.make(&things.key, &things.fill(path), &things.fill(body)).await;
                things.names.insert(name, text(&made, id));
            }
        }
        things.names.insert("{email}", new_email());
        things
    }

    async fn sign_up(&self) -> Things {
        let user = self.make(UNKNOWN_KEY, "/v1/users", &USER.replace("{email}", &new_email())).await;
        let mut names = self.names.clone();
        names.insert("{user_id}", text(&user, "user_id"));
        Things { key: text(&user, "api_key"), names }
    }

    /// What a request has made that has to succeed.
    async fn make(&self, key: &str, path: &str, body: &str) -> Value {
        let headers = [bearer(key), ("idempotency-key", new_id())];
        let answer = self.send("POST", path, &headers, body.to_owned()).await;
        assert!((200..300).contains(&answer.status), "POST {path}: {answer:?}");
        answer.json()
    }

    /// Sends the route's request as that caller, by that method.
    pub(crate) async fn ask(&self, caller: Caller, method: &str, route: &Route, things: &Things) -> Answer {
        let (path, body) = (things.fill(route.path), things.fill(route.body));
        assert!(!path.contains('{'), "{path} names what `Shop` knows nothing of");
        let mut headers = vec![("idempotency-key", new_id()), ("if-match", "\"1\"".to_owned())];
        headers.extend(match caller {
            Caller::Nobody => None,
            Caller::UnknownKey => Some(bearer(UNKNOWN_KEY)),
            Caller::RevokedKey => Some(bearer(REVOKED_KEY)),
            Caller::Gateway => Some(("ordermill-signature", signature(&body))),
            Caller::Stranger => Some(bearer(&self.stranger_key)),
            Caller::Owner => Some(bearer(&things.key)),
            Caller::Admin => Some(bearer(ADMIN_KEY)),
        });
        self.send(method, &path, &headers, body).await
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, String)], body: String) -> Answer {
        let mut request = Request::builder().method(method).uri(path).extension(ConnectInfo(ELSEWHERE));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let answered = async {
            let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
            let mut answer =
                Answer { status: parts.status.as_u16(), headers: parts.headers, body: Vec::new() };
            if answer.header("content-type") != Some("text/event-stream") {
                answer.body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
            }
            answer
        };
        let answered = tokio::time::timeout(DEADLINE, answered).await;
        answered.unwrap_or_else(|_| panic!("{method} {path} is not answered within {DEADLINE:?}"))
    }

    /// Every route of the router, as it says itself: its paths where it is printed, since axum tells them in no other way, and
    /// the methods of each where a request has one that no route has.
    pub(crate) async fn routes(&self) -> BTreeSet<String> {
        let printed = format!("{:?}", self.router);
        let (_, paths) = printed.split_once("Node { paths: {").expect("axum prints the paths of a router");
        let (paths, _) =
            paths.split_once("fallback_router").expect("axum prints the routes before the fallback");
        let mut routes = BTreeSet::new();
        for path in paths.split('"').skip(1).step_by(2) {
            let named = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
            let answer = self.send("BREW", &named.collect::<Vec<_>>().join("/"), &[], String::new()).await;
            let mut methods: BTreeSet<&str> = answer.header("allow").unwrap_or_default().split(',').collect();
            // Who takes GET takes HEAD.
            if methods.contains("GET") {
                methods.remove("HEAD");
            }
            routes.extend(methods.into_iter().map(|method| format!("{method} {path}")));
        }
        routes
    }
}

/// The keys of two administrators, of whom one is none any more.
async fn make_keys(pool: &PgPool) {
    let now = Clock::system().now();
    for (key, name) in [(ADMIN_KEY, "minji"), (REVOKED_KEY, "gone")] {
        let new = NewKey { name: name.parse().unwrap(), user_id: None, expires_at: None };
        keys::create(pool, &hash_key(key), &new, now).await.unwrap();
    }
    keys::revoke(pool, &"gone".parse().unwrap(), now).await.unwrap();
}

fn front(pool: PgPool, kafka: KafkaConfig, shutdown: &CancellationToken) -> Router {
    let journal = Journal::new(pool, Clock::system(), Wake::default(), PARTITIONS);
    let mut config = ApiConfig::new(kafka, CALLBACK_SECRET, TimeZone::UTC);
    let nothing_to_see = || -> Run { Box::pin(async { Ok(Report::new(Vec::new(), Timestamp::UNIX_EPOCH)) }) };
    let verifier: Verifier = Arc::new(nothing_to_see);
    config.verifier = Some(verifier);
    // All customers sign up from one address.
    config.rate_limits.sign_ups = None;
    let mut registry = Registry::with_prefix("ordermill");
    let metrics = ApiMetrics::register(&mut registry);
    router(Api::start(journal, config, metrics, Arc::new(registry), shutdown).unwrap())
}

fn bearer(key: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {key}"))
}

/// The gateway's signature of a body.
fn signature(body: &str) -> String {
    let unix_s = Timestamp::now().as_second();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(CALLBACK_SECRET.as_bytes()).unwrap();
    mac.update(format!("{unix_s}.{body}").as_bytes());
    format!("t={unix_s},v1={}", hex::encode(mac.finalize().into_bytes()))
}

fn new_id() -> String {
    Uuid::new_v4().to_string()
}

fn new_email() -> String {
    format!("{}@example.com", Uuid::new_v4().simple())
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_else(|| panic!("{value} has no text {member}")).to_owned()
}
