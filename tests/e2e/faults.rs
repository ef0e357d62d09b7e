//! Processes that are killed in mid-load: nothing is lost and nothing happens twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ordermill_stack::Child;
use ordermill_workers::Worker;
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::{DEADLINE, Shop, User, id, lines_of, order_of, stop, until};

/// Customers who order one lamp after the other and, when they get no answer, ask again with the same key.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    customers: Vec<JoinHandle<Vec<Uuid>>>,
}

impl Load {
    pub(crate) async fn start(shop: &Arc<Shop>, customers: usize) -> Load {
        let lamp = shop.product(10, 1_000_000).await;
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for _ in 0..customers {
            let user = shop.user(1_000_000).await;
            let (shop, stop, accepted) = (shop.clone(), stop.clone(), accepted.clone());
            tasks.push(tokio::spawn(async move {
                let mut orders = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    orders.push(order_until_accepted(&shop, &user, lamp).await);
                    accepted.fetch_add(1, Ordering::SeqCst);
                }
                orders
            }));
        }
        Load { stop, accepted, customers: tasks }
    }

    pub(crate) async fn until_accepted(&self, more: usize) {
        let target = self.accepted.load(Ordering::SeqCst) + more;
        until("orders are accepted", async || self.accepted.load(Ordering::SeqCst) >= target).await;
    }

    /// Ends the load, and answers the orders that were accepted.
    pub(crate) async fn stop(self) -> Vec<Uuid> {
        self.stop.store(true, Ordering::SeqCst);
        let mut accepted = Vec::new();
        for customer in self.customers {
            accepted.extend(customer.await.unwrap());
        }
        accepted
    }

    /// Ends the load; every order that was accepted must be there and confirmed, and no other.
    async fn end(self, shop: &Shop) {
        let mut accepted = self.stop().await;
        shop.until_quiet().await;
        let mut confirmed: Vec<Uuid> =
            sqlx::query_scalar("SELECT key FROM orders WHERE status = 'CONFIRMED'")
                .fetch_all(&shop.pool)
                .await
                .unwrap();
        accepted.sort_unstable();
        confirmed.sort_unstable();
        assert_eq!(accepted.len(), confirmed.len());
        assert_eq!(accepted, confirmed);
        shop.assert_verified().await;
    }
}

async fn order_until_accepted(shop: &Shop, user: &User, lamp: Uuid) -> Uuid {
    let key = Uuid::new_v4().to_string();
    let started = Instant::now();
    while started.elapsed() < DEADLINE {
        if let Some(order_id) = try_to_order(shop, user, lamp, &key).await {
            return order_id;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("an order is not accepted in time");
}

/// The order's id; `None` where there was no answer or the server asks to come again.
async fn try_to_order(shop: &Shop, user: &User, lamp: Uuid, key: &str) -> Option<Uuid> {
    let request = shop.request_as(&user.key, Method::POST, "/orders").header("Idempotency-Key", key);
    let answer = request.json(&order_of(user, &[(lamp, 1)])).send().await.ok()?;
    if answer.status() != 202 {
        assert!(answer.status().is_server_error() || answer.status() == 409, "{}", answer.status());
        return None;
    }
    let order: Value = answer.json().await.ok()?;
    Some(id(&order["order_id"]))
}

/// The pipeline as processes, by the arguments that they were started with: two workers of each kind, two relays, one API.
struct Processes(HashMap<Vec<&'static str>, Vec<Child>>);

impl Processes {
    async fn start(shop: &Shop) -> Processes {
        let workers = Worker::ALL.iter().map(|worker| vec!["worker", worker.name()]);
        let twice = workers.chain([vec!["relay"]]).map(|arguments| (arguments, 2));
        let all = twice.chain([(vec!["api"], 1)]).map(|(arguments, count)| {
            let children = (0..count).map(|_| shop.start(&arguments)).collect();
            (arguments, children)
        });
        let processes = Processes(all.collect());
        shop.until_ready().await;
        processes
    }

    /// Those of a kind, the one that has run for longest first.
    fn of(&mut self, arguments: &[&'static str]) -> &mut Vec<Child> {
        self.0.get_mut(arguments).unwrap()
    }

    fn stop(&self) {
        self.0.values().flatten().for_each(stop);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_workers_and_api_are_killed_in_mid_load_and_nothing_is_lost_or_done_twice() {
    let shop = Arc::new(Shop::new().await);
    let mut processes = Processes::start(&shop).await;
    let load = Load::start(&shop, 8).await;
    load.until_accepted(100).await;
    // Each of them once, while its twin stands by; of the relays both in turn, so that the one that leads is killed.
    let workers = Worker::ALL.iter().map(|worker| vec!["worker", worker.name()]);
    for arguments in [vec!["relay"]].into_iter().chain(workers).chain([vec!["api"], vec!["relay"]]) {
        let killed = processes.of(&arguments).remove(0);
        killed.kill9();
        load.until_accepted(if arguments == ["api"] { 0 } else { 60 }).await;
        let started = shop.start(&arguments);
        processes.of(&arguments).push(started);
        load.until_accepted(60).await;
    }
    load.end(&shop).await;
    processes.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_workers_of_a_group_one_is_killed_and_the_other_finishes_its_work() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let second = shop.start(&["worker"]);
    until("both are members", async || {
        let members = shop.count("SELECT count(*) FROM heartbeat WHERE role LIKE 'worker:%'").await;
        usize::try_from(members).unwrap() == 2 * Worker::ALL.len()
    })
    .await;
    let load = Load::start(&shop, 4).await;
    load.until_accepted(60).await;
    second.kill9();
    load.until_accepted(60).await;
    load.end(&shop).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_and_comes_back_charges_nobody_twice() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let load = Load::start(&shop, 4).await;
    load.until_accepted(40).await;
    shop.gateway.kill9();
    load.until_accepted(40).await;
    shop.gateway.restart().unwrap();
    load.end(&shop).await;
    running.stop().await;
}

/// Orders, and once it rests modifies and cancels in turn, each until there is an answer; answers the order.
async fn order_and_change(shop: &Shop, user: &User, lamp: Uuid, turn: usize) -> Uuid {
    let order_id = order_until_accepted(shop, user, lamp).await;
    let path = format!("/orders/{order_id}");
    let key = Uuid::new_v4().to_string();
    let started = Instant::now();
    while started.elapsed() < DEADLINE {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let Ok(answer) = shop.request(Method::GET, &path).send().await else { continue };
        let Ok(order) = answer.json::<Value>().await else { continue };
        if order["status"] != "CONFIRMED" {
            continue;
        }
        let request = if turn.is_multiple_of(2) {
            let quantity = 1 + i32::try_from(turn % 3).unwrap();
            shop.request_as(&user.key, Method::PATCH, &path)
                .header("If-Match", format!("\"{}\"", order["version"]))
                .json(&serde_json::json!({"lines": lines_of(&[(lamp, quantity)])}))
        } else {
            shop.request_as(&user.key, Method::POST, &format!("{path}/cancellation"))
                .header("Idempotency-Key", &key)
        };
        // Without an answer it may have begun or not: the next look at the order tells.
        if request.send().await.is_ok_and(|answer| answer.status() == 202) {
            return order_id;
        }
    }
    panic!("order {order_id} does not change in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_killed_while_orders_are_modified_and_cancelled_and_all_adds_up() {
    let shop = Arc::new(Shop::new().await);
    let mut processes = Processes::start(&shop).await;
    let lamp = shop.product(10, 1_000_000).await;
    let (stop_all, changed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut customers = Vec::new();
    for _ in 0..6 {
        let user = shop.user(1_000_000).await;
        let (shop, stop_all, changed) = (shop.clone(), stop_all.clone(), changed.clone());
        customers.push(tokio::spawn(async move {
            let mut turn = 0;
            while !stop_all.load(Ordering::SeqCst) {
                order_and_change(&shop, &user, lamp, turn).await;
                changed.fetch_add(1, Ordering::SeqCst);
                turn += 1;
            }
        }));
    }
    let until_changed = async |more: usize| {
        let target = changed.load(Ordering::SeqCst) + more;
        until("orders are changed", async || changed.load(Ordering::SeqCst) >= target).await;
    };
    until_changed(20).await;
    for worker in [Worker::Payments, Worker::Orders, Worker::Stock, Worker::Payments] {
        let arguments = ["worker", worker.name()];
        let killed = processes.of(&arguments).remove(0);
        killed.kill9();
        until_changed(10).await;
        let started = shop.start(&arguments);
        processes.of(&arguments).push(started);
        until_changed(10).await;
    }
    stop_all.store(true, Ordering::SeqCst);
    for customer in customers {
        customer.await.unwrap();
    }
    shop.until_quiet().await;
    for status in ["CANCELLED", "CONFIRMED"] {
        let count = format!("SELECT count(*) FROM orders WHERE status = '{status}'");
        assert!(shop.count(&count).await > 0, "none is {status}");
    }
    shop.assert_verified().await;
    processes.stop();
}
