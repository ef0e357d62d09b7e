//! Orders whose lines are replaced: the difference, or nothing.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Shop, answer, id, lines_of};

/// What a client sees of an order but for its version and what became of the modification.
fn apart_from_the_modification(order: &Value) -> Value {
    let mut order = order.clone();
    for member in ["version", "updated_at", "last_modification"] {
        order.as_object_mut().unwrap().remove(member);
    }
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_can_have_more_less_and_other_lines_and_pays_the_difference() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let user = shop.user(100_000).await;
    let (lamp, chair) = (shop.product(10_000, 5).await, shop.product(7_000, 5).await);
    let order = shop.order(&user, &[(lamp, 1)]).await;
    for (lines, total, paid, refunded, stock) in [
        (&[(lamp, 3)][..], 30_000, 30_000, 0, (2, 5)),
        (&[(lamp, 1), (chair, 1)], 17_000, 30_000, 13_000, (4, 4)),
        (&[(chair, 2)], 14_000, 30_000, 16_000, (5, 3)),
        (&[(chair, 2)], 14_000, 30_000, 16_000, (5, 3)),
        (&[(chair, 4), (lamp, 1)], 38_000, 54_000, 16_000, (4, 1)),
    ] {
        let before = shop.settled(id(&order["order_id"])).await;
        let (status, modifying) = shop.modify(&user, &before, lines).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{modifying}");
        assert_eq!(modifying["status"], "MODIFYING");
        let after = shop.settled(id(&order["order_id"])).await;
        assert_eq!(after["status"], "CONFIRMED");
        assert_eq!(after["last_modification"], json!({"status": "APPLIED", "failure": null}));
        assert_eq!(
            (&after["total"], &after["lines"].as_array().unwrap().len()),
            (&json!(total), &lines.len())
        );
        let payment = &after["payment"];
        assert_eq!((&payment["paid"], &payment["refunded"]), (&json!(paid), &json!(refunded)));
        assert_eq!(shop.balance(&user).await, (100_000 - total, 0));
        assert_eq!((shop.stock(lamp).await, shop.stock(chair).await), stock);
    }
    // What was paid in two charges is paid back from both.
    let order_id = id(&order["order_id"]);
    let (status, _) = shop.ask(&user.key, order_id, "cancellation", &json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let order = shop.settled(order_id).await;
    assert_eq!((&order["status"], &order["payment"]["refunded"]), (&json!("CANCELLED"), &json!(54_000)));
    assert_eq!(shop.balance(&user).await, (100_000, 0));
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modification_that_is_refused_leaves_the_order_exactly_as_it_was() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let user = shop.user(40_000).await;
    let (lamp, chair) = (shop.product(10_000, 5).await, shop.product(1_000, 1).await);
    let order = shop.order(&user, &[(lamp, 2)]).await;
    let order_id = id(&order["order_id"]);
    for (decline, lines, code) in [
        (0.0, &[(lamp, 1), (chair, 2)][..], "OUT_OF_STOCK"),
        (0.0, &[(lamp, 5)], "INSUFFICIENT_BALANCE"),
        (1.0, &[(lamp, 3)], "PAYMENT_DECLINED"),
    ] {
        shop.behave(&json!({"decline": decline})).await;
        let before = shop.settled(order_id).await;
        assert_eq!(shop.modify(&user, &before, lines).await.0, StatusCode::ACCEPTED);
        let after = shop.settled(order_id).await;
        assert_eq!(apart_from_the_modification(&after), apart_from_the_modification(&before));
        assert_eq!(after["last_modification"]["status"], "REFUSED");
        assert_eq!(after["last_modification"]["failure"]["code"], code);
        assert_eq!(shop.balance(&user).await, (20_000, 0));
        assert_eq!((shop.stock(lamp).await, shop.stock(chair).await), (3, 1));
    }
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modification_needs_the_version_that_the_client_has_seen() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(100_000).await, shop.product(10_000, 5).await);
    let order = shop.order(&user, &[(lamp, 1)]).await;
    let path = format!("/orders/{}", id(&order["order_id"]));
    let body = json!({"lines": lines_of(&[(lamp, 2)])});
    let (status, problem) = answer(shop.request_as(&user.key, Method::PATCH, &path).json(&body)).await;
    assert_eq!((status.as_u16(), &problem["code"]), (428, &json!("PRECONDITION_REQUIRED")));
    let stale = json!({"order_id": order["order_id"], "version": 1});
    let (status, problem) = shop.modify(&user, &stale, &[(lamp, 2)]).await;
    assert_eq!((status.as_u16(), &problem["code"]), (412, &json!("VERSION_MISMATCH")));
    let (status, problem) = shop.modify(&user, &order, &[(uuid::Uuid::nil(), 2)]).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("PRODUCT_NOT_FOUND")));
    let (status, problem) = shop.modify(&user, &order, &[]).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("VALIDATION_FAILED")));
    let refused = shop.order(&user, &[(lamp, 99)]).await;
    let (status, problem) = shop.modify(&user, &refused, &[(lamp, 1)]).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("ORDER_BUSY")));
    // Two at once that have seen the same version: one of them has to look again.
    let wanted = ([(lamp, 2)], [(lamp, 3)]);
    let (one, two) =
        tokio::join!(shop.modify(&user, &order, &wanted.0), shop.modify(&user, &order, &wanted.1));
    let mut statuses = [one.0.as_u16(), two.0.as_u16()];
    statuses.sort_unstable();
    assert!(statuses == [202, 409] || statuses == [202, 412], "{statuses:?}");
    shop.settled(id(&order["order_id"])).await;
    running.stop().await;
    shop.assert_verified().await;
}
