//! Tests of the whole router that need no database: in which order a request is checked, what every answer has. Who may ask for what is
//! in `api/tests/routes`.

use std::net::{IpAddr, Ipv4Addr};

use axum::Router;
use ordermill_store::keys::Identity;
use serde_json::Value;
use uuid::Uuid;

use crate::testing::{CALLBACK_SECRET, THIS_MACHINE, api_without_database, ask, ask_from};
use crate::{Api, hash_key, router};

const USER: Uuid = Uuid::from_u128(0x0192_f0c1_7a3e_7000_8000_0000_0000_0001);
const OTHER: Uuid = Uuid::from_u128(0x0192_f0c1_7a3e_7000_8000_0000_0000_0002);
const CUSTOMER_KEY: (&str, &str) = ("authorization", "Bearer om_customer");
const ADMIN_KEY: (&str, &str) = ("authorization", "Bearer om_admin");
const IDEMPOTENCY_KEY: (&str, &str) = ("idempotency-key", "k-1");
/// Some other machine.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

/// A router that knows a customer's and an admin's key, so that it need not ask for them.
async fn router_with_keys() -> Router {
    let api = api_without_database();
    remember_keys(&api).await;
    router(api)
}

/// Has it know both keys for the moment for which it remembers any.
async fn remember_keys(api: &Api) {
    api.identities.remember("om_customer", Identity::Customer(USER)).await;
    api.identities.remember("om_admin", Identity::Admin("minji".parse().unwrap())).await;
}

#[tokio::test]
async fn every_problem_names_its_request() {
    let router = router(api_without_database());
    let answer = ask(&router, "GET", "/nowhere", &[], "").await;
    assert_eq!((answer.status, answer.code()), (404, "NOT_FOUND"));
    assert_eq!(answer.json()["instance"], answer.headers["x-request-id"].to_str().unwrap());
    let again = ask(&router, "GET", "/nowhere", &[], "").await;
    assert_ne!(answer.headers["x-request-id"], again.headers["x-request-id"]);
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let answer = ask(&router(api_without_database()), "DELETE", "/v1/orders", &[], "").await;
    assert_eq!((answer.status, answer.code()), (405, "METHOD_NOT_ALLOWED"));
    assert_eq!(answer.headers["allow"], "POST,GET,HEAD");
}

#[tokio::test]
async fn a_living_process_is_healthy_whatever_else_is_not() {
    let answer = ask(&router(api_without_database()), "GET", "/healthz", &[], "").await;
    assert_eq!((answer.status, answer.text()), (200, r#"{"status":"ok"}"#));
}

#[tokio::test]
async fn readiness_names_what_does_not_answer() {
    let answer = ask(&router(api_without_database()), "GET", "/readyz", &[], "").await;
    assert_eq!((answer.status, answer.code()), (503, "NOT_READY"));
    let errors = answer.json()["errors"].clone();
    let names: Vec<&Value> = errors.as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(names, ["database", "kafka"]);
}

#[tokio::test]
async fn everybody_is_told_what_does_not_answer_and_operators_what_that_means() {
    let api = api_without_database();
    let router = router(api.clone());
    let told = ask(&router, "GET", "/readyz", &[], "").await.json()["errors"].clone();
    assert!(told.to_string().contains("orders are accepted and wait"), "{told}");
    for (peer, headers, is_told_more) in [
        (THIS_MACHINE, &[][..], true),
        (THIS_MACHINE, &[("x-forwarded-for", "203.0.113.7")], false),
        (THIS_MACHINE, &[("host", "shop.example.com:8080")], false),
        (ELSEWHERE, &[ADMIN_KEY], true),
        (ELSEWHERE, &[CUSTOMER_KEY], false),
        (ELSEWHERE, &[("authorization", "Bearer om_nobody")], false),
        (ELSEWHERE, &[], false),
    ] {
        // To wait for the broker takes longer than a key is remembered.
        remember_keys(&api).await;
        let answer = ask_from(&router, peer, "GET", "/readyz", headers, "").await;
        assert_eq!((answer.status, answer.code()), (503, "NOT_READY"), "{peer} {headers:?}");
        let errors = answer.json()["errors"].clone();
        assert_eq!(errors == told, is_told_more, "{peer} {headers:?}: {errors}");
        for (error, known) in errors.as_array().unwrap().iter().zip(told.as_array().unwrap()) {
            assert_eq!((&error["field"], &error["code"]), (&known["field"], &known["code"]));
            let text = error["detail"].as_str().unwrap();
            assert_eq!(text.contains("operators are told more"), !is_told_more, "{peer} {headers:?}: {text}");
        }
    }
}

#[tokio::test]
async fn who_asks_for_readiness_without_a_key_is_not_refused_and_not_counted() {
    let router = router(api_without_database());
    ask_from(&router, ELSEWHERE, "GET", "/readyz", &[], "").await;
    let figures = ask(&router, "GET", "/metrics", &[], "").await;
    assert!(!figures.text().contains("ordermill_authentication_failures_total{"), "{}", figures.text());
}

#[tokio::test]
async fn figures_are_told_to_this_machine_and_to_administrators_and_to_nobody_else() {
    let router = router_with_keys().await;
    for (peer, headers, status) in [
        (THIS_MACHINE, &[][..], 200),
        (THIS_MACHINE, &[CUSTOMER_KEY], 200),
        (THIS_MACHINE, &[("host", "localhost:8080")], 200),
        (THIS_MACHINE, &[("host", "shop.example.com:8080")], 401),
        (THIS_MACHINE, &[("x-forwarded-for", "127.0.0.1")], 401),
        (THIS_MACHINE, &[("x-forwarded-for", "203.0.113.7"), ADMIN_KEY], 200),
        (ELSEWHERE, &[], 401),
        (ELSEWHERE, &[("authorization", "Basic om_admin")], 401),
        (ELSEWHERE, &[CUSTOMER_KEY], 403),
        (ELSEWHERE, &[ADMIN_KEY], 200),
    ] {
        let answer = ask_from(&router, peer, "GET", "/metrics", headers, "").await;
        assert_eq!(answer.status, status, "{peer} {headers:?}: {}", answer.text());
        assert_eq!(answer.text().contains("ordermill_"), status == 200, "{}", answer.text());
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401, "{peer} {headers:?}");
    }
}

#[tokio::test]
async fn what_is_asked_of_dead_letters_is_checked_before_the_database() {
    let router = router_with_keys().await;
    let letter = format!("/v1/dead-letters/{OTHER}");
    let (payload, discard) = (format!("{letter}/payload"), format!("{letter}/discard"));
    for (method, path, body, status, code) in [
        ("GET", "/v1/dead-letters?topic=%00&state=OPEN&limit=0", "", 422, "VALIDATION_FAILED"),
        ("GET", "/v1/dead-letters?code=RULE&code=RULE", "", 422, "VALIDATION_FAILED"),
        ("GET", "/v1/dead-letters/groups?from=yesterday", "", 422, "VALIDATION_FAILED"),
        ("GET", "/v1/dead-letters/groups?topic=orders.stock.dlt&group=sales", "", 422, "VALIDATION_FAILED"),
        ("GET", "/v1/dead-letters/mine", "", 404, "DEAD_LETTER_NOT_FOUND"),
        ("GET", "/v1/dead-letters/replays/mine", "", 404, "REPLAY_NOT_FOUND"),
        ("POST", "/v1/dead-letters/halts/%00/resume", "", 404, "HALT_NOT_FOUND"),
        (
            "POST",
            "/v1/dead-letters/halts/stock/resume",
            r#"{"unchecked_seconds":86401}"#,
            422,
            "VALIDATION_FAILED",
        ),
        ("POST", "/v1/dead-letters/replays", "{}", 422, "VALIDATION_FAILED"),
        ("POST", "/v1/dead-letters/replays", r#"{"filter":{"ids":[]}}"#, 400, "INVALID_JSON"),
        ("PUT", &payload, "{}", 422, "VALIDATION_FAILED"),
        ("PUT", &payload, r#"{"data":""}"#, 400, "INVALID_JSON"),
        ("POST", &discard, r#"{"reason":"twice"}"#, 400, "INVALID_JSON"),
        ("POST", &discard, r#"{"reason":" ","release_waiting":true}"#, 422, "VALIDATION_FAILED"),
    ] {
        let answer = ask(&router, method, path, &[ADMIN_KEY, IDEMPOTENCY_KEY], body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{method} {path} {body}");
    }
    let answer = ask(&router, "POST", "/v1/dead-letters/replays", &[ADMIN_KEY], r#"{"filter":{}}"#).await;
    assert_eq!((answer.status, answer.code()), (400, "IDEMPOTENCY_KEY_MISSING"));
}

#[tokio::test]
async fn a_customer_lists_nobody_elses_orders() {
    let router = router_with_keys().await;
    for query in ["", "?overdue=true", "?status=NONE"] {
        let answer = ask(&router, "GET", &format!("/v1/orders{query}"), &[CUSTOMER_KEY], "").await;
        assert_eq!((answer.status, answer.code()), (403, "FORBIDDEN"), "{query}");
    }
}

#[tokio::test]
async fn a_list_names_every_parameter_that_is_out_of_range() {
    let router = router_with_keys().await;
    let own = format!("/v1/users/{USER}/orders");
    for (path, fields) in [
        ("/v1/orders?cursor=x&limit=0&overdue=maybe&status=REJECTING", "status, overdue, limit, cursor"),
        ("/v1/orders?status=PENDING&status=PENDING", "status"),
        ("/v1/orders?overdue=true&overdue=true", "overdue"),
        ("/v1/orders?limit=1&limit=1", "limit"),
        (&format!("{own}?status=&limit=101"), "status, limit"),
        (&format!("{own}?status=pending"), "status"),
        ("/v1/products?q=&min_price=2&max_price=1&sort=x&limit=0", "q, min_price, sort, limit"),
        ("/v1/products?q=a&q=b&sort=newest&sort=newest", "q, sort"),
    ] {
        let answer = ask(&router, "GET", path, &[ADMIN_KEY], "").await;
        assert_eq!((answer.status, answer.code()), (422, "VALIDATION_FAILED"), "{path}");
        assert_eq!(answer.json()["detail"], format!("out of range: {fields}"), "{path}");
    }
}

#[tokio::test]
async fn sales_name_every_parameter_that_is_out_of_range() {
    let router = router_with_keys().await;
    let statistics = "/v1/statistics/sales";
    for (path, fields) in [
        (
            "/v1/products/popular?by=x&days=0&from=x&to=x&category=&availability=x&limit=0",
            "by, days, from, to, category, availability, limit",
        ),
        ("/v1/products/popular?from=2026-01-02&to=2026-01-01", "from"),
        ("/v1/products/popular?limit=1&limit=1", "by"),
        (&format!("{statistics}?bucket=year&from=x&to=x&product_id=x"), "bucket, from, to, product_id"),
        (&format!("{statistics}?product_id={OTHER}&category="), "category"),
        (&format!("{statistics}?from=2020-01-01&to=2023-01-01"), "from"),
        (&format!("{statistics}?to=2026-01-01&to=2026-01-01"), "bucket"),
    ] {
        let answer = ask(&router, "GET", path, &[ADMIN_KEY], "").await;
        assert_eq!((answer.status, answer.code()), (422, "VALIDATION_FAILED"), "{path}");
        assert_eq!(answer.json()["detail"], format!("out of range: {fields}"), "{path}");
    }
    let answer = ask(&router, "GET", statistics, &[], "").await;
    assert_eq!((answer.status, answer.code()), (401, "UNAUTHENTICATED"));
}

#[tokio::test]
async fn an_id_that_is_none_names_nothing() {
    let router = router_with_keys().await;
    for (path, code) in [
        ("/v1/users/me", "USER_NOT_FOUND"),
        ("/v1/users/1/balance", "USER_NOT_FOUND"),
        ("/v1/users/1/orders", "USER_NOT_FOUND"),
        ("/v1/users/%00/balance/entries", "USER_NOT_FOUND"),
        ("/v1/users/%ff/balance", "USER_NOT_FOUND"),
        ("/v1/products/x", "PRODUCT_NOT_FOUND"),
        ("/v1/orders/x", "ORDER_NOT_FOUND"),
        ("/v1/orders/x/events", "ORDER_NOT_FOUND"),
        ("/v1/orders/x/stream", "ORDER_NOT_FOUND"),
    ] {
        let answer = ask(&router, "GET", path, &[ADMIN_KEY], "").await;
        assert_eq!((answer.status, answer.code()), (404, code), "{path}");
    }
}

#[tokio::test]
async fn the_key_is_checked_before_the_body_and_the_body_before_the_database() {
    let router = router_with_keys().await;
    let (charges, stock) =
        (format!("/v1/users/{USER}/balance/charges"), format!("/v1/products/{USER}/stock"));
    for path in ["/v1/orders", "/v1/products", &charges, &stock] {
        for (headers, body, status, code) in [
            (&[][..], "", 401, "UNAUTHENTICATED"),
            (&[ADMIN_KEY], "", 400, "IDEMPOTENCY_KEY_MISSING"),
            (&[ADMIN_KEY, ("idempotency-key", "a b")], "", 400, "IDEMPOTENCY_KEY_MISSING"),
            (&[ADMIN_KEY, IDEMPOTENCY_KEY, IDEMPOTENCY_KEY], "", 400, "IDEMPOTENCY_KEY_MISSING"),
            (&[ADMIN_KEY, IDEMPOTENCY_KEY], "{", 400, "INVALID_JSON"),
            (&[ADMIN_KEY, IDEMPOTENCY_KEY], r#"{"colour":1}"#, 400, "INVALID_JSON"),
            (
                &[ADMIN_KEY, IDEMPOTENCY_KEY, ("content-type", "text/plain")],
                "",
                415,
                "UNSUPPORTED_MEDIA_TYPE",
            ),
        ] {
            let answer = ask(&router, "POST", path, headers, body).await;
            assert_eq!((answer.status, answer.code()), (status, code), "{path} {headers:?} {body}");
        }
        let too_large = " ".repeat(64 * 1024 + 1);
        let answer = ask(&router, "POST", path, &[ADMIN_KEY, IDEMPOTENCY_KEY], &too_large).await;
        assert_eq!((answer.status, answer.code()), (413, "PAYLOAD_TOO_LARGE"));
    }
}

#[tokio::test]
async fn fields_that_are_out_of_range_are_listed() {
    let router = router_with_keys().await;
    let answer = ask(&router, "POST", "/v1/users", &[], r#"{"name":"a\u0000b","email":"x"}"#).await;
    assert_eq!((answer.status, answer.code()), (422, "VALIDATION_FAILED"));
    let errors = answer.json()["errors"].clone();
    assert_eq!((&errors[0]["field"], &errors[0]["code"]), (&"name".into(), &"NUL_CHARACTER".into()));
    assert_eq!(errors[1]["field"], "email");

    let charges = format!("/v1/users/{USER}/balance/charges");
    for amount in ["0", "-1", "1000000001", "99999999999999999999"] {
        let body = format!(r#"{{"amount":{amount}}}"#);
        let answer = ask(&router, "POST", &charges, &[CUSTOMER_KEY, IDEMPOTENCY_KEY], &body).await;
        assert_eq!((answer.status, answer.code()), (422, "INVALID_AMOUNT"), "{amount}");
    }
}

#[tokio::test]
async fn a_time_that_no_answer_could_tell_is_refused() {
    let router = router_with_keys().await;
    let headers = [ADMIN_KEY, IDEMPOTENCY_KEY];
    // In UTC it is in the year before the year 1, for which RFC 3339 has no name.
    let coupon = r#"{"name":"Spring","discount":{"type":"FIXED","value":1},"quantity":1,"claimable_from":"0001-01-01T00:00:00+09:00"}"#;
    for (method, path, body, field) in [
        ("POST", "/v1/coupons", coupon, "claimable_from"),
        ("GET", "/v1/dead-letters?to=0001-01-01T00:00:00%2B09:00", "", "to"),
    ] {
        let answer = ask(&router, method, path, &headers, body).await;
        assert_eq!((answer.status, answer.code()), (422, "VALIDATION_FAILED"), "{path}");
        let errors = answer.json()["errors"].clone();
        assert_eq!((&errors[0]["field"], &errors[0]["code"]), (&field.into(), &"MALFORMED".into()), "{path}");
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_no_bug_of_ours_and_no_word_of_it_gets_out() {
    let router = router_with_keys().await;
    let order = format!(r#"{{"user_id":"{USER}","lines":[{{"product_id":"{USER}","quantity":1}}]}}"#);
    let charges = format!("/v1/users/{USER}/balance/charges");
    for (method, path, body) in [
        ("POST", "/v1/users", r#"{"name":"Kim","email":"kim@example.com"}"#),
        ("POST", &*charges, r#"{"amount":1}"#),
        ("POST", "/v1/orders", &order),
        ("GET", &format!("/v1/orders/{USER}"), ""),
        ("GET", &format!("/v1/orders/{USER}/stream"), ""),
        ("GET", &format!("/v1/users/{USER}/orders"), ""),
        ("GET", &format!("/v1/products/{USER}"), ""),
        ("GET", "/v1/products", ""),
        // Not taken for a product that is called so.
        ("GET", "/v1/products/popular", ""),
    ] {
        let answer = ask(&router, method, path, &[CUSTOMER_KEY, IDEMPOTENCY_KEY], body).await;
        assert_eq!((answer.status, answer.code()), (503, "OVERLOADED"), "{method} {path}");
        assert_eq!(answer.headers["retry-after"], "1");
        assert!(!answer.text().contains("pool"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_key_that_failed_is_free_again() {
    let router = router_with_keys().await;
    let order = format!(r#"{{"user_id":"{USER}","lines":[{{"product_id":"{USER}","quantity":1}}]}}"#);
    for _ in 0..2 {
        let answer = ask(&router, "POST", "/v1/orders", &[CUSTOMER_KEY, IDEMPOTENCY_KEY], &order).await;
        assert_eq!(answer.code(), "OVERLOADED");
    }
}

#[tokio::test]
async fn only_the_gateways_callbacks_are_received() {
    let router = router(api_without_database());
    let body = format!(
        r#"{{"event_id":"{USER}","charge_id":"{USER}","reference":"{OTHER}","status":"APPROVED",
            "approved_amount":1,"at":"2026-01-01T00:00:00Z"}}"#
    );
    let sign = |secret: &str, body: &str| {
        use hmac::{Hmac, KeyInit as _, Mac as _};
        let unix_s = jiff::Timestamp::now().as_second();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{unix_s}.{body}").as_bytes());
        format!("t={unix_s},v1={}", hex::encode(mac.finalize().into_bytes()))
    };
    for (signature, status) in
        [(sign(CALLBACK_SECRET, &body), 200), (sign("other", &body), 401), (String::new(), 401)]
    {
        let headers = [("ordermill-signature", &*signature)];
        let answer = ask(&router, "POST", "/v1/payments/callbacks", &headers, &body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(status == 200 || answer.code() == "INVALID_SIGNATURE");
    }
    let signature = sign(CALLBACK_SECRET, "{}");
    let headers = [("ordermill-signature", &*signature)];
    let answer = ask(&router, "POST", "/v1/payments/callbacks", &headers, "{}").await;
    assert_eq!((answer.status, answer.code()), (400, "INVALID_JSON"));
    let figures = ask(&router, "GET", "/metrics", &[], "").await;
    assert!(figures.text().contains("ordermill_payment_callbacks_total 1\n"), "{}", figures.text());
}

#[tokio::test]
async fn the_figures_count_requests_without_a_valid_key_by_what_was_wrong() {
    let api = api_without_database();
    api.identities.revoke(vec![hash_key("om_revoked")]).await;
    let router = router(api);
    for (headers, asked) in [
        (&[][..], 1),
        (&[("authorization", "Basic om_1")], 2),
        (&[("authorization", "Bearer om_revoked")], 3),
    ] {
        for _ in 0..asked {
            let answer = ask(&router, "GET", "/v1/orders", headers, "").await;
            assert_eq!((answer.status, answer.code()), (401, "UNAUTHENTICATED"), "{headers:?}");
        }
    }
    let figures = ask(&router, "GET", "/metrics", &[], "").await;
    for (reason, count) in [("missing", 1), ("malformed", 2), ("revoked", 3)] {
        let line = format!("ordermill_authentication_failures_total{{reason=\"{reason}\"}} {count}\n");
        assert!(figures.text().contains(&line), "{line} is not in\n{}", figures.text());
    }
}

#[tokio::test]
async fn the_figures_count_problems_by_code_and_time_by_route() {
    let router = router(api_without_database());
    ask(&router, "POST", "/v1/users", &[], "{").await;
    ask(&router, "GET", "/v1/users/me", &[], "").await;
    ask(&router, "GET", "/some/path/of/a/stranger", &[], "").await;
    let figures = ask(&router, "GET", "/metrics", &[], "").await;
    assert!(figures.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    for line in [
        r#"ordermill_http_problems_total{code="INVALID_JSON"} 1"#,
        r#"ordermill_http_problems_total{code="UNAUTHENTICATED"} 1"#,
        r#"ordermill_http_request_seconds_count{method="POST",route="/v1/users"} 1"#,
        r#"ordermill_http_request_seconds_count{method="GET",route="/v1/users/{user_id}"} 1"#,
        r#"ordermill_http_request_seconds_count{method="GET",route="unmatched"} 1"#,
    ] {
        assert!(figures.text().contains(line), "{line} is not in\n{}", figures.text());
    }
    assert!(!figures.text().contains("stranger"));
}
