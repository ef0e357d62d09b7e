//! Health, figures and documents.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};

use ordermill_stack::free_port;
use reqwest::Method;
use serde_json::json;

use super::{Answer, ask, field};
use crate::support::{ADMIN_KEY, Shop, in_open_shop, stop, until};

async fn look(shop: &Shop, path: &str) -> Answer {
    ask(shop.request_as_nobody(Method::GET, path)).await
}

/// A figure as `/metrics` shows it, all its labels added up.
pub(super) async fn counter(shop: &Shop, name: &str) -> f64 {
    let figures = look(shop, "/metrics").await;
    assert_eq!(figures.status, 200);
    assert!(figures.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let lines = figures.body.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[test]
fn a_shop_that_is_open_is_healthy_and_ready() {
    in_open_shop(async |shop| {
        assert_eq!(look(shop, "/healthz").await.with(200), json!({"status": "ok"}));
        // Other tests may keep the machine so busy that a sign of life comes late.
        let mut answer = look(shop, "/readyz").await;
        until("it is ready", async || {
            answer = look(shop, "/readyz").await;
            answer.status == 200
        })
        .await;
        assert_eq!(answer.with(200), json!({"status": "ready"}));
    });
}

#[test]
fn the_documents_page_and_what_it_loads_come_from_here() {
    in_open_shop(async |shop| {
        let page = look(shop, "/docs").await;
        assert_eq!(page.status, 200, "{page:?}");
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'self'") && !policy.contains("http"), "{policy}");
        let mut loaded = 0;
        for attribute in ["src=\"", "href=\""] {
            for rest in page.body.split(attribute).skip(1) {
                let address = rest.split('"').next().unwrap();
                assert!(!address.contains("//"), "{address} is on another host");
                let path = format!("/docs/{}", address.trim_start_matches("./"));
                assert_eq!(look(shop, &path).await.status, 200, "{path}");
                loaded += 1;
            }
        }
        assert!(loaded >= 4, "{}", page.body);
    });
}

#[test]
fn the_figures_count_orders_when_they_are_accepted_and_when_they_settle() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(1_000).await, shop.product(1_000, 5).await);
        let accepted = counter(shop, "ordermill_orders_accepted_total").await;
        let settled = counter(shop, "ordermill_orders_settled_total").await;
        shop.order(&user, &[(lamp, 1)]).await;
        assert_eq!(shop.order(&user, &[(lamp, 1)]).await["status"], "REJECTED");
        assert!(counter(shop, "ordermill_orders_accepted_total").await >= accepted + 2.0);
        until("both are counted as settled", async || {
            counter(shop, "ordermill_orders_settled_total").await >= settled + 2.0
        })
        .await;
        for name in [
            "ordermill_order_stage_seconds_count",
            "ordermill_relay_records_total",
            "ordermill_batch_records_count",
        ] {
            assert!(counter(shop, name).await > 0.0, "{name}");
        }
        for name in [
            "relay_lag_segments",
            "relay_repeats",
            "group_lag_records",
            "batch_seconds",
            "batch_retries",
            "dead_letters",
            "http_request_seconds",
            "gateway_seconds",
        ] {
            // Some are only measured from time to time.
            until(name, async || {
                let figures = look(shop, "/metrics").await;
                figures.body.contains(&format!("# TYPE ordermill_{name} "))
            })
            .await;
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_runs_alone_takes_orders_and_says_what_is_silent() {
    let shop = Shop::new().await;
    let api = shop.start(&["api"]);
    until("the API listens", async || {
        shop.client.get(shop.url("/healthz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let problem = look(&shop, "/readyz").await.refused(503, "NOT_READY");
    let silent: BTreeSet<&str> = problem["errors"].as_array().unwrap().iter().map(field).collect();
    let roles = [
        "relay",
        "worker:coupons",
        "worker:orders",
        "worker:payments",
        "worker:sales",
        "worker:stock",
        "worker:timers",
    ];
    assert_eq!(silent, roles.into());
    for error in problem["errors"].as_array().unwrap() {
        assert_eq!(error["code"], "NOT_ANSWERING", "{problem}");
    }
    for name in silent {
        assert!(problem["detail"].as_str().unwrap().contains(name), "{problem}");
    }
    let (user, lamp) = (shop.user(1_000).await, shop.product(1_000, 5).await);
    assert_eq!(shop.submit(&user, &[(lamp, 1)]).await["status"], "PENDING");
    stop(&api);
}

/// An address of this machine that is not a loopback one, if it has any. To find it nothing is sent.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_and_why_a_group_stands_still_are_for_this_machine_and_for_administrators() {
    const REASON: &str = "101 of 120 messages could not be applied";
    let shop = Shop::new().await;
    let port = shop.url("").rsplit(':').next().unwrap().to_owned();
    let (listen, own) = (format!("0.0.0.0:{port}"), format!("127.0.0.1:{}", free_port().unwrap()));
    let api = shop.start(&["api", "--listen", &listen, "--metrics-listen", &own]);
    until("the API listens", async || {
        shop.client.get(shop.url("/healthz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let halt = "INSERT INTO halted_group (group_name, halted_at, reason) VALUES ('stock', now(), $1)";
    sqlx::query(halt).bind(REASON).execute(&shop.pool).await.unwrap();
    let (user, address) = (shop.user(0).await, outer_address());
    let from_outside = async |path: &str, key: Option<&str>| {
        let request = match address {
            Some(address) => shop.client.get(format!("http://{address}:{port}{path}")),
            // What a proxy on this machine passes on is from outside, too.
            None => {
                let request = shop.request_as_nobody(Method::GET, path);
                request.header("X-Forwarded-For", "203.0.113.7")
            }
        };
        ask(match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        })
        .await
    };

    from_outside("/metrics", None).await.refused(401, "UNAUTHENTICATED");
    from_outside("/metrics", Some(&user.key)).await.refused(403, "FORBIDDEN");
    let passed_on = shop.request_as_nobody(Method::GET, "/metrics").header("Forwarded", "for=203.0.113.7");
    ask(passed_on).await.refused(401, "UNAUTHENTICATED");
    for figures in [
        look(&shop, "/metrics").await,
        from_outside("/metrics", Some(ADMIN_KEY)).await,
        ask(shop.client.get(format!("http://{own}/metrics"))).await,
    ] {
        assert_eq!(figures.status, 200, "{figures:?}");
        assert!(figures.body.contains("ordermill_http_request_seconds"), "{}", figures.body);
    }

    // What was seen just now is told again for a moment.
    until("the halt is told", async || look(&shop, "/readyz").await.body.contains(REASON)).await;
    for (answer, is_told_why) in [
        (look(&shop, "/readyz").await, true),
        (from_outside("/readyz", Some(ADMIN_KEY)).await, true),
        (from_outside("/readyz", Some(&user.key)).await, false),
        (from_outside("/readyz", None).await, false),
    ] {
        let problem = answer.refused(503, "NOT_READY");
        let names: BTreeSet<&str> = problem["errors"].as_array().unwrap().iter().map(field).collect();
        assert!(names.is_superset(&["relay", "worker:stock", "worker:orders"].into()), "{problem}");
        assert_eq!(answer.body.contains(REASON), is_told_why, "{problem}");
    }
    assert_eq!(from_outside("/healthz", None).await.status, 200);
    stop(&api);
}
