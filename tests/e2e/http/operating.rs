//! Health, figures and documents.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use super::{Answer, ask, field};
use crate::support::{Shop, in_open_shop, stop, until};

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
        assert_eq!(look(shop, "/readyz").await.with(200), json!({"status": "ready"}));
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
    for name in silent {
        assert!(problem["detail"].as_str().unwrap().contains(name), "{problem}");
    }
    let (user, lamp) = (shop.user(1_000).await, shop.product(1_000, 5).await);
    assert_eq!(shop.submit(&user, &[(lamp, 1)]).await["status"], "PENDING");
    stop(&api);
}
