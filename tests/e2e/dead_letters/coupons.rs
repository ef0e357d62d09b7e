//! What the worker of coupons was to be told of an order, and somebody has discarded.

use jiff::{SignedDuration, Timestamp};
use ordermill_pipeline::clock::Clock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::until_letters;
use crate::coupons::{order_with, own_coupon, owned};
use crate::support::{Shop, User, answer, id, order_of};

const PAST_THE_DEADLINE: SignedDuration = SignedDuration::from_secs(61);

/// Has the database refuse that an order's use of a coupon gets into that state, until the rule is dropped.
async fn forbid(shop: &Shop, state: &str) {
    let rule =
        format!("ALTER TABLE coupon_uses ADD CONSTRAINT forbidden CHECK (state ->> 'state' <> '{state}')");
    sqlx::raw_sql(AssertSqlSafe(rule)).execute(&shop.pool).await.unwrap();
}

async fn allow(shop: &Shop) {
    sqlx::raw_sql("ALTER TABLE coupon_uses DROP CONSTRAINT forbidden").execute(&shop.pool).await.unwrap();
}

/// Discards the one letter of the worker of coupons, which must be that message.
async fn discard(shop: &Shop, event_type: &str) {
    until_letters(shop, "coupons", "PARKED", 1).await;
    let parked = shop.get("/dead-letters?group=coupons&state=PARKED").await;
    let letter = &parked["items"][0];
    assert_eq!(letter["event_type"], event_type, "{letter}");
    let path = format!("/dead-letters/{}/discard", id(&letter["dead_letter_id"]));
    let request = shop.request(Method::POST, &path);
    let (status, body) = answer(request.json(&json!({"reason": "a test", "release_waiting": true}))).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

async fn has_coupon(shop: &Shop, user: &User, user_coupon_id: Uuid) -> bool {
    owned(shop, user, "ISSUED").await.iter().any(|owned| owned["user_coupon_id"] == json!(user_coupon_id))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_coupon_was_discarded_is_refused_at_its_deadline() {
    let shop = Shop::new().await;
    let clock = Clock::manual(Timestamp::now());
    let running = shop.open_at(clock.clone()).await;
    let (user, lamp) = (shop.user(10_000).await, shop.product(100, 9).await);
    let own = own_coupon(&shop, &user, json!({})).await;
    forbid(&shop, "APPLIED").await;
    let mut body = order_of(&user, &[(lamp, 1)]);
    body["user_coupon_id"] = json!(own);
    let (status, order) = shop.post("/orders", &body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{order}");
    discard(&shop, "order.placed").await;
    clock.advance(PAST_THE_DEADLINE);
    let order: Value = shop.settled(id(&order["order_id"])).await;
    assert_eq!(
        (&order["status"], &order["failure"]["code"]),
        (&json!("REJECTED"), &json!("DEADLINE_EXCEEDED"))
    );
    assert_eq!((shop.balance(&user).await, shop.stock(lamp).await), ((10_000, 0), 9));
    assert!(has_coupon(&shop, &user, own).await);
    allow(&shop).await;
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_gets_its_coupon_back_although_its_worker_was_not_told() {
    let shop = Shop::new().await;
    let clock = Clock::manual(Timestamp::now());
    let running = shop.open_at(clock.clone()).await;
    let (user, lamp) = (shop.user(10_000).await, shop.product(100, 9).await);
    let own = own_coupon(&shop, &user, json!({})).await;
    let order = order_with(&shop, &user, &[(lamp, 1)], own).await;
    assert_eq!(order["status"], "CONFIRMED", "{order}");
    let order_id = id(&order["order_id"]);
    forbid(&shop, "RETURNED").await;
    assert_eq!(shop.ask(&user.key, order_id, "cancellation", &json!({})).await.0, StatusCode::ACCEPTED);
    discard(&shop, "order.cancelling").await;
    assert_eq!(shop.get(&format!("/orders/{order_id}")).await["status"], "CANCELLING");
    allow(&shop).await;
    clock.advance(PAST_THE_DEADLINE);
    assert_eq!(shop.settled(order_id).await["status"], "CANCELLED");
    assert_eq!((shop.balance(&user).await, shop.stock(lamp).await), ((10_000, 0), 9));
    assert!(has_coupon(&shop, &user, own).await);
    running.stop().await;
    shop.assert_verified().await;
}
