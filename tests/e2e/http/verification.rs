//! Verification over HTTP.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{Answer, ask};
use crate::documents::Forgery;
use crate::support::{Shop, User, id, until};

async fn verification(shop: &Shop) -> Answer {
    ask(shop.request(Method::GET, "/verification")).await
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no {name}: {report:#}"))
}

/// An order that rests, in a shop at rest.
async fn confirmed(shop: &Shop) -> (User, Uuid) {
    let (user, lamp) = (shop.user(50_000).await, shop.product(12_000, 5).await);
    let order = shop.order(&user, &[(lamp, 2)]).await;
    assert_eq!(order["status"], "CONFIRMED", "{order}");
    shop.until_quiet().await;
    (user, id(&order["order_id"]))
}

/// Forges what `statement` says, and expects that `check` names it in words.
async fn assert_told(shop: &Shop, statement: &str, name: &str, words: &[&str]) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&shop.pool).await.unwrap();
    let report = verification(shop).await.with(200);
    assert_eq!((&report["ok"], &check(&report, name)["ok"]), (&json!(false), &json!(false)), "{report:#}");
    let violations = check(&report, name)["violations"].as_array().unwrap();
    let is_told = |text: &str| words.iter().all(|word| text.contains(word));
    assert!(violations.iter().any(|text| is_told(text.as_str().unwrap())), "{words:?}: {violations:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_shop_is_verified_for_administrators_only() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, _) = confirmed(&shop).await;
    ask(shop.request_as_nobody(Method::GET, "/v1/verification")).await.refused(401, "UNAUTHENTICATED");
    ask(shop.request_as(&user.key, Method::GET, "/verification")).await.refused(403, "FORBIDDEN");
    let report = verification(&shop).await.with(200);
    assert_eq!(report["ok"], true, "{report:#}");
    assert!(report["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    for name in ["balances", "stock", "orders", "coupons", "rebuild", "sequences", "gateway", "kafka"] {
        let check = check(&report, name);
        assert_eq!((&check["ok"], &check["violations"]), (&json!(true), &json!([])), "{check}");
    }
    assert!(check(&report, "gateway")["note"].is_null(), "the API knows the gateway: {report:#}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_changed_by_hand_is_named() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, _) = confirmed(&shop).await;
    let balance = || Forgery::of("balances", user.id);
    let forgery = balance().add("available", 1).statement();
    assert_told(&shop, &forgery, "balances", &[&user.id.to_string(), "available 26001"]).await;
    balance().add("available", -1).make(&shop.pool).await;
    assert_eq!(verification(&shop).await.with(200)["ok"], true);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_says_something_else_in_kafka_than_in_the_log_is_named() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (_, order_id) = confirmed(&shop).await;
    let placed: (Uuid, i64, i64) = sqlx::query_as(
        "SELECT event_id, segment, position % 100000 FROM event_log WHERE aggregate_id = $1 AND type = 'order.placed'",
    )
    .bind(order_id)
    .fetch_one(&shop.pool)
    .await
    .unwrap();
    let (event_id, segment, ordinal) = placed;
    let said = |from: &str, to: &str| {
        format!(
            "data[{ordinal}] = convert_to(replace(convert_from(data[{ordinal}], 'UTF8'), '{from}', '{to}'), 'UTF8')"
        )
    };
    let changes = [
        said("\"BALANCE\"", "\"CARD\""),
        format!("version[{ordinal}] = 2"),
        format!("record_key[{ordinal}] = 'another'"),
    ];
    for change in changes {
        let forge = |change: &str| {
            format!(
                "ALTER TABLE log_segment DISABLE TRIGGER log_segment_is_append_only;
                 UPDATE log_segment SET {change} WHERE number = {segment};
                 ALTER TABLE log_segment ENABLE TRIGGER log_segment_is_append_only;"
            )
        };
        let words = [&event_id.to_string(), "another key, type, version or payload in orders["];
        assert_told(&shop, &forge(&change), "kafka", &words).await;
        let back = format!("{}, version[{ordinal}] = 1, record_key = NULL", said("\"CARD\"", "\"BALANCE\""));
        sqlx::raw_sql(AssertSqlSafe(forge(&back))).execute(&shop.pool).await.unwrap();
        assert_eq!(verification(&shop).await.with(200)["ok"], true, "{change}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_that_the_gateway_does_not_know_is_named() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (_, order_id) = confirmed(&shop).await;
    let (invented, order) = (Uuid::new_v4().to_string(), order_id.to_string());
    let forgery = Forgery::of("payments", order_id).set("charges,0,charge_id", &*invented).statement();
    assert_told(&shop, &forgery, "gateway", &[&invented, &order, "the gateway does not know the charge"])
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_that_is_not_its_owners_and_a_second_one_are_named() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (one, other) = (shop.user(0).await, shop.user(0).await);
    until("both are welcomed", async || shop.count("SELECT count(*) FROM user_coupons").await == 2).await;
    shop.until_quiet().await;
    let coupon: Uuid = sqlx::query_scalar("SELECT key FROM user_coupons WHERE user_id = $1")
        .bind(one.id)
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    let forgery = Forgery::of("user_coupons", coupon).set("user_id", other.id.to_string()).statement();
    let (owner, claimant) = (format!("user {} has it", other.id), format!("for user {}", one.id));
    assert_told(&shop, &forgery, "coupons", &[&coupon.to_string(), &owner, &claimant]).await;
    let report = verification(&shop).await.with(200);
    let twice = format!("user {} has it 2 times", other.id);
    assert!(check(&report, "coupons").to_string().contains(&twice), "{report:#}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_at_work_is_verified_without_a_false_alarm() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(10_000_000).await, shop.product(1_000, 10_000).await);
    let sell = async {
        for _ in 0..10 {
            let mut order_id = Uuid::nil();
            for _ in 0..10 {
                order_id = id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]);
            }
            shop.settled(order_id).await;
            let (status, order) = shop.ask(&user.key, order_id, "cancellation", &json!({})).await;
            assert_eq!(status, 202, "{order}");
        }
    };
    let watch = async {
        for _ in 0..4 {
            let report = verification(&shop).await.with(200);
            assert_eq!(report["ok"], true, "{report:#}");
        }
    };
    tokio::join!(sell, watch);
    shop.until_quiet().await;
    assert_eq!(verification(&shop).await.with(200)["ok"], true);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_answer_a_verification_is_named_without_a_word_of_why() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    shop.gateway.stop();
    let answer = verification(&shop).await;
    let problem = answer.refused(503, "NOT_READY");
    assert_eq!(problem["errors"][0]["field"], "gateway", "{problem}");
    assert!(answer.header("retry-after").is_some());
    assert!(!answer.body.contains("127.0.0.1") && !answer.body.contains("error sending"), "{problem}");
    running.stop().await;
}
