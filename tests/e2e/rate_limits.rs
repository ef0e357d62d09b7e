//! Whoever asks too often, as a client on the other side of the network sees it.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::keys::start_api;
use crate::support::{ADMIN_KEY, Shop, User, stop, until};

/// A key that nobody has.
const WRONG_KEY: &str = "om_a_key_that_nobody_has_0123456789";
/// Where the client of the tests is that asks too often, by what its proxy says.
const ADDRESS: &str = "203.0.113.7";

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

/// Sends the request again and again until it is refused since there were too many; answers for how many seconds to stay away.
async fn until_limited(request: impl Fn() -> RequestBuilder) -> u64 {
    let mut retry_after_s = 0;
    until("a request is refused", async || {
        let answer = request().send().await.unwrap();
        if answer.status() != StatusCode::TOO_MANY_REQUESTS {
            return false;
        }
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
        retry_after_s = answer.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
        let problem: Value = answer.json().await.unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&json!("RATE_LIMITED"), &json!(429)));
        true
    })
    .await;
    retry_after_s
}

/// How many requests were refused.
async fn refused(shop: &Shop, by: &str) -> Option<f64> {
    shop.metric(&format!("ordermill_requests_limited_total{{by=\"{by}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_served_after_the_time_that_it_was_told_and_all_others_meanwhile() {
    let shop = Shop::new().await;
    let api = start_api(&shop, &["--limit-by-caller", "2/4s", "--unlimited-addresses", "none"]).await;
    let (limited, other) = (shop.user(0).await, shop.user(0).await);
    let balance =
        |user: &User, key: &str| shop.request_as(key, Method::GET, &format!("/users/{}/balance", user.id));
    let retry_after_s = until_limited(|| balance(&limited, &limited.key)).await;
    assert!((1..=2).contains(&retry_after_s), "half of the time brings one of two: {retry_after_s}");
    for _ in 0..5 {
        assert_eq!(status(balance(&limited, ADMIN_KEY)).await, 200);
    }
    assert_eq!(status(balance(&other, &other.key)).await, 200);
    // As a client does that is told so.
    tokio::time::sleep(Duration::from_secs(retry_after_s)).await;
    assert_eq!(status(balance(&limited, &limited.key)).await, 200);
    assert_eq!((refused(&shop, "caller").await, refused(&shop, "address").await), (Some(1.0), None));
    stop(&api);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_and_sign_ups_are_limited_by_the_address_and_an_administrator_who_shares_it_is_not() {
    let shop = Shop::new().await;
    let limits = ["--limit-by-address", "4/1h", "--limit-sign-ups", "1/1h", "--trusted-proxies", "127.0.0.1"];
    let api = start_api(&shop, &limits).await;
    let from = |request: RequestBuilder, address: &str| request.header("x-forwarded-for", address);
    let orders = |key: &str| shop.request_as(key, Method::GET, "/orders");
    let sign_up = || {
        let email = format!("{}@example.com", Uuid::new_v4().simple());
        let request = shop.request_as_nobody(Method::POST, "/v1/users");
        request.json(&json!({"name": "Kim", "email": email}))
    };
    assert_eq!(status(from(sign_up(), ADDRESS)).await, 201);
    assert_eq!(status(from(sign_up(), ADDRESS)).await, 429);
    assert_eq!(status(from(sign_up(), "198.51.100.1")).await, 201);

    let retry_after_s = until_limited(|| from(orders(WRONG_KEY), ADDRESS)).await;
    assert!((1..=900).contains(&retry_after_s), "a quarter of an hour brings one of four: {retry_after_s}");
    let invented = format!("198.51.100.2, {ADDRESS}");
    assert_eq!(status(from(orders(WRONG_KEY), &invented)).await, 429);
    // Nobody has shown this process the administrator's key before.
    assert_eq!(status(from(orders(ADMIN_KEY), ADDRESS)).await, 200);
    assert_eq!(status(from(sign_up().bearer_auth(ADMIN_KEY), ADDRESS)).await, 201);
    assert_eq!(status(from(orders(WRONG_KEY), "198.51.100.2")).await, 401);
    assert_eq!(status(from(shop.request_as_nobody(Method::GET, "/healthz"), ADDRESS)).await, 200);
    for _ in 0..6 {
        assert_eq!(status(orders(WRONG_KEY)).await, 401, "this machine is not limited");
    }
    assert_eq!((refused(&shop, "address").await, refused(&shop, "sign_ups").await), (Some(2.0), Some(1.0)));

    let log = api.output();
    assert!(log.contains("203.0.113.0/24"), "an operator sees from which network: {log}");
    assert!(!log.contains(ADDRESS) && !log.contains(WRONG_KEY), "{log}");
    stop(&api);
}
