//! One order at a time: the path to CONFIRMED and the ways to REJECTED.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Shop, answer, id, order_of};

pub(crate) fn types(timeline: &Value) -> Vec<&str> {
    timeline["items"].as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_several_products_is_reserved_paid_deducted_and_confirmed() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let user = shop.user(100_000).await;
    let (lamp, chair) = (shop.product(12_000, 5).await, shop.product(7_500, 9).await);
    let order = shop.order(&user, &[(lamp, 2), (chair, 3)]).await;
    assert_eq!(order["status"], "CONFIRMED", "{order}");
    assert_eq!(order["total"], 46_500);
    assert_eq!(
        order["payment"],
        json!({"method": "BALANCE", "status": "COMPLETED", "paid": 46_500, "refunded": 0})
    );
    assert_eq!(shop.balance(&user).await, (53_500, 0));
    assert_eq!((shop.stock(lamp).await, shop.stock(chair).await), (3, 6));
    let entries = shop.get(&format!("/users/{}/balance/entries", user.id)).await;
    assert_eq!(entries["items"][0]["kind"], "USED");
    assert_eq!(entries["items"][0]["balance_after"], 53_500);
    assert_eq!(entries["items"][0]["order_id"], order["order_id"]);
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeline_tells_every_step_and_where_it_lay_in_kafka() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(12_000, 5).await);
    let order = shop.order(&user, &[(lamp, 1)]).await;
    let timeline = shop.get(&format!("/orders/{}/events", id(&order["order_id"]))).await;
    assert_eq!(
        types(&timeline),
        [
            "order.placed",
            "stock.reserved",
            "order.payment_due",
            "balance.held",
            "payment.requested",
            "balance.captured",
            "payment.completed",
            "stock.deducted",
            "order.confirmed",
        ]
    );
    let placed = &timeline["items"][0];
    assert_eq!(placed["actor"], format!("user:{}", user.id));
    assert_eq!(placed["kafka"]["topic"], "orders");
    assert_eq!(placed["data"]["lines"][0]["unit_price"], 12_000);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_order_leaves_no_trace_in_stock_or_balance() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let user = shop.user(50_000).await;
    let (lamp, rare) = (shop.product(12_000, 5).await, shop.product(1_000, 1).await);
    let order = shop.order(&user, &[(lamp, 1), (rare, 2)]).await;
    assert_eq!((&order["status"], &order["failure"]["code"]), (&json!("REJECTED"), &json!("OUT_OF_STOCK")));
    let order = shop.order(&user, &[(lamp, 5)]).await;
    assert_eq!(
        (&order["status"], &order["failure"]["code"]),
        (&json!("REJECTED"), &json!("INSUFFICIENT_BALANCE"))
    );
    shop.behave(&json!({"decline": 1.0})).await;
    let order = shop.order(&user, &[(lamp, 1)]).await;
    assert_eq!(
        (&order["status"], &order["failure"]["code"]),
        (&json!("REJECTED"), &json!("PAYMENT_DECLINED"))
    );
    assert_eq!(order["payment"]["status"], "FAILED");
    assert_eq!(shop.balance(&user).await, (50_000, 0));
    assert_eq!((shop.stock(lamp).await, shop.stock(rare).await), (5, 1));
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_errs_and_loses_answers_charges_every_order_once() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(1_000_000).await, shop.product(1_000, 100).await);
    shop.behave(&json!({"error": 0.5, "timeout_after": 0.2, "duplicate_callback": 0.5})).await;
    let mut orders = Vec::new();
    for _ in 0..12 {
        orders.push(id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]));
    }
    for order in orders {
        let order = shop.settled(order).await;
        assert_eq!(order["status"], "CONFIRMED", "{order}");
    }
    assert_eq!(shop.balance(&user).await, (988_000, 0));
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_transfer_is_five_percent_off_and_touches_no_balance() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(0).await, shop.product(333, 5).await);
    let mut order = order_of(&user, &[(lamp, 3)]);
    order["payment_method"] = json!("BANK_TRANSFER");
    let request = shop
        .request_as(&user.key, Method::POST, "/orders")
        .header("Idempotency-Key", "transfer")
        .header("Prefer", "wait=20");
    let (status, order) = answer(request.json(&order)).await;
    assert_eq!(status, 202);
    assert_eq!(order["status"], "CONFIRMED", "{order}");
    assert_eq!(order["discounts"], json!([{"kind": "PAYMENT_METHOD", "amount": 49}]));
    assert_eq!((&order["subtotal"], &order["total"]), (&json!(999), &json!(950)));
    running.stop().await;
    shop.assert_verified().await;
}
