//! Money that is put in, and what a balance has seen.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{ask, charges, post_as};
use crate::support::{Shop, User, in_open_shop};

async fn entries(shop: &Shop, user: &User, query: &str) -> Value {
    let path = format!("/users/{}/balance/entries{query}", user.id);
    ask(shop.request_as(&user.key, Method::GET, &path)).await.with(200)
}

fn amounts(page: &Value) -> Vec<i64> {
    page["items"].as_array().unwrap().iter().map(|entry| entry["amount"].as_i64().unwrap()).collect()
}

#[test]
fn a_charge_from_1_to_a_billion_is_put_in_and_told() {
    in_open_shop(async |shop| {
        let user = shop.user(0).await;
        let charge = ask(post_as(shop, &user.key, &charges(&user), r#"{"amount": 1}"#)).await.with(201);
        assert!(charge["entry_id"].is_string() && charge["created_at"].is_string(), "{charge}");
        assert_eq!((&charge["kind"], &charge["amount"]), (&json!("CHARGED"), &json!(1)));
        let body = r#"{"amount": 1000000000}"#;
        let charge = ask(post_as(shop, &user.key, &charges(&user), body)).await.with(201);
        assert_eq!(charge["balance_after"], 1_000_000_001);
        assert_eq!(shop.balance(&user).await, (1_000_000_001, 0));
    });
}

#[test]
fn an_amount_out_of_range_puts_nothing_in() {
    in_open_shop(async |shop| {
        let user = shop.user(0).await;
        let amounts =
            ["0", "-1", "1000000001", "9223372036854775807", "-9223372036854775808", "100000000000000000000"];
        for amount in amounts {
            let body = format!(r#"{{"amount": {amount}}}"#);
            let answer = ask(post_as(shop, &user.key, &charges(&user), body)).await;
            let problem = answer.refused(422, "INVALID_AMOUNT");
            assert_eq!(problem["errors"][0]["field"], "amount");
        }
        assert_eq!(shop.balance(&user).await, (0, 0));
        assert_eq!(entries(shop, &user, "").await, json!({"items": [], "next_cursor": null}));
    });
}

#[test]
fn what_is_no_amount_at_all_is_invalid_json() {
    in_open_shop(async |shop| {
        let user = shop.user(0).await;
        for body in [
            r#"{"amount": 1.5}"#,
            r#"{"amount": 5.0}"#,
            r#"{"amount": "5"}"#,
            r#"{"amount": null}"#,
            r#"{"amount": 5, "currency": "KRW"}"#,
            r#"{"amount": 5, "amount": 6}"#,
            r#"{"amount": 5"#,
            "{}",
            "[5]",
            "",
            "amount=5",
        ] {
            let answer = ask(post_as(shop, &user.key, &charges(&user), body)).await;
            answer.refused(400, "INVALID_JSON");
        }
        assert_eq!(shop.balance(&user).await, (0, 0));
    });
}

#[test]
fn a_body_of_64_kib_is_read_and_a_longer_one_refused() {
    in_open_shop(async |shop| {
        let user = shop.user(0).await;
        let fill = |length: usize| {
            let charge = r#"{"amount": 5}"#;
            format!("{charge}{}", " ".repeat(length - charge.len()))
        };
        ask(post_as(shop, &user.key, &charges(&user), fill(64 * 1024))).await.with(201);
        let answer = ask(post_as(shop, &user.key, &charges(&user), fill(64 * 1024 + 1))).await;
        answer.refused(413, "PAYLOAD_TOO_LARGE");
        assert_eq!(shop.balance(&user).await, (5, 0));
    });
}

#[test]
fn forty_charges_at_once_lose_nothing() {
    in_open_shop(async |shop| {
        let user = shop.user(0).await;
        let mut answers = JoinSet::new();
        for amount in 1..=40 {
            answers.spawn(ask(post_as(
                shop,
                &user.key,
                &charges(&user),
                json!({"amount": amount}).to_string(),
            )));
        }
        let mut after: Vec<i64> = Vec::new();
        for answer in answers.join_all().await {
            after.push(answer.with(201)["balance_after"].as_i64().unwrap());
        }
        assert_eq!(shop.balance(&user).await, (820, 0));
        let page = entries(shop, &user, "?limit=100").await;
        let mut expected = 820;
        for entry in page["items"].as_array().unwrap() {
            assert_eq!(entry["balance_after"], expected, "each entry follows from the one before: {page}");
            expected -= entry["amount"].as_i64().unwrap();
        }
        assert_eq!(expected, 0);
        after.sort_unstable();
        after.dedup();
        assert_eq!(after.len(), 40, "everybody was told a balance of their own");
    });
}

#[test]
fn entries_come_newest_first_and_page_by_page_without_a_gap() {
    in_open_shop(async |shop| {
        let user = shop.user(0).await;
        for amount in 1..=7 {
            shop.post(&charges(&user), &json!({"amount": amount})).await;
        }
        let latest = entries(shop, &user, "").await;
        assert_eq!(amounts(&latest), [7, 6, 5, 4, 3], "the latest five unless the client says otherwise");
        let entry = &latest["items"][0];
        assert_eq!((&entry["kind"], &entry["balance_after"]), (&json!("CHARGED"), &json!(28)));
        assert!(entry["entry_id"].is_string() && entry["created_at"].is_string(), "{entry}");
        assert_eq!(entry.get("order_id"), Some(&Value::Null));
        let first = entries(shop, &user, "?limit=3").await;
        assert_eq!(amounts(&first), [7, 6, 5]);
        // What comes in between does not move the pages that follow.
        shop.post(&charges(&user), &json!({"amount": 8})).await;
        let second = format!("?limit=3&cursor={}", first["next_cursor"].as_str().unwrap());
        let second = entries(shop, &user, &second).await;
        assert_eq!(amounts(&second), [4, 3, 2]);
        let third = format!("?limit=3&cursor={}", second["next_cursor"].as_str().unwrap());
        let third = entries(shop, &user, &third).await;
        assert_eq!((amounts(&third), &third["next_cursor"]), (vec![1], &Value::Null));
    });
}

#[test]
fn a_page_that_can_not_be_is_refused() {
    in_open_shop(async |shop| {
        let user = shop.user(0).await;
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=x", "limit"),
            ("cursor=none", "cursor"),
            ("cursor=", "cursor"),
        ] {
            let path = format!("/users/{}/balance/entries?{query}", user.id);
            ask(shop.request_as(&user.key, Method::GET, &path)).await.refused_for(&[field]);
        }
    });
}
