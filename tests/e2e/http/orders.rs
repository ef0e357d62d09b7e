//! Placing orders and following them.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ask, post_as};
use crate::support::{Shop, User, id, in_open_shop, order_of};

fn place(shop: &Shop, user: &User, order: &Value) -> RequestBuilder {
    post_as(shop, &user.key, "/orders", order.to_string())
}

fn get(shop: &Shop, user: &User, order_id: &Value) -> RequestBuilder {
    shop.request_as(&user.key, Method::GET, &format!("/orders/{}", order_id.as_str().unwrap()))
}

#[test]
fn an_order_is_accepted_pending_with_the_address_to_follow_it_at() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(50_000).await, shop.product(12_000, 5).await);
        let answer = ask(place(shop, &user, &order_of(&user, &[(lamp, 2)]))).await;
        let order = answer.with(202);
        let location = format!("/v1/orders/{}", order["order_id"].as_str().unwrap());
        assert_eq!(answer.header("location"), Some(location.as_str()));
        assert!(answer.header("retry-after").is_some());
        assert_eq!(answer.header("etag"), Some("\"1\""));
        let created_at = &order["created_at"];
        assert!(created_at.as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        let expected = json!({
            "order_id": order["order_id"], "user_id": user.id, "status": "PENDING", "failure": null,
            "lines": [{
                "product_id": lamp, "name": "Lamp", "unit_price": 12_000, "quantity": 2, "shipped_quantity": 0,
            }],
            "subtotal": 24_000, "discounts": [], "total": 24_000,
            "payment": {"method": "BALANCE", "status": "PENDING", "paid": 0, "refunded": 0},
            "overdue": false, "version": 1, "created_at": created_at, "updated_at": created_at,
        });
        assert_eq!(order, expected);
        assert_eq!(shop.settled(id(&order["order_id"])).await["status"], "CONFIRMED");
    });
}

#[test]
fn who_prefers_to_wait_is_answered_when_the_order_rests() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(1_000).await, shop.product(1_000, 5).await);
        let order = order_of(&user, &[(lamp, 1)]);
        let answer = ask(place(shop, &user, &order).header("Prefer", "wait=20")).await;
        let confirmed = answer.with(202);
        assert_eq!(confirmed["status"], "CONFIRMED", "{confirmed}");
        assert_eq!(answer.header("etag"), Some(format!("\"{}\"", confirmed["version"]).as_str()));
        assert_eq!(answer.header("preference-applied"), Some("wait=20"));
        assert_eq!(shop.balance(&user).await, (0, 0), "in a resting state everything is as it says");
        let accepted = ask(place(shop, &user, &order)).await.with(202);
        let rested = ask(get(shop, &user, &accepted["order_id"]).header("Prefer", "wait=20")).await.with(200);
        assert_eq!(
            (&rested["status"], &rested["failure"]["code"], &rested["payment"]["status"]),
            (&json!("REJECTED"), &json!("INSUFFICIENT_BALANCE"), &json!("FAILED"))
        );
        assert!(rested["failure"]["detail"].is_string());
    });
}

#[test]
fn who_has_the_version_of_an_order_is_not_sent_it_again() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(5_000).await, shop.product(1_000, 5).await);
        let order = shop.order(&user, &[(lamp, 1)]).await;
        let request = || get(shop, &user, &order["order_id"]);
        let shown = ask(request()).await;
        assert_eq!(shown.with(200), order);
        let etag = shown.header("etag").unwrap();
        assert_eq!(etag, format!("\"{}\"", order["version"]));
        for known in [etag, &format!("W/{etag}"), &format!("\"0\", {etag}"), "*"] {
            let answer = ask(request().header("If-None-Match", known)).await;
            assert_eq!((answer.status, answer.body.as_str()), (304, ""), "{known}");
            assert_eq!(answer.header("etag"), Some(etag));
        }
        ask(request().header("If-None-Match", "\"1\"")).await.with(200);
    });
}

#[test]
fn lines_that_can_not_be_ordered_are_named() {
    in_open_shop(async |shop| {
        let (user, lamp, chair) = (shop.user(0).await, shop.product(1, 5).await, shop.product(1, 5).await);
        let many: Vec<_> = (0..51).map(|_| (Uuid::now_v7(), 1)).collect();
        for (lines, fields) in [
            (&[][..], &["lines"][..]),
            (&many, &["lines"]),
            (&[(lamp, 1), (chair, 1), (lamp, 2)], &["lines[2].product_id"]),
            (&[(lamp, 0), (chair, 10_001)], &["lines[0].quantity", "lines[1].quantity"]),
            (&[(lamp, -1)], &["lines[0].quantity"]),
        ] {
            ask(place(shop, &user, &order_of(&user, lines))).await.refused_for(fields);
        }
        let unknown = order_of(&user, &[(lamp, 1), (Uuid::now_v7(), 1)]);
        let problem = ask(place(shop, &user, &unknown)).await.refused(422, "PRODUCT_NOT_FOUND");
        assert_eq!(problem["errors"][0]["field"], "lines[1].product_id");
        let none = format!("SELECT count(*) FROM orders WHERE user_id = '{}'", user.id);
        assert_eq!(shop.count(&none).await, 0);
    });
}

#[test]
fn fifty_lines_of_up_to_ten_thousand_units_are_an_order() {
    in_open_shop(async |shop| {
        let user = shop.user(1_000_000).await;
        let mut lines = vec![(shop.product(1, 10_000).await, 10_000)];
        while lines.len() < 50 {
            lines.push((shop.product(1, 1).await, 1));
        }
        let order = shop.order(&user, &lines).await;
        assert_eq!((&order["status"], &order["total"]), (&json!("CONFIRMED"), &json!(10_049)));
        assert_eq!(shop.balance(&user).await, (989_951, 0));
    });
}

#[test]
fn a_client_can_set_no_price_and_no_status() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(0).await, shop.product(1_000, 5).await);
        let order = |change: &dyn Fn(&mut Value)| {
            let mut order = order_of(&user, &[(lamp, 1)]);
            change(&mut order);
            order
        };
        for order in [
            order(&|order| order["lines"][0]["unit_price"] = json!(1)),
            order(&|order| order["total"] = json!(1)),
            order(&|order| order["status"] = json!("CONFIRMED")),
            order(&|order| order["lines"][0]["quantity"] = json!(1.5)),
            order(&|order| order["lines"][0]["quantity"] = json!("1")),
            order(&|order| order["lines"][0]["product_id"] = json!("lamp")),
            order(&|order| order["payment_method"] = json!("CASH")),
            order(&|order| order["lines"] = json!(null)),
            order(&|order| order["lines"] = json!([[lamp, 1]])),
            json!([user.id, [{"product_id": lamp, "quantity": 1}], null, null]),
            order(&|order| drop(order.as_object_mut().unwrap().remove("user_id"))),
        ] {
            ask(place(shop, &user, &order)).await.refused(400, "INVALID_JSON");
        }
    });
}
