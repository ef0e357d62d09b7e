//! Health, figures and documents.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use super::{Answer, ask, field};
use crate::support::{Shop, in_open_shop, stop, until};

/// Every route of version 1 that exists, as the document names it.
const ROUTES: [&str; 44] = [
    "DELETE /v1/users/{user_id}",
    "GET /healthz",
    "GET /metrics",
    "GET /readyz",
    "GET /v1/coupons/{coupon_id}",
    "GET /v1/coupons/{coupon_id}/claims/{claim_id}",
    "GET /v1/dead-letters",
    "GET /v1/dead-letters/groups",
    "GET /v1/dead-letters/halts",
    "GET /v1/dead-letters/replays",
    "GET /v1/dead-letters/replays/{replay_id}",
    "GET /v1/dead-letters/{dead_letter_id}",
    "GET /v1/orders",
    "GET /v1/orders/{order_id}",
    "GET /v1/orders/{order_id}/events",
    "GET /v1/orders/{order_id}/stream",
    "GET /v1/products",
    "GET /v1/products/popular",
    "GET /v1/products/{product_id}",
    "GET /v1/statistics/sales",
    "GET /v1/users/{user_id}",
    "GET /v1/users/{user_id}/balance",
    "GET /v1/users/{user_id}/balance/entries",
    "GET /v1/users/{user_id}/coupons",
    "GET /v1/users/{user_id}/orders",
    "GET /v1/verification",
    "PATCH /v1/orders/{order_id}",
    "PATCH /v1/products/{product_id}",
    "POST /v1/coupons",
    "POST /v1/coupons/{coupon_id}/claims",
    "POST /v1/dead-letters/halts/{group}/resume",
    "POST /v1/dead-letters/replays",
    "POST /v1/dead-letters/{dead_letter_id}/discard",
    "POST /v1/orders",
    "POST /v1/orders/{order_id}/cancellation",
    "POST /v1/orders/{order_id}/shipments",
    "POST /v1/payments/callbacks",
    "POST /v1/products",
    "POST /v1/products/{product_id}/stock",
    "POST /v1/shipments/{shipment_id}/delivery",
    "POST /v1/user-coupons/{user_coupon_id}/revocation",
    "POST /v1/users",
    "POST /v1/users/{user_id}/balance/charges",
    "PUT /v1/dead-letters/{dead_letter_id}/payload",
];

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
fn the_document_is_openapi_3_1_and_names_every_route() {
    in_open_shop(async |shop| {
        let document = look(shop, "/openapi.json").await.with(200);
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        let mut routes = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                routes.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        assert_eq!(routes, ROUTES.map(str::to_owned).into());
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
