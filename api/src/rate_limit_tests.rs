//! Tests of the whole router on how often anybody may ask. No allowance fills while a test runs: each takes an hour.

use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use ordermill_store::keys::Identity;
use sqlx::postgres::PgPoolOptions;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::rate_limits::{ForwardedHeader, Networks, Proxies, Rate, RateLimitConfig};
use crate::testing::{Parts, Received, api_without_database_with, ask_from, parts_without_database};
use crate::{Api, router};

const HOUR: Duration = Duration::from_secs(3_600);
const CUSTOMER: (&str, &str) = ("authorization", "Bearer om_customer");
const SECOND_KEY: (&str, &str) = ("authorization", "Bearer om_second");
const OTHER: (&str, &str) = ("authorization", "Bearer om_other");
const ADMIN: (&str, &str) = ("authorization", "Bearer om_admin");
const HERE: &str = "127.0.0.1";
const FIRST: &str = "203.0.113.7";
const SECOND: &str = "203.0.113.8";

/// Nobody is limited, wherever they come from.
fn no_limits() -> RateLimitConfig {
    RateLimitConfig {
        by_address: None,
        by_caller: None,
        sign_ups: None,
        unlimited: Networks::default(),
        proxies: Proxies::default(),
    }
}

/// A router with these limits that knows two keys of a customer, one of another, and an administrator's.
async fn limited(limits: RateLimitConfig) -> Router {
    let api = api_without_database_with(|config| config.rate_limits = limits);
    let customer = Identity::Customer(Uuid::from_u128(1));
    for (key, identity) in [
        ("om_customer", customer),
        ("om_second", customer),
        ("om_other", Identity::Customer(Uuid::from_u128(2))),
        ("om_admin", Identity::Admin("minji".parse().unwrap())),
    ] {
        api.identities.remember(key, identity).await;
    }
    router(api)
}

fn an_hour(count: u32) -> Option<Rate> {
    Rate::new(count, HOUR)
}

async fn get(router: &Router, peer: &str, path: &str, headers: &[(&str, &str)]) -> Received {
    let peer: IpAddr = peer.parse().unwrap();
    ask_from(router, peer, "GET", path, headers, "").await
}

/// A request that is answered without a database: 401 without a key, 422 with a customer's or an administrator's.
async fn ask(router: &Router, peer: &str, headers: &[(&str, &str)]) -> u16 {
    get(router, peer, "/v1/statistics/sales?bucket=x", headers).await.status
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_told_when_to_come_again_whatever_key_it_shows() {
    let router = limited(RateLimitConfig { by_address: an_hour(3), ..no_limits() }).await;
    for headers in [&[][..], &[("authorization", "Basic x")], &[CUSTOMER]] {
        assert_ne!(ask(&router, FIRST, headers).await, 429);
    }
    for headers in [&[][..], &[("authorization", "Bearer om_nobodys")], &[CUSTOMER], &[OTHER]] {
        let answer = get(&router, FIRST, "/v1/orders", headers).await;
        assert_eq!((answer.status, answer.code()), (429, "RATE_LIMITED"));
        let retry_after: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1_000..=1_200).contains(&retry_after), "a third of an hour: {retry_after}");
        assert_eq!(answer.json()["instance"], answer.headers["x-request-id"].to_str().unwrap());
    }
    assert_eq!(ask(&router, SECOND, &[]).await, 401, "another address is not touched");
}

#[tokio::test]
async fn every_path_of_the_shop_counts_and_those_of_operation_do_not_unless_a_key_is_shown() {
    let router = limited(RateLimitConfig { by_address: an_hour(3), ..no_limits() }).await;
    for path in ["/healthz", "/metrics", "/openapi.json", "/docs/", "/nowhere"] {
        for _ in 0..4 {
            assert_ne!(get(&router, FIRST, path, &[]).await.status, 429, "{path}");
        }
    }
    for (path, status) in
        [("/v1/orders", 401), ("/v1/nowhere", 404), ("/v1/users", 405), ("/v1/nowhere", 429)]
    {
        assert_eq!(get(&router, FIRST, path, &[]).await.status, status, "{path}");
    }
    assert_eq!(get(&router, FIRST, "/healthz", &[]).await.status, 200);
    // What needs no key looks at one all the same, so keys could be tried there.
    for (path, status) in [
        ("/metrics", 401),
        ("/nowhere", 404),
        ("/docs/", 200),
        ("/metrics", 429),
        ("/readyz", 429),
        ("/healthz", 200),
    ] {
        let shown = [("authorization", "Basic om_nobodys")];
        assert_eq!(get(&router, SECOND, path, &shown).await.status, status, "{path}");
    }
    assert_eq!(get(&router, SECOND, "/metrics", &[]).await.status, 401);
}

#[tokio::test]
async fn a_customer_has_one_allowance_for_all_keys_and_addresses_and_no_other_customer_pays_for_it() {
    let router = limited(RateLimitConfig { by_caller: an_hour(2), ..no_limits() }).await;
    assert_eq!(ask(&router, FIRST, &[CUSTOMER]).await, 422);
    assert_eq!(ask(&router, SECOND, &[SECOND_KEY]).await, 422);
    for (peer, key) in [(FIRST, CUSTOMER), (SECOND, CUSTOMER), (FIRST, SECOND_KEY)] {
        assert_eq!(ask(&router, peer, &[key]).await, 429);
    }
    assert_eq!(ask(&router, FIRST, &[OTHER]).await, 422);
    assert_eq!(ask(&router, FIRST, &[]).await, 401, "whoever shows no key is no caller");
    for _ in 0..5 {
        assert_eq!(ask(&router, FIRST, &[ADMIN]).await, 422);
    }
}

#[tokio::test]
async fn an_administrator_is_served_from_an_address_for_which_nothing_is_left() {
    let limits = RateLimitConfig {
        by_address: an_hour(1),
        by_caller: an_hour(1),
        sign_ups: an_hour(1),
        ..no_limits()
    };
    let router = limited(limits).await;
    assert_eq!(ask(&router, FIRST, &[]).await, 401);
    assert_eq!(ask(&router, FIRST, &[CUSTOMER]).await, 429);
    for _ in 0..3 {
        assert_eq!(ask(&router, FIRST, &[ADMIN]).await, 422);
        let sign_up = ask_from(&router, FIRST.parse().unwrap(), "POST", "/v1/users", &[ADMIN], "{").await;
        assert_eq!((sign_up.status, sign_up.code()), (400, "INVALID_JSON"));
    }
    assert_eq!(ask(&router, FIRST, &[]).await, 429);
}

#[tokio::test]
async fn whoever_shows_a_key_where_nothing_is_left_is_answered_though_the_database_says_nothing() {
    // It takes connections, and never answers.
    let database = TcpListener::bind((HERE, 0)).unwrap();
    let Parts { mut journal, mut config, metrics, registry } = parts_without_database();
    let url = format!("postgres://nobody@{}/nothing", database.local_addr().unwrap());
    journal.pool = PgPoolOptions::new().acquire_timeout(HOUR).connect_lazy(&url).unwrap();
    config.rate_limits = RateLimitConfig { by_address: an_hour(1), ..no_limits() };
    let router = router(Api::start(journal, config, metrics, registry, &CancellationToken::new()).unwrap());
    assert_eq!(ask(&router, FIRST, &[]).await, 401);
    let answer =
        timeout(Duration::from_secs(20), ask(&router, FIRST, &[("authorization", "Bearer om_nobodys")]));
    assert_eq!(answer.await, Ok(429));
}

#[tokio::test]
async fn signing_up_has_an_allowance_of_its_own_for_each_address() {
    let router = limited(RateLimitConfig { sign_ups: an_hour(2), ..no_limits() }).await;
    let sign_up = async |peer: &str| {
        ask_from(&router, peer.parse().unwrap(), "POST", "/v1/users", &[CUSTOMER], "{").await.status
    };
    assert_eq!((sign_up(FIRST).await, sign_up(FIRST).await, sign_up(FIRST).await), (400, 400, 429));
    assert_eq!(sign_up(SECOND).await, 400);
    // Of version 6 a wider network counts than elsewhere: whoever rents a server has as many smaller ones as they like.
    assert_eq!((sign_up("2001:db8:0:1::1").await, sign_up("2001:db8:0:2::1").await), (400, 400));
    assert_eq!((sign_up("2001:db8:0:3::1").await, sign_up("2001:db8:1:1::1").await), (429, 400));
    assert_eq!(ask(&router, FIRST, &[CUSTOMER]).await, 422, "all else goes on");
    assert_eq!(get(&router, FIRST, "/v1/users/me", &[CUSTOMER]).await.status, 404);
}

#[tokio::test]
async fn this_machine_is_not_limited_unless_somebody_says_so() {
    let tight = RateLimitConfig {
        by_address: an_hour(1),
        by_caller: an_hour(1),
        sign_ups: an_hour(1),
        ..no_limits()
    };
    let router = limited(RateLimitConfig { unlimited: Networks::loopback(), ..tight.clone() }).await;
    for peer in [HERE, "::1", "::ffff:127.0.0.1", "127.9.9.9"] {
        for _ in 0..3 {
            assert_eq!(ask(&router, peer, &[CUSTOMER]).await, 422, "{peer}");
        }
    }
    let router = limited(tight).await;
    assert_eq!(ask(&router, HERE, &[CUSTOMER]).await, 422);
    assert_eq!(ask(&router, HERE, &[CUSTOMER]).await, 429);
}

#[tokio::test]
async fn a_subscriber_of_version_6_is_one_address() {
    let router = limited(RateLimitConfig { by_address: an_hour(1), ..no_limits() }).await;
    assert_eq!(ask(&router, "2001:db8:0:1::1", &[]).await, 401);
    assert_eq!(ask(&router, "2001:db8:0:1:ffff::2", &[]).await, 429);
    assert_eq!(ask(&router, "2001:db8:0:2::1", &[]).await, 401);
    assert_eq!(ask(&router, FIRST, &[]).await, 401);
    assert_eq!(
        ask(&router, &format!("::ffff:{FIRST}"), &[]).await,
        429,
        "an address of version 4 in another form"
    );
}

#[tokio::test]
async fn behind_a_trusted_proxy_its_client_counts_and_behind_any_other_the_proxy_does() {
    let proxies = Proxies { trusted: HERE.parse().unwrap(), header: ForwardedHeader::XForwardedFor };
    let limits =
        RateLimitConfig { by_address: an_hour(1), unlimited: Networks::loopback(), proxies, ..no_limits() };
    let router = limited(limits).await;
    let through = async |peer: &str, line: &str| ask(&router, peer, &[("x-forwarded-for", line)]).await;
    assert_eq!(through(HERE, FIRST).await, 401);
    assert_eq!(through(HERE, FIRST).await, 429);
    assert_eq!(
        through(HERE, &format!("{HERE}, 198.51.100.1, {FIRST}")).await,
        429,
        "the client invents what it likes"
    );
    assert_eq!(through(HERE, SECOND).await, 401);
    // What this machine asks for by itself.
    assert_eq!((ask(&router, HERE, &[]).await, ask(&router, HERE, &[]).await), (401, 401));
    // Of whom the proxy does not tell is nobody of this machine.
    assert_eq!((through(HERE, "unknown").await, through(HERE, "unknown").await), (401, 429));
    // A proxy that nobody trusts is a client like any other.
    assert_eq!(through("198.51.100.9", "192.0.2.1").await, 401);
    assert_eq!(through("198.51.100.9", "192.0.2.2").await, 429);
}

#[tokio::test]
async fn what_a_proxy_on_this_machine_passes_on_is_limited_though_nobody_has_named_it() {
    let limits = RateLimitConfig { by_address: an_hour(1), unlimited: Networks::loopback(), ..no_limits() };
    for header in ["x-forwarded-for", "forwarded", "via", "x-real-ip"] {
        let router = limited(limits.clone()).await;
        for peer in [HERE, "::ffff:127.0.0.1"] {
            let expected = if peer == HERE { 401 } else { 429 };
            assert_eq!(ask(&router, peer, &[(header, FIRST)]).await, expected, "{peer} {header}");
        }
        assert_eq!(ask(&router, HERE, &[]).await, 401, "what this machine asks for itself");
    }
}

#[tokio::test]
async fn the_figures_count_refused_requests_by_what_there_was_too_much_of() {
    let limits = RateLimitConfig {
        by_address: an_hour(5),
        by_caller: an_hour(1),
        sign_ups: an_hour(1),
        ..no_limits()
    };
    let router = limited(limits).await;
    for (method, path, asked) in [("GET", "/v1/statistics/sales?bucket=x", 3), ("POST", "/v1/users", 2)] {
        for _ in 0..asked {
            ask_from(&router, FIRST.parse().unwrap(), method, path, &[CUSTOMER], "{").await;
        }
    }
    assert_eq!(ask(&router, FIRST, &[]).await, 429);
    let figures = get(&router, HERE, "/metrics", &[]).await;
    for line in [
        r#"ordermill_requests_limited_total{by="address"} 1"#,
        r#"ordermill_requests_limited_total{by="caller"} 2"#,
        r#"ordermill_requests_limited_total{by="sign_ups"} 1"#,
        r#"ordermill_http_problems_total{code="RATE_LIMITED"} 4"#,
    ] {
        assert!(figures.text().contains(line), "{line} is not in\n{}", figures.text());
    }
}
