//! Many orders at once: one key, one last unit, few goods.

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::{Shop, answer, id, order_of};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_submissions_with_one_key_make_one_order() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(1_000, 50).await);
    let mut submissions = JoinSet::new();
    for _ in 0..50 {
        let (shop, user) = (shop.clone(), user.clone());
        submissions.spawn(async move {
            let request = shop.request_as(&user.key, Method::POST, "/orders");
            let request = request.header("Idempotency-Key", "the-only-one");
            answer(request.json(&order_of(&user, &[(lamp, 1)]))).await
        });
    }
    let mut orders = std::collections::HashSet::new();
    while let Some(submission) = submissions.join_next().await {
        match submission.unwrap() {
            (StatusCode::ACCEPTED, order) => drop(orders.insert(id(&order["order_id"]))),
            (StatusCode::CONFLICT, problem) => assert_eq!(problem["code"], "IDEMPOTENCY_KEY_IN_USE"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(orders.len(), 1);
    shop.until_quiet().await;
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 1);
    assert_eq!(shop.balance(&user).await, (49_000, 0));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_buyers_of_the_last_unit_one_gets_it_and_four_keep_their_money() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let last = shop.product(1_000, 1).await;
    let mut orders = JoinSet::new();
    for _ in 0..5 {
        let user = shop.user(5_000).await;
        let shop = shop.clone();
        orders.spawn(async move {
            let order = shop.order(&user, &[(last, 1)]).await;
            (order, shop.balance(&user).await)
        });
    }
    let (mut confirmed, mut refused) = (0, 0);
    while let Some(order) = orders.join_next().await {
        let (order, balance) = order.unwrap();
        if order["status"] == "CONFIRMED" {
            confirmed += 1;
            assert_eq!(balance, (4_000, 0));
        } else {
            refused += 1;
            assert_eq!(order["failure"]["code"], "OUT_OF_STOCK");
            assert_eq!(balance, (5_000, 0));
        }
    }
    assert_eq!((confirmed, refused), (1, 4));
    assert_eq!(shop.stock(last).await, 0);
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_hundred_random_orders_on_scarce_goods_all_end_and_add_up() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let (mut users, mut products) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        users.push(shop.user(12_000).await);
    }
    for price in [500, 700, 900, 1_100, 1_300] {
        products.push(shop.product(price, 60).await);
    }
    let gate = Arc::new(Semaphore::new(48));
    let mut orders = JoinSet::new();
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    let mut roll = move |sides: usize| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        usize::try_from(dice % sides as u64).unwrap()
    };
    for _ in 0..400 {
        let user = users[roll(users.len())].clone();
        let first = roll(5);
        let second = (first + 1 + roll(4)) % 5;
        let quantity = |n| i32::try_from(n).unwrap();
        let lines = [(products[first], quantity(1 + roll(2))), (products[second], quantity(1 + roll(2)))];
        let (shop, gate) = (shop.clone(), gate.clone());
        orders.spawn(async move {
            let _permit = gate.acquire_owned().await.unwrap();
            shop.order(&user, &lines).await
        });
    }
    let (mut confirmed, mut sold, mut paid) = (0, 0, 0);
    while let Some(order) = orders.join_next().await {
        let order = order.unwrap();
        if order["status"] == "CONFIRMED" {
            confirmed += 1;
            paid += order["total"].as_i64().unwrap();
            let lines = order["lines"].as_array().unwrap();
            sold += lines.iter().map(|line| line["quantity"].as_i64().unwrap()).sum::<i64>();
        } else {
            assert_eq!(order["status"], "REJECTED", "{order}");
        }
    }
    assert!(confirmed > 50, "only {confirmed} orders were confirmed");
    let (mut left, mut money) = (0, 0);
    for product in &products {
        left += shop.stock(*product).await;
    }
    for user in &users {
        let (available, held) = shop.balance(user).await;
        assert_eq!(held, 0);
        money += available;
    }
    assert_eq!(left, 5 * 60 - sold);
    assert_eq!(money, 20 * 12_000 - paid);
    running.stop().await;
    shop.assert_verified().await;
}
