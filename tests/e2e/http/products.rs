//! What is sold.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, ask, post_again, post_as};
use crate::support::{ADMIN_KEY, Shop, id, in_open_shop, order_of};

fn green_tea() -> Value {
    json!({"name": "Green tea", "description": "First flush", "category": "Food", "price": 9_000, "stock": 3})
}

async fn add(shop: &Shop, product: &Value) -> Answer {
    let request =
        shop.request(Method::POST, "/products").header("Idempotency-Key", Uuid::new_v4().to_string());
    ask(request.json(product)).await
}

#[test]
fn a_product_is_shown_to_everybody_as_it_was_added() {
    in_open_shop(async |shop| {
        let answer = add(shop, &green_tea()).await;
        let product = answer.with(201);
        let path = format!("/v1/products/{}", product["product_id"].as_str().unwrap());
        assert_eq!(answer.header("location"), Some(path.as_str()));
        assert_eq!(ask(shop.request_as_nobody(Method::GET, &path)).await.with(200), product);
        let mut expected = green_tea();
        expected["category"] = json!("FOOD");
        expected["status"] = json!("ON_SALE");
        for member in ["product_id", "created_at", "updated_at"] {
            expected[member] = product[member].clone();
        }
        assert_eq!(product, expected);
        let sold_out = json!({"name": "Tea", "description": "", "category": "x", "price": 0, "stock": 0});
        assert_eq!(add(shop, &sold_out).await.with(201)["status"], "SOLD_OUT");
    });
}

#[test]
fn every_field_of_a_product_that_is_out_of_range_is_named() {
    in_open_shop(async |shop| {
        let with = |field: &str, value: Value| {
            let mut product = green_tea();
            product[field] = value;
            product
        };
        for (field, value) in [
            ("name", json!("")),
            ("name", json!("Green\u{0}tea")),
            ("description", json!("\u{0}")),
            ("category", json!("c".repeat(65))),
            ("category", json!("a\u{0}b")),
            ("price", json!(-1)),
            ("stock", json!(-1)),
        ] {
            add(shop, &with(field, value)).await.refused_for(&[field]);
        }
        let all =
            json!({"name": " ", "description": "d".repeat(10_001), "category": "", "price": -1, "stock": -1});
        add(shop, &all).await.refused_for(&["name", "description", "category", "price", "stock"]);
        add(shop, &with("price", json!(1.5))).await.refused(400, "INVALID_JSON");
        add(shop, &with("colour", json!("green"))).await.refused(400, "INVALID_JSON");
    });
}

async fn change(shop: &Shop, product_id: Uuid, change: Value) -> Answer {
    ask(shop.request(Method::PATCH, &format!("/products/{product_id}")).json(&change)).await
}

/// The events of a product's description, oldest first.
async fn history(shop: &Shop, product_id: Uuid) -> Vec<(String, i32, Value)> {
    let rows: Vec<(String, i32, Vec<u8>)> = sqlx::query_as(
        "SELECT type, sequence, data FROM event_log WHERE topic = 'products' AND aggregate_id = $1
         ORDER BY position",
    )
    .bind(product_id)
    .fetch_all(&shop.pool)
    .await
    .unwrap();
    rows.into_iter().map(|(name, at, data)| (name, at, serde_json::from_slice(&data).unwrap())).collect()
}

#[test]
fn a_product_is_changed_where_the_change_says_and_its_event_tells_all_of_it() {
    in_open_shop(async |shop| {
        let before = add(shop, &green_tea()).await.with(201);
        let product_id = id(&before["product_id"]);
        let after = change(shop, product_id, json!({"price": 8_500, "category": "drinks"})).await.with(200);
        let mut expected = before.clone();
        (expected["price"], expected["category"]) = (json!(8_500), json!("DRINKS"));
        assert_ne!(after["updated_at"], before["updated_at"]);
        expected["updated_at"] = after["updated_at"].clone();
        assert_eq!(after, expected);
        assert_eq!(shop.get(&format!("/products/{product_id}")).await, expected);
        let events = history(shop, product_id).await;
        let told = json!({"product_id": product_id, "name": "Green tea", "description": "First flush",
            "category": "DRINKS", "price": 8_500, "withdrawn": false});
        assert_eq!((events.len(), &events[1]), (2, &("product.changed".to_owned(), 2, told)));
        // The same again changes nothing, so nothing is told.
        assert_eq!(change(shop, product_id, json!({"price": 8_500})).await.with(200), expected);
        assert_eq!(history(shop, product_id).await.len(), 2);
    });
}

#[test]
fn a_withdrawn_product_is_shown_and_not_sold_until_it_comes_back() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(1_000).await, shop.product(100, 5).await);
        let order = || {
            let body = order_of(&user, &[(lamp, 1)]).to_string();
            ask(post_as(shop, &user.key, "/orders", body))
        };
        let withdrawn = change(shop, lamp, json!({"withdrawn": true})).await.with(200);
        assert_eq!((&withdrawn["status"], &withdrawn["stock"]), (&json!("WITHDRAWN"), &json!(5)));
        assert_eq!(shop.get(&format!("/products/{lamp}")).await, withdrawn);
        let problem = order().await.refused(422, "PRODUCT_WITHDRAWN");
        assert_eq!(problem["errors"][0]["field"], "lines[0].product_id");
        let back = change(shop, lamp, json!({"withdrawn": false})).await.with(200);
        assert_eq!(back["status"], "ON_SALE");
        order().await.with(202);
    });
}

#[test]
fn changes_at_once_are_all_made_one_after_the_other() {
    in_open_shop(async |shop| {
        let lamp = shop.product(100, 1).await;
        let mut answers = tokio::task::JoinSet::new();
        for price in 1..=20 {
            let request = shop.request(Method::PATCH, &format!("/products/{lamp}"));
            answers.spawn(ask(request.json(&json!({"price": price}))));
        }
        for answer in answers.join_all().await {
            answer.with(200);
        }
        let events = history(shop, lamp).await;
        assert_eq!(events.iter().map(|(_, at, _)| *at).collect::<Vec<_>>(), (1..=21).collect::<Vec<_>>());
        let price = shop.get(&format!("/products/{lamp}")).await["price"].clone();
        assert_eq!(events[20].2["price"], price, "the last one told is what stands");
    });
}

#[test]
fn a_change_that_can_not_be_is_refused_and_changes_nothing() {
    in_open_shop(async |shop| {
        let product = add(shop, &green_tea()).await.with(201);
        let (product_id, user) = (id(&product["product_id"]), shop.user(0).await);
        change(shop, product_id, json!({})).await.refused_for(&["body"]);
        let wrong = json!({"name": "", "description": "\u{0}", "category": " ", "price": -1});
        change(shop, product_id, wrong).await.refused_for(&["name", "description", "category", "price"]);
        change(shop, product_id, json!({"name": "a\u{0}b", "price": 5})).await.refused_for(&["name"]);
        for wrong in [json!({"stock": 5}), json!({"price": null}), json!({"withdrawn": "yes"})] {
            change(shop, product_id, wrong).await.refused(400, "INVALID_JSON");
        }
        change(shop, Uuid::now_v7(), json!({"price": 5})).await.refused(404, "PRODUCT_NOT_FOUND");
        let request = shop.request_as(&user.key, Method::PATCH, &format!("/products/{product_id}"));
        ask(request.json(&json!({"price": 5}))).await.refused(403, "FORBIDDEN");
        assert_eq!(shop.get(&format!("/products/{product_id}")).await, product);
        assert_eq!(history(shop, product_id).await.len(), 1);
    });
}

fn adjust(shop: &Shop, product_id: Uuid, delta: i64) -> impl Future<Output = Answer> + use<> {
    let body = json!({"delta": delta, "reason": "counted"}).to_string();
    ask(post_as(shop, ADMIN_KEY, &format!("/products/{product_id}/stock"), body))
}

#[test]
fn a_product_is_sold_out_without_stock_and_on_sale_when_some_comes() {
    in_open_shop(async |shop| {
        let before = add(shop, &green_tea()).await.with(201);
        let product_id = id(&before["product_id"]);
        for (delta, stock, status) in
            [(-3, 0, "SOLD_OUT"), (5, 5, "ON_SALE"), (1_000_000_000, 1_000_000_005, "ON_SALE")]
        {
            let product = adjust(shop, product_id, delta).await.with(200);
            let mut expected = before.clone();
            (expected["stock"], expected["status"]) = (json!(stock), json!(status));
            assert_eq!(product, expected);
            assert_eq!(shop.get(&format!("/products/{product_id}")).await, expected);
        }
        let events: Vec<(i32, Vec<u8>)> = sqlx::query_as(
            "SELECT sequence, data FROM event_log WHERE type = 'stock.adjusted' AND aggregate_id = $1
             ORDER BY position",
        )
        .bind(product_id)
        .fetch_all(&shop.pool)
        .await
        .unwrap();
        let (numbers, data): (Vec<i32>, Vec<Vec<u8>>) = events.into_iter().unzip();
        assert_eq!(numbers, [1, 2, 3, 4]);
        let told: Value = serde_json::from_slice(&data[1]).unwrap();
        assert_eq!(told, json!({"product_id": product_id, "delta": -3, "reason": "counted"}));
    });
}

#[test]
fn of_twenty_who_take_one_of_the_last_ten_away_ten_do() {
    in_open_shop(async |shop| {
        let lamp = shop.product(100, 10).await;
        let mut answers = tokio::task::JoinSet::new();
        for _ in 0..20 {
            answers.spawn(adjust(shop, lamp, -1));
        }
        let mut taken = 0;
        for answer in answers.join_all().await {
            if answer.status == 200 {
                taken += 1;
            } else {
                answer.refused(409, "OUT_OF_STOCK");
            }
        }
        assert_eq!((taken, shop.stock(lamp).await), (10, 0));
        let received = format!("SELECT received FROM stock WHERE key = '{lamp}'");
        assert_eq!(shop.count(&received).await, 0);
    });
}

#[test]
fn what_is_held_for_an_order_is_not_taken_away() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(1_000).await, shop.product(100, 5).await);
        assert_eq!(shop.order(&user, &[(lamp, 3)]).await["status"], "CONFIRMED");
        adjust(shop, lamp, -3).await.refused(409, "OUT_OF_STOCK");
        assert_eq!(adjust(shop, lamp, -2).await.with(200)["stock"], 0);
    });
}

#[test]
fn an_adjustment_is_made_once_however_often_it_is_sent() {
    in_open_shop(async |shop| {
        let lamp = shop.product(100, 5).await;
        let (path, key) = (format!("/products/{lamp}/stock"), Uuid::new_v4().to_string());
        let send = |delta: i64| {
            let body = json!({"delta": delta, "reason": "counted"}).to_string();
            ask(post_again(shop, ADMIN_KEY, &path, &key, body))
        };
        let first = send(2).await;
        let again = send(2).await;
        assert_eq!((first.with(200), again.header("idempotency-replayed")), (again.with(200), Some("true")));
        send(3).await.refused(422, "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(shop.stock(lamp).await, 7);
    });
}

#[test]
fn an_adjustment_that_can_not_be_is_refused_and_changes_nothing() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(0).await, shop.product(100, 5).await);
        let path = format!("/products/{lamp}/stock");
        let send = |key: &str, body: Value| ask(post_as(shop, key, &path, body.to_string()));
        for (delta, reason, fields) in [
            (json!(0), "counted".to_owned(), &["delta"][..]),
            (json!(1_000_000_001), String::new(), &["delta", "reason"]),
            (json!(-1_000_000_001), "r".repeat(501), &["delta", "reason"]),
            (json!(1), "a\u{0}b".to_owned(), &["reason"]),
        ] {
            send(ADMIN_KEY, json!({"delta": delta, "reason": reason})).await.refused_for(fields);
        }
        for wrong in [json!({"delta": 1}), json!({"delta": 1.5, "reason": "r"}), json!({"stock": 5})] {
            send(ADMIN_KEY, wrong).await.refused(400, "INVALID_JSON");
        }
        send(&user.key, json!({"delta": 1, "reason": "r"})).await.refused(403, "FORBIDDEN");
        send(ADMIN_KEY, json!({"delta": -6, "reason": "r"})).await.refused(409, "OUT_OF_STOCK");
        adjust(shop, Uuid::now_v7(), 1).await.refused(404, "PRODUCT_NOT_FOUND");
        assert_eq!(shop.stock(lamp).await, 5);
    });
}
