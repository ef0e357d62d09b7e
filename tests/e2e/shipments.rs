//! Orders that leave in parts and arrive.

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{ADMIN_KEY, Shop, answer, id, lines_of};

async fn ship(shop: &Shop, order_id: Uuid, lines: &[(Uuid, i32)]) -> (StatusCode, Value) {
    let body = json!({"lines": lines_of(lines), "tracking_number": "6112 4711"});
    shop.ask(ADMIN_KEY, order_id, "shipments", &body).await
}

async fn deliver(shop: &Shop, shipment: &Value) -> Value {
    let path = format!("/shipments/{}/delivery", id(&shipment["shipment_id"]));
    let (status, shipment) = shop.post(&path, &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{shipment}");
    shipment
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_leaves_in_parts_and_is_delivered_when_all_of_it_is() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let user = shop.user(100_000).await;
    let (lamp, chair) = (shop.product(1_000, 9).await, shop.product(2_000, 9).await);
    let order_id = id(&shop.order(&user, &[(lamp, 3), (chair, 1)]).await["order_id"]);
    let path = format!("/orders/{order_id}");
    let (status, first) = ship(&shop, order_id, &[(lamp, 2)]).await;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    assert_eq!((&first["status"], &first["tracking_number"]), (&json!("SHIPPED"), &json!("6112 4711")));
    let order = shop.get(&path).await;
    assert_eq!(
        (&order["status"], &order["lines"][0]["shipped_quantity"]),
        (&json!("PARTIALLY_SHIPPED"), &json!(2))
    );
    let delivered = deliver(&shop, &first).await;
    assert_eq!(
        (&delivered["status"], &delivered["tracking_number"]),
        (&json!("DELIVERED"), &json!("6112 4711"))
    );
    assert_eq!(shop.get(&path).await["status"], "PARTIALLY_SHIPPED");
    for too_much in [&[(lamp, 2)][..], &[(chair, 2)], &[(Uuid::nil(), 1)]] {
        let (status, problem) = ship(&shop, order_id, too_much).await;
        assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("NOTHING_TO_SHIP")));
    }
    let (_, second) = ship(&shop, order_id, &[(chair, 1)]).await;
    let (_, third) = ship(&shop, order_id, &[(lamp, 1)]).await;
    assert_eq!(shop.get(&path).await["status"], "SHIPPED");
    let (status, problem) = ship(&shop, order_id, &[(lamp, 1)]).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("ORDER_BUSY")));
    deliver(&shop, &third).await;
    assert_eq!(shop.get(&path).await["status"], "SHIPPED");
    deliver(&shop, &second).await;
    let delivered = shop.get(&path).await;
    assert_eq!(delivered["status"], "DELIVERED");
    // Arriving again changes nothing.
    deliver(&shop, &second).await;
    assert_eq!(shop.get(&path).await, delivered);
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shipment_that_is_repeated_is_answered_as_before_and_its_number_is_not_kept_with_the_answer() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(100_000).await, shop.product(1_000, 9).await);
    let order_id = id(&shop.order(&user, &[(lamp, 3)]).await["order_id"]);
    let body = json!({"lines": lines_of(&[(lamp, 1)]), "tracking_number": "6112 4711"});
    let ship = async || {
        let request = shop.request(Method::POST, &format!("/orders/{order_id}/shipments"));
        answer(request.header("Idempotency-Key", "parcel").json(&body)).await
    };
    let first = ship().await;
    assert_eq!((first.0, &first.1["tracking_number"]), (StatusCode::CREATED, &json!("6112 4711")));
    assert_eq!(ship().await, first);
    assert_eq!(shop.count("SELECT count(*) FROM shipments").await, 1);
    assert_eq!(shop.count("SELECT count(*) FROM idempotency_keys WHERE body LIKE '%4711%'").await, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_ships_twice_however_many_send_it_off_at_once() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let (user, lamp) = (shop.user(100_000).await, shop.product(1_000, 9).await);
    let order_id = id(&shop.order(&user, &[(lamp, 3)]).await["order_id"]);
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let shop = shop.clone();
        calls.spawn(async move { ship(&shop, order_id, &[(lamp, 1)]).await });
    }
    let (mut shipped, mut refused) = (Vec::new(), 0);
    while let Some(call) = calls.join_next().await {
        match call.unwrap() {
            (StatusCode::CREATED, shipment) => shipped.push(shipment),
            (StatusCode::CONFLICT, _) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((shipped.len(), refused), (3, 7));
    let mut deliveries = JoinSet::new();
    for shipment in shipped.into_iter().flat_map(|shipment| [shipment.clone(), shipment]) {
        let shop = shop.clone();
        deliveries.spawn(async move { deliver(&shop, &shipment).await });
    }
    deliveries.join_all().await;
    assert_eq!(shop.get(&format!("/orders/{order_id}")).await["status"], "DELIVERED");
    running.stop().await;
    shop.assert_verified().await;
}
