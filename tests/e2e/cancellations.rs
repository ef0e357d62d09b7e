//! Orders that are cancelled: everything back, once.

use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::orders::types;
use crate::support::{ADMIN_KEY, Shop, User, id, lines_of, order_of};

async fn cancel(shop: &Shop, user: &User, order_id: Uuid) -> (StatusCode, Value) {
    shop.ask(&user.key, order_id, "cancellation", &json!({"reason": "by mistake"})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_gives_everything_back_once_however_often_it_is_cancelled() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(12_000, 5).await);
    let order_id = id(&shop.order(&user, &[(lamp, 2)]).await["order_id"]);
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let (shop, user) = (shop.clone(), user.clone());
        calls.spawn(async move { cancel(&shop, &user, order_id).await });
    }
    while let Some(call) = calls.join_next().await {
        let (status, order) = call.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{order}");
    }
    let order = shop.settled(order_id).await;
    assert_eq!(order["status"], "CANCELLED");
    assert_eq!(
        order["payment"],
        json!({"method": "BALANCE", "status": "REFUNDED", "paid": 24_000, "refunded": 24_000})
    );
    assert_eq!(shop.balance(&user).await, (50_000, 0));
    assert_eq!(shop.stock(lamp).await, 5);
    let entries = shop.get(&format!("/users/{}/balance/entries", user.id)).await;
    let kinds: Vec<&Value> =
        entries["items"].as_array().unwrap().iter().map(|entry| &entry["kind"]).collect();
    assert_eq!(kinds, ["REFUNDED", "USED", "CHARGED"]);
    let timeline = shop.get(&format!("/orders/{order_id}/events")).await;
    for (event, count) in [("order.cancelling", 1), ("payment.refunded", 1), ("order.cancelled", 1)] {
        assert_eq!(types(&timeline).iter().filter(|found| **found == event).count(), count, "{event}");
    }
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_paid_back_through_a_gateway_that_errs() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(0).await, shop.product(12_000, 5).await);
    let mut body = order_of(&user, &[(lamp, 1)]);
    body["payment_method"] = json!("CARD");
    let (status, order) = shop.post("/orders", &body).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let order = shop.settled(id(&order["order_id"])).await;
    assert_eq!(order["status"], "CONFIRMED", "{order}");
    shop.behave(&json!({"error": 0.5, "timeout_after": 0.2})).await;
    let order_id = id(&order["order_id"]);
    assert_eq!(cancel(&shop, &user, order_id).await.0, StatusCode::ACCEPTED);
    let order = shop.settled(order_id).await;
    assert_eq!((&order["status"], &order["payment"]["refunded"]), (&json!("CANCELLED"), &json!(12_000)));
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_cancelled_says_why() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(1_000, 5).await);
    let refused = shop.order(&user, &[(lamp, 9)]).await;
    let (status, problem) = cancel(&shop, &user, id(&refused["order_id"])).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("ORDER_NOT_CANCELLABLE")));
    let shipped = id(&shop.order(&user, &[(lamp, 2)]).await["order_id"]);
    let lines = json!({"lines": lines_of(&[(lamp, 1)])});

    assert_eq!(shop.ask(ADMIN_KEY, shipped, "shipments", &lines).await.0, StatusCode::CREATED);
    let (status, problem) = cancel(&shop, &user, shipped).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("ORDER_SHIPPED")));
    let stranger = shop.user(0).await;
    let (status, problem) = cancel(&shop, &stranger, shipped).await;
    assert_eq!((status.as_u16(), &problem["code"]), (404, &json!("ORDER_NOT_FOUND")));
    shop.behave(&json!({"latency_ms": [2_000, 2_000]})).await;
    let pending = id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]);
    let (status, problem) = cancel(&shop, &user, pending).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("ORDER_BUSY")));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_cancelling_modifying_and_shipping_at_once_one_wins() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let (user, lamp) = (shop.user(1_000_000).await, shop.product(1_000, 500).await);
    for _ in 0..5 {
        shop.behave(&json!({"latency_ms": [0, 0]})).await;
        let order = shop.order(&user, &[(lamp, 2)]).await;
        let order_id = id(&order["order_id"]);
        let lines = json!({"lines": lines_of(&[(lamp, 2)])});
        // Whoever begins first is not done before the others have asked.
        shop.behave(&json!({"latency_ms": [1_000, 1_000]})).await;
        let more = [(lamp, 3)];
        let (cancelled, modified, shipped) = tokio::join!(
            cancel(&shop, &user, order_id),
            shop.modify(&user, &order, &more),
            shop.ask(ADMIN_KEY, order_id, "shipments", &lines),
        );
        let winners = [cancelled.0, modified.0, shipped.0].iter().filter(|s| s.is_success()).count();
        // Whoever wins puts the order in a status that the other two are refused from.
        assert_eq!(winners, 1, "{cancelled:?}\n{modified:?}\n{shipped:?}");
        let order = shop.settled(order_id).await;
        let expected = match (cancelled.0.is_success(), modified.0.is_success()) {
            (true, _) => "CANCELLED",
            (_, true) => "CONFIRMED",
            _ => "SHIPPED",
        };
        assert_eq!(order["status"], expected);
    }
    running.stop().await;
    shop.assert_verified().await;
}
