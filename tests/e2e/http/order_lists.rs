//! Lists of orders: a user's own, and everybody's.

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ask;
use crate::documents::{DAY, Forgery};
use crate::support::{Shop, User, id, in_open_shop, stop, until};

async fn own(shop: &Shop, user: &User, query: &str) -> Value {
    ask(shop.request_as(&user.key, Method::GET, &format!("/users/{}/orders{query}", user.id))).await.with(200)
}

async fn everybodys(shop: &Shop, query: &str) -> Value {
    ask(shop.request(Method::GET, &format!("/orders{query}"))).await.with(200)
}

fn ids(page: &Value) -> Vec<Uuid> {
    page["items"].as_array().unwrap().iter().map(|order| id(&order["order_id"])).collect()
}

fn next(page: &Value) -> &str {
    page["next_cursor"].as_str().unwrap()
}

#[test]
fn a_users_orders_come_newest_first_and_page_by_page_without_a_gap() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(400).await, shop.product(100, 50).await);
        assert_eq!(own(shop, &user, "").await, json!({"items": [], "next_cursor": null}));
        let mut orders = Vec::new();
        for _ in 0..5 {
            orders.insert(0, shop.order(&user, &[(lamp, 1)]).await);
        }
        assert_eq!(own(shop, &user, "").await, json!({"items": orders, "next_cursor": null}));
        let expected: Vec<Uuid> = orders.iter().map(|order| id(&order["order_id"])).collect();
        let first = own(shop, &user, "?limit=2").await;
        assert_eq!(ids(&first), expected[..2]);
        // What comes in between does not move the pages that follow.
        shop.order(&user, &[(lamp, 1)]).await;
        let second = own(shop, &user, &format!("?limit=2&cursor={}", next(&first))).await;
        assert_eq!(ids(&second), expected[2..4]);
        let third = own(shop, &user, &format!("?limit=2&cursor={}", next(&second))).await;
        assert_eq!((ids(&third), &third["next_cursor"]), (expected[4..].to_vec(), &Value::Null));
    });
}

#[test]
fn orders_of_one_status_are_listed_and_no_others() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(300).await, shop.product(100, 50).await);
        let mut confirmed = Vec::new();
        for _ in 0..3 {
            confirmed.insert(0, id(&shop.order(&user, &[(lamp, 1)]).await["order_id"]));
        }
        let rejected = shop.order(&user, &[(lamp, 1)]).await;
        assert_eq!(own(shop, &user, "?status=REJECTED").await["items"], json!([rejected]));
        let page = own(shop, &user, "?status=CONFIRMED&limit=2").await;
        assert_eq!(ids(&page), confirmed[..2]);
        let page = own(shop, &user, &format!("?status=CONFIRMED&limit=2&cursor={}", next(&page))).await;
        assert_eq!((ids(&page), &page["next_cursor"]), (confirmed[2..].to_vec(), &Value::Null));
        let others = "PENDING PARTIALLY_SHIPPED SHIPPED DELIVERED CANCELLING CANCELLED MODIFYING";
        for status in others.split(' ') {
            assert_eq!(own(shop, &user, &format!("?status={status}")).await["items"], json!([]), "{status}");
        }
    });
}

#[test]
fn an_administrator_lists_everybodys_orders_and_a_customer_does_not() {
    in_open_shop(async |shop| {
        let (lamp, mut orders) = (shop.product(100, 50).await, Vec::new());
        for user in [shop.user(100).await, shop.user(100).await, shop.user(0).await] {
            orders.insert(0, id(&shop.order(&user, &[(lamp, 1)]).await["order_id"]));
            ask(shop.request_as(&user.key, Method::GET, "/orders")).await.refused(403, "FORBIDDEN");
        }
        let (mut seen, mut query) = (Vec::new(), "?limit=7".to_owned());
        // Others order in the same shop, so these three may be some pages away.
        while !seen.contains(orders.last().unwrap()) {
            let page = everybodys(shop, &query).await;
            seen.extend(ids(&page));
            query = format!("?limit=7&cursor={}", page["next_cursor"].as_str().unwrap_or_default());
        }
        assert!(seen.is_sorted_by(|newer, older| newer > older), "{seen:?}");
        seen.retain(|order| orders.contains(order));
        assert_eq!(seen, orders);
        let rejected = everybodys(shop, "?status=REJECTED&limit=100").await;
        assert!(rejected["items"].as_array().unwrap().iter().all(|order| order["status"] == "REJECTED"));
        assert!(ids(&rejected).contains(&orders[0]) && !ids(&rejected).contains(&orders[1]));
    });
}

#[test]
fn a_list_that_can_not_be_is_refused() {
    in_open_shop(async |shop| {
        let user = shop.user(0).await;
        for (query, fields) in [
            ("status=NONE&limit=0", &["status", "limit"][..]),
            ("status=REJECTING", &["status"]),
            ("cursor=none", &["cursor"]),
            ("status=PENDING&status=PENDING", &["status"]),
        ] {
            let path = format!("/users/{}/orders?{query}", user.id);
            ask(shop.request_as(&user.key, Method::GET, &path)).await.refused_for(fields);
            ask(shop.request(Method::GET, &format!("/orders?{query}"))).await.refused_for(fields);
        }
        ask(shop.request(Method::GET, "/orders?overdue=late")).await.refused_for(&["overdue"]);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_overdue_when_its_deadline_has_passed_and_it_does_not_rest() {
    let shop = Shop::new().await;
    // Without workers orders stay pending, whatever the clock says.
    let api = shop.start(&["api"]);
    until("the API listens", async || {
        shop.client.get(shop.url("/healthz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let (user, lamp) = (shop.user(1_000).await, shop.product(100, 50).await);
    let mut orders = Vec::new();
    for _ in 0..4 {
        orders.push(id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]));
    }
    let &[pending, rejecting, confirmed, in_time] = &*orders else { panic!("{orders:?}") };
    for late in [pending, rejecting, confirmed] {
        Forgery::of("orders", late).add("deadline_at", -DAY).make(&shop.pool).await;
    }
    let failure = json!({"code": "OUT_OF_STOCK", "detail": "others were faster"});
    Forgery::of("orders", rejecting)
        .set("status", "REJECTING")
        .set("failure", failure)
        .make(&shop.pool)
        .await;
    Forgery::of("orders", confirmed)
        .set("status", "CONFIRMED")
        .set("stock", "DEDUCTED")
        .set("payment", "COMPLETED")
        .set_to("paid", "bulk::jsonb -> 'total'")
        .set("confirmed_at", Timestamp::now().as_microsecond())
        .make(&shop.pool)
        .await;
    for (order, is_overdue) in [(pending, true), (rejecting, true), (confirmed, false), (in_time, false)] {
        assert_eq!(shop.get(&format!("/orders/{order}")).await["overdue"], is_overdue);
    }
    for (query, expected) in [
        ("", &[in_time, confirmed, rejecting, pending][..]),
        ("?overdue=true", &[rejecting, pending]),
        ("?overdue=false", &[in_time, confirmed]),
        ("?status=PENDING", &[in_time, rejecting, pending]),
        ("?status=PENDING&overdue=true", &[rejecting, pending]),
        ("?status=PENDING&overdue=false", &[in_time]),
        ("?status=CONFIRMED&overdue=true", &[]),
    ] {
        let page = everybodys(&shop, query).await;
        assert_eq!(ids(&page), expected, "{query}");
        for order in page["items"].as_array().unwrap() {
            let is_late = [rejecting, pending].contains(&id(&order["order_id"]));
            assert_eq!(order["overdue"], is_late, "{query}");
        }
    }
    let page = everybodys(&shop, "?overdue=true&limit=1").await;
    let page = everybodys(&shop, &format!("?overdue=true&limit=1&cursor={}", next(&page))).await;
    assert_eq!((ids(&page), &page["next_cursor"]), (vec![pending], &Value::Null));
    until("the lists are seen to go by their indexes", async || {
        let scans = "SELECT min(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname IN ('orders_open', 'orders_at_rest')";
        shop.count(scans).await > 0
    })
    .await;
    stop(&api);
}
