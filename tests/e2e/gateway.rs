//! A payment gateway that misbehaves in every way there is: every order ends, and nobody pays twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ordermill_stack::{Child, free_port};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Shop, id, order_of, stop, until};

/// How many orders go through each fault.
const ORDERS: usize = 60;
/// How long they may take to settle once the gateway is well again.
const RECOVERY: Duration = Duration::from_secs(120);

/// Places orders by all methods under a fault, cancels and modifies some, has the gateway recover, and waits.
async fn survive(fault: Value) {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let (lamp, chair) = (shop.product(1_000, 200).await, shop.product(700, 30).await);
    shop.behave(&fault).await;
    let mut orders = JoinSet::new();
    for number in 0..ORDERS {
        let shop = shop.clone();
        let method = ["BALANCE", "CARD", "BANK_TRANSFER"][number % 3];
        let user = shop.user(5_000).await;
        orders.spawn(async move {
            let mut body = order_of(&user, &[(lamp, 2), (chair, 1)]);
            body["payment_method"] = json!(method);
            let (status, order) = shop.post("/orders", &body).await;
            assert_eq!(status, StatusCode::ACCEPTED, "{order}");
            let order_id = id(&order["order_id"]);
            // Spread over the orders' lives. What becomes of a request depends on how far its order is; that all adds
            // up in the end doesn't.
            tokio::time::sleep(Duration::from_millis(200 + 100 * (number as u64 * 7 % 13))).await;
            let order = shop.get(&format!("/orders/{order_id}")).await;
            match number % 4 {
                0 => drop(shop.modify(&user, &order, &[(lamp, 3)]).await),
                1 => drop(shop.modify(&user, &order, &[(chair, 1)]).await),
                2 => drop(shop.ask(&user.key, order_id, "cancellation", &json!({})).await),
                _ => {}
            }
            order_id
        });
    }
    let orders = orders.join_all().await;
    shop.behave(&json!({
        "decline": 0.0, "error": 0.0, "timeout_before": 0.0, "timeout_after": 0.0, "partial": 0.0,
        "duplicate_callback": 0.0, "drop_callback": 0.0, "latency_ms": [0, 5],
    }))
    .await;
    let recovered = Instant::now();
    for order_id in orders {
        let order = shop.settled(order_id).await;
        let status = order["status"].as_str().unwrap();
        assert!(["CONFIRMED", "REJECTED", "CANCELLED"].contains(&status), "{order}");
    }
    shop.until_quiet().await;
    assert!(recovered.elapsed() < RECOVERY, "{:?}", recovered.elapsed());
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_orders_survive_a_gateway_that_declines() {
    survive(json!({"decline": 0.4})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_orders_survive_a_gateway_that_errs() {
    survive(json!({"error": 0.5})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_orders_survive_a_gateway_that_does_not_answer_and_has_not_charged() {
    survive(json!({"timeout_before": 0.4})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_orders_survive_a_gateway_that_does_not_answer_although_it_has_charged() {
    survive(json!({"timeout_after": 0.4})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_orders_survive_a_gateway_that_approves_a_part() {
    survive(json!({"partial": 0.4})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_orders_survive_a_gateway_that_calls_back_twice_or_never() {
    survive(json!({"duplicate_callback": 0.5, "drop_callback": 0.5})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_orders_survive_a_slow_gateway() {
    survive(json!({"latency_ms": [500, 2_500]})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_orders_survive_everything_at_once() {
    survive(json!({
        "decline": 0.3, "error": 0.3, "timeout_before": 0.3, "timeout_after": 0.3, "partial": 0.3,
        "duplicate_callback": 0.5, "drop_callback": 0.5, "latency_ms": [0, 1_000],
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeline_tells_every_call_to_the_gateway() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(5_000).await, shop.product(1_000, 200).await);
    shop.behave(&json!({"error": 1.0})).await;
    let order_id = id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]);
    until("the gateway has been asked twice", async || {
        shop.metric("ordermill_gateway_answers_total{answer=\"UNKNOWN\"}").await >= Some(2.0)
    })
    .await;
    shop.behave(&json!({"error": 0.0})).await;
    shop.settled(order_id).await;
    let timeline = shop.get(&format!("/orders/{order_id}/events")).await;
    let items = timeline["items"].as_array().unwrap();
    let completed = items.iter().find(|item| item["type"] == "payment.completed").unwrap();
    let attempts = completed["data"]["attempts"].as_array().unwrap();
    assert_eq!(attempts[0]["call"], "CHARGE");
    assert!(attempts[0]["outcome"].as_str().unwrap().starts_with("UNKNOWN"), "{attempts:?}");
    assert_eq!(attempts[1]["call"], "LOOK_UP");
    assert_eq!(attempts.last().unwrap()["outcome"], "APPROVED");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_down_opens_the_circuit_and_orders_wait_until_it_is_back() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let (user, lamp) = (shop.user(500_000).await, shop.product(1_000, 200).await);
    shop.gateway.kill9();
    let mut orders = Vec::new();
    for _ in 0..10 {
        orders.push(id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]));
    }
    let circuit = "ordermill_gateway_circuit_open";
    until("the circuit opens", async || shop.metric(circuit).await == Some(1.0)).await;
    shop.gateway.restart().unwrap();
    for order_id in orders {
        assert_eq!(shop.settled(order_id).await["status"], "CONFIRMED");
    }
    until("the circuit closes", async || shop.metric(circuit).await == Some(0.0)).await;
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_gateway_holds_up_no_order_that_does_not_need_it() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let user = shop.user(5_000_000).await;
    let (lamp, gift) = (shop.product(1_000, 1_000).await, shop.product(0, 1_000).await);
    let pace = async || {
        let started = Instant::now();
        for _ in 0..10 {
            assert_eq!(shop.order(&user, &[(gift, 1)]).await["status"], "CONFIRMED");
        }
        started.elapsed()
    };
    let before = pace().await;
    shop.behave(&json!({"latency_ms": [2_000, 2_000]})).await;
    let mut paying = Vec::new();
    for _ in 0..100 {
        paying.push(id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]));
    }
    let during = pace().await;
    // Ten orders one after the other, each of which would wait two seconds, twenty in all, if it waited at all.
    assert!(during < before + Duration::from_secs(10), "{before:?} before, {during:?} meanwhile");
    shop.behave(&json!({"latency_ms": [0, 5]})).await;
    for order_id in paying {
        assert_eq!(shop.settled(order_id).await["status"], "CONFIRMED");
    }
    running.stop().await;
    shop.assert_verified().await;
}

/// A process with the worker of payments, and where it shows its figures.
struct Payer {
    child: Child,
    address: String,
}

impl Payer {
    async fn start(shop: &Shop) -> Payer {
        let listen = format!("127.0.0.1:{}", free_port().unwrap());
        let child = shop.start(&["worker", "payments", "--metrics-listen", &listen]);
        let payer = Payer { child, address: format!("http://{listen}") };
        until("the worker runs", async || {
            shop.client.get(format!("{}/healthz", payer.address)).send().await.is_ok()
        })
        .await;
        payer
    }

    /// Whether it is asking the gateway now, or has ever done so and heard of it.
    async fn asks(&self, shop: &Shop) -> bool {
        let in_flight = shop.metric_at(&self.address, "ordermill_gateway_calls_in_flight").await;
        let ended = shop.metric_at(&self.address, "ordermill_gateway_seconds_count").await;
        (in_flight.unwrap(), ended.unwrap()) != (0.0, 0.0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlasts_its_lease_is_asked_by_one_process_and_by_another_once_that_has_died() {
    let shop = Shop::new().await;
    // Without timers, so that no deadline changes what the gateway is asked for.
    let others = [
        shop.start(&["api"]),
        shop.start(&["relay"]),
        shop.start(&["worker", "orders", "stock", "coupons", "sales"]),
    ];
    until("the API listens", async || {
        shop.client.get(shop.url("/healthz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let (user, lamp) = (shop.user(5_000).await, shop.product(1_000, 5).await);
    shop.behave(&json!({"timeout_before": 1.0})).await;
    let first = Payer::start(&shop).await;
    let order_id = id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]);
    until("the first asks", async || first.asks(&shop).await).await;

    let second = Payer::start(&shop).await;
    // Without renewals the second would have taken it over twice by then.
    let renewed = "SELECT count(*) FROM gateway_lease l JOIN payments p ON p.key = l.order_id
        WHERE l.leased_until > to_timestamp((p.state #>> '{asked,at}')::bigint / 1e6) + interval '48 seconds'";
    until("the lease is renewed again and again", async || shop.count(renewed).await == 1).await;
    assert!(!second.asks(&shop).await, "the first asks alone");
    assert_eq!(shop.count("SELECT count(DISTINCT holder) FROM gateway_lease").await, 1);

    let until_us = "SELECT (extract(epoch FROM leased_until) * 1e6)::bigint FROM gateway_lease";
    let leased_until_us = shop.count(until_us).await;
    first.child.kill9();
    until("the second asks", async || second.asks(&shop).await).await;
    let now_us = shop.count("SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint").await;
    assert!(now_us >= leased_until_us, "the second has waited until the lease had run out");
    shop.behave(&json!({"timeout_before": 0.0})).await;
    assert_eq!(shop.settled(order_id).await["status"], "CONFIRMED");
    shop.until_quiet().await;
    shop.assert_verified().await;
    stop(&second.child);
    others.iter().for_each(stop);
}
