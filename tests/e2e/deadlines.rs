//! Sagas that stop moving: seen, and driven to an end. The clock is the test's.

use jiff::{SignedDuration, Timestamp};
use ordermill_pipeline::clock::Clock;
use reqwest::StatusCode;
use serde_json::json;
use uuid::Uuid;

use crate::coupons::{own_coupon, owned};
use crate::support::{Shop, id, until};

const PAST_THE_DEADLINE: SignedDuration = SignedDuration::from_secs(61);

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_not_paid_in_time_is_refused_and_its_charge_voided() {
    let shop = Shop::new().await;
    let clock = Clock::manual(Timestamp::now());
    let running = shop.open_at(clock.clone()).await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(12_000, 5).await);
    shop.behave(&json!({"timeout_after": 1.0})).await;
    let order_id = id(&shop.submit(&user, &[(lamp, 2)]).await["order_id"]);
    until("the gateway is asked", async || {
        shop.count("SELECT count(*) FROM event_log WHERE type = 'payment.requested'").await == 1
    })
    .await;
    clock.advance(PAST_THE_DEADLINE);
    until("the order is given up", async || {
        shop.count("SELECT count(*) FROM orders WHERE status = 'REJECTING'").await == 1
    })
    .await;
    // The gateway may have charged, so nothing is given back before it has said that it did not, or not any more.
    until("it shows as overdue", async || shop.metric("ordermill_orders_overdue").await == Some(1.0)).await;
    assert_eq!(shop.get(&format!("/orders/{order_id}")).await["status"], "PENDING");
    assert_eq!(shop.balance(&user).await, (26_000, 24_000));
    shop.behave(&json!({"timeout_after": 0.0})).await;
    let order = shop.settled(order_id).await;
    assert_eq!(
        (&order["status"], &order["failure"]["code"]),
        (&json!("REJECTED"), &json!("DEADLINE_EXCEEDED"))
    );
    assert_eq!(shop.balance(&user).await, (50_000, 0));
    assert_eq!(shop.stock(lamp).await, 5);
    until("nothing is overdue", async || shop.metric("ordermill_orders_overdue").await == Some(0.0)).await;
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modification_that_is_not_paid_in_time_is_refused_and_undone() {
    let shop = Shop::new().await;
    let clock = Clock::manual(Timestamp::now());
    let running = shop.open_at(clock.clone()).await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(12_000, 5).await);
    let order = shop.order(&user, &[(lamp, 1)]).await;
    let order_id = id(&order["order_id"]);
    shop.behave(&json!({"timeout_before": 1.0})).await;
    assert_eq!(shop.modify(&user, &order, &[(lamp, 3)]).await.0, StatusCode::ACCEPTED);
    until("the gateway is asked", async || {
        shop.count("SELECT count(*) FROM event_log WHERE type = 'payment.requested'").await == 2
    })
    .await;
    clock.advance(PAST_THE_DEADLINE);
    until("the modification is given up", async || {
        shop.count("SELECT count(*) FROM orders WHERE status = 'MODIFICATION_REFUSING'").await == 1
    })
    .await;
    shop.behave(&json!({"timeout_before": 0.0})).await;
    let order = shop.settled(order_id).await;
    assert_eq!(order["status"], "CONFIRMED");
    assert_eq!(order["last_modification"]["failure"]["code"], "DEADLINE_EXCEEDED");
    assert_eq!((&order["total"], &order["payment"]["paid"]), (&json!(12_000), &json!(12_000)));
    assert_eq!(shop.balance(&user).await, (38_000, 0));
    assert_eq!(shop.stock(lamp).await, 4);
    running.stop().await;
    shop.assert_verified().await;
}

/// What can't be given up is tried again after a minute at most.
const PAST_THE_PAUSE: SignedDuration = SignedDuration::from_secs(61);

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_cannot_be_read_keeps_no_other_order_and_no_coupon_past_its_time() {
    let shop = Shop::new().await;
    let clock = Clock::manual(Timestamp::now());
    let running = shop.open_at(clock.clone()).await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(10_000, 5).await);
    let coupon = own_coupon(&shop, &user, json!({"valid_days": 1})).await;
    shop.behave(&json!({"timeout_after": 1.0})).await;
    let poisoned = id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]);
    let other = id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]);
    until("the gateway is asked", async || {
        shop.count("SELECT count(*) FROM event_log WHERE type = 'payment.requested'").await == 2
    })
    .await;
    let state: String = sqlx::query_scalar("SELECT state::text FROM orders WHERE key = $1")
        .bind(poisoned)
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    // By its version the row is not the one that the process remembers.
    let poison =
        "UPDATE orders SET state = state || '{\"round\": \"?\"}', version = version + 1 WHERE key = $1";
    sqlx::query(poison).bind(poisoned).execute(&shop.pool).await.unwrap();
    clock.advance(SignedDuration::from_hours(25));
    until("the other order is given up", async || status(&shop, other).await == "REJECTING").await;
    until("the coupon has expired", async || !owned(&shop, &user, "EXPIRED").await.is_empty()).await;
    assert_eq!(owned(&shop, &user, "EXPIRED").await[0]["user_coupon_id"], json!(coupon));
    assert_eq!(status(&shop, poisoned).await, "PENDING");
    let postponed = "ordermill_deadlines_postponed{what=\"orders\"}";
    until("it is told", async || shop.metric(postponed).await == Some(1.0)).await;
    let mend = "UPDATE orders SET state = $2::jsonb, version = version - 1 WHERE key = $1";
    sqlx::query(mend).bind(poisoned).bind(state).execute(&shop.pool).await.unwrap();
    clock.advance(PAST_THE_PAUSE);
    until("it is given up as well", async || status(&shop, poisoned).await == "REJECTING").await;
    until("nothing is postponed", async || shop.metric(postponed).await == Some(0.0)).await;
    shop.behave(&json!({"timeout_after": 0.0})).await;
    for order_id in [poisoned, other] {
        assert_eq!(shop.settled(order_id).await["failure"]["code"], "DEADLINE_EXCEEDED");
    }
    running.stop().await;
    shop.assert_verified().await;
}

async fn status(shop: &Shop, order_id: Uuid) -> String {
    let status = sqlx::query_scalar("SELECT status FROM orders WHERE key = $1").bind(order_id);
    status.fetch_one(&shop.pool).await.unwrap()
}
