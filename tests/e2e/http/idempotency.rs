//! Requests that are sent again.

use serde_json::json;
use uuid::Uuid;

use super::{ask, charges, post_again, post_as};
use crate::support::{Shop, id, in_open_shop, order_of};

const CHARGE: &str = r#"{"amount": 700}"#;

fn product(name: &str) -> String {
    json!({"name": name, "description": "", "category": "light", "price": 5, "stock": 5}).to_string()
}

#[test]
fn every_post_that_takes_a_key_refuses_to_go_without_one() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(0).await, shop.product(5, 5).await);
        for (path, body) in [
            (charges(&user), CHARGE.to_owned()),
            ("/orders".to_owned(), order_of(&user, &[(lamp, 1)]).to_string()),
            ("/products".to_owned(), product("Lamp")),
        ] {
            let request = || shop.request(reqwest::Method::POST, &path).body(body.clone());
            ask(request()).await.refused(400, "IDEMPOTENCY_KEY_MISSING");
            for key in ["", "a b", &"k".repeat(256)] {
                let answer = ask(request().header("Idempotency-Key", key)).await;
                answer.refused(400, "IDEMPOTENCY_KEY_MISSING");
            }
            let twice = request().header("Idempotency-Key", "one").header("Idempotency-Key", "other");
            ask(twice).await.refused(400, "IDEMPOTENCY_KEY_MISSING");
        }
        ask(post_again(shop, &user.key, &charges(&user), &"k".repeat(255), CHARGE)).await.with(201);
        assert_eq!(shop.balance(&user).await, (700, 0));
    });
}

#[test]
fn a_charge_that_is_repeated_is_answered_again_and_not_done_again() {
    in_open_shop(async |shop| {
        let user = shop.user(0).await;
        let first = ask(post_again(shop, &user.key, &charges(&user), "once", CHARGE)).await;
        first.with(201);
        assert_eq!(first.header("idempotency-replayed"), None);
        for same in [CHARGE, "{\n\t\"amount\":700 }", "{\"\\u0061mount\":700}"] {
            let again = ask(post_again(shop, &user.key, &charges(&user), "once", same)).await;
            assert_eq!((again.status, &again.body), (first.status, &first.body));
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
        }
        assert_eq!(shop.balance(&user).await, (700, 0));
        let other = ask(post_again(shop, &user.key, &charges(&user), "once", r#"{"amount": 701}"#)).await;
        other.refused(422, "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(shop.balance(&user).await, (700, 0));
    });
}

#[test]
fn a_product_that_is_repeated_in_another_order_of_members_is_one_product() {
    in_open_shop(async |shop| {
        let (key, name) = (Uuid::new_v4().to_string(), format!("Lamp {}", Uuid::new_v4()));
        let add = async |body: String| ask(post_again_as_admin(shop, &key, body)).await;
        let first = add(product(&name)).await;
        first.with(201);
        assert!(first.header("location").unwrap().starts_with("/v1/products/"));
        let reordered = format!(
            r#" {{"stock": 5, "price": 5, "category": "light", "description": "", "name": "{name}"}} "#
        );
        let again = add(reordered).await;
        assert_eq!((again.status, &again.body), (201, &first.body));
        assert_eq!(again.header("location"), first.header("location"));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        add(product("Other")).await.refused(422, "IDEMPOTENCY_KEY_REUSED");
        let added = format!("SELECT count(*) FROM products WHERE state ->> 'name' = '{name}'");
        assert_eq!(shop.count(&added).await, 1);
    });
}

fn post_again_as_admin(shop: &Shop, key: &str, body: String) -> reqwest::RequestBuilder {
    let request = shop.request(reqwest::Method::POST, "/products").header("Idempotency-Key", key);
    request.header("Content-Type", "application/json").body(body)
}

#[test]
fn an_order_that_is_repeated_is_answered_as_it_was_accepted() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(50_000).await, shop.product(1_000, 50).await);
        let body = order_of(&user, &[(lamp, 1)]).to_string();
        let again = |key: &str, body: &str| post_again(shop, &user.key, "/orders", key, body);
        let first = ask(again("order", &body).header("Prefer", "wait=20")).await;
        assert_eq!(first.with(202)["status"], "CONFIRMED");
        let second = ask(again("order", &body).header("Prefer", "wait=20")).await;
        let order = second.with(202);
        assert_eq!((&order["status"], &order["version"]), (&json!("PENDING"), &json!(1)));
        assert_eq!(order["order_id"], first.json()["order_id"]);
        assert_eq!(second.header("location"), first.header("location"));
        assert_eq!(second.header("idempotency-replayed"), Some("true"));
        let third = ask(again("order", &body)).await;
        assert_eq!(third.body, second.body);
        let other = order_of(&user, &[(lamp, 2)]).to_string();
        ask(again("order", &other)).await.refused(422, "IDEMPOTENCY_KEY_REUSED");
        // A null that stands for nothing is still another body.
        let with_null = body.replacen('{', r#"{"payment_method":null,"#, 1);
        ask(again("order", &with_null)).await.refused(422, "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(shop.balance(&user).await, (49_000, 0));
    });
}

#[test]
fn the_same_key_of_another_caller_or_for_another_path_is_another_key() {
    in_open_shop(async |shop| {
        let (one, other) = (shop.user(0).await, shop.user(0).await);
        let key = Uuid::new_v4().to_string();
        for user in [&one, &other] {
            let answer = ask(post_again(shop, &user.key, &charges(user), &key, CHARGE)).await;
            answer.with(201);
            assert_eq!(answer.header("idempotency-replayed"), None);
        }
        // The admin, who acts for both, is a caller of its own, and each of their paths is one.
        for user in [&one, &other] {
            let request = shop.request(reqwest::Method::POST, &charges(user)).header("Idempotency-Key", &key);
            let answer = ask(request.json(&json!({"amount": 700}))).await;
            answer.with(201);
            assert_eq!(answer.header("idempotency-replayed"), None);
        }
        assert_eq!((shop.balance(&one).await, shop.balance(&other).await), ((1_400, 0), (1_400, 0)));
    });
}

#[test]
fn a_refusal_is_not_kept_and_its_key_can_be_used_again() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(5_000).await, shop.product(1_000, 50).await);
        let charge = |body: &str| post_again(shop, &user.key, &charges(&user), "later", body);
        ask(charge(r#"{"amount": 0}"#)).await.refused(422, "INVALID_AMOUNT");
        ask(charge("{")).await.refused(400, "INVALID_JSON");
        let done = ask(charge(CHARGE)).await;
        done.with(201);
        assert_eq!(done.header("idempotency-replayed"), None);
        let order = |product| {
            post_again(shop, &user.key, "/orders", "later", order_of(&user, &[(product, 1)]).to_string())
        };
        ask(order(Uuid::new_v4())).await.refused(422, "PRODUCT_NOT_FOUND");
        let placed = ask(order(lamp)).await;
        assert_eq!(placed.header("idempotency-replayed"), None);
        let placed = placed.with(202);
        assert_eq!(shop.settled(id(&placed["order_id"])).await["status"], "CONFIRMED");
    });
}

#[test]
fn a_charge_that_is_sent_twenty_times_at_once_is_done_once() {
    in_open_shop(async |shop| {
        let user = shop.user(0).await;
        let mut answers = tokio::task::JoinSet::new();
        for _ in 0..20 {
            answers.spawn(ask(post_again(shop, &user.key, &charges(&user), "at-once", CHARGE)));
        }
        let mut first = 0;
        for answer in answers.join_all().await {
            match answer.status {
                201 if answer.header("idempotency-replayed").is_none() => first += 1,
                201 => {}
                _ => {
                    answer.refused(409, "IDEMPOTENCY_KEY_IN_USE");
                    assert!(answer.header("retry-after").is_some());
                }
            }
        }
        assert_eq!(first, 1);
        assert_eq!(shop.balance(&user).await, (700, 0));
        ask(post_as(shop, &user.key, &charges(&user), CHARGE)).await.with(201);
    });
}
