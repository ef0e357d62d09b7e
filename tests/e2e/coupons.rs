//! Coupons: first come, first served; used once; given back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use ordermill_pipeline::clock::Clock;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{ADMIN_KEY, DEADLINE, Shop, User, answer, id, order_of, stop, until};

async fn coupon(shop: &Shop, body: Value) -> Uuid {
    let mut whole = json!({"name": "Spring", "discount": {"type": "PERCENT", "value": 10}, "quantity": 100});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let (status, coupon) = shop.post("/coupons", &whole).await;
    assert_eq!(status, StatusCode::CREATED, "{coupon}");
    id(&coupon["coupon_id"])
}

/// The answer of a server that is not too busy any more: it asks to come again.
async fn patiently(request: RequestBuilder) -> (StatusCode, Value) {
    let started = Instant::now();
    loop {
        let (status, body) = answer(request.try_clone().unwrap()).await;
        if status != StatusCode::SERVICE_UNAVAILABLE {
            return (status, body);
        }
        assert!(started.elapsed() < DEADLINE, "{body}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Signs up while many others do.
async fn sign_up(shop: &Shop) -> User {
    let email = format!("{}@example.com", Uuid::new_v4().simple());
    let request = shop.request_as_nobody(Method::POST, "/v1/users");
    let (status, user) = patiently(request.json(&json!({"name": "Kim", "email": email}))).await;
    assert_eq!(status, StatusCode::CREATED, "{user}");
    User { id: id(&user["user_id"]), key: user["api_key"].as_str().unwrap().to_owned() }
}

/// Claims a coupon and answers what became of it, once it is decided.
async fn claim(shop: &Shop, user: &User, coupon_id: Uuid) -> (StatusCode, Value) {
    let path = format!("/coupons/{coupon_id}/claims");
    let request = shop.request_as(&user.key, Method::POST, &path).json(&json!({"user_id": user.id}));
    let (status, claim) = patiently(request).await;
    if status != StatusCode::ACCEPTED {
        return (status, claim);
    }
    let path = format!("{path}/{}", id(&claim["claim_id"]));
    let started = Instant::now();
    loop {
        let request = shop.request_as(&user.key, Method::GET, &path).header("Prefer", "wait=10");
        let (found, decided) = patiently(request).await;
        assert_eq!(found, StatusCode::OK, "{decided}");
        if decided["status"] != "PENDING" {
            return (status, decided);
        }
        assert!(started.elapsed() < DEADLINE, "claim {path} is not decided in time");
    }
}

pub(crate) async fn own_coupon(shop: &Shop, user: &User, body: Value) -> Uuid {
    let coupon_id = coupon(shop, body).await;
    let (_, claim) = claim(shop, user, coupon_id).await;
    assert_eq!(claim["status"], "ISSUED", "{claim}");
    id(&claim["user_coupon"]["user_coupon_id"])
}

pub(crate) async fn order_with(
    shop: &Shop,
    user: &User,
    lines: &[(Uuid, i32)],
    user_coupon_id: Uuid,
) -> Value {
    let mut body = order_of(user, lines);
    body["user_coupon_id"] = json!(user_coupon_id);
    let (status, order) = shop.post("/orders", &body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{order}");
    shop.settled(id(&order["order_id"])).await
}

pub(crate) async fn owned(shop: &Shop, user: &User, status: &str) -> Vec<Value> {
    let coupons = shop.get(&format!("/users/{}/coupons?status={status}", user.id)).await;
    coupons["items"].as_array().unwrap().clone()
}

/// The claims of these users, so many at a time.
async fn claims(
    shop: &Arc<Shop>,
    users: Vec<User>,
    coupon_id: Uuid,
    at_once: usize,
) -> Vec<(StatusCode, Value)> {
    let (room, mut calls) = (Arc::new(Semaphore::new(at_once)), JoinSet::new());
    for user in users {
        let (shop, room) = (shop.clone(), room.clone());
        calls.spawn(async move {
            let _place = room.acquire().await.unwrap();
            claim(&shop, &user, coupon_id).await
        });
    }
    calls.join_all().await
}

fn places(claims: &[(StatusCode, Value)]) -> Vec<i64> {
    let issued = claims.iter().filter(|(_, claim)| claim["status"] == "ISSUED");
    let mut places: Vec<i64> = issued.map(|(_, claim)| claim["position"].as_i64().unwrap()).collect();
    places.sort_unstable();
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_users_the_first_hundred_get_one_while_the_worker_is_killed_twice() {
    let shop = Arc::new(Shop::new().await);
    let others = ["orders", "stock", "payments", "sales", "timers"];
    let mut children = vec![shop.start(&["relay"]), shop.start(&["api"])];
    children.extend(others.map(|worker| shop.start(&["worker", worker])));
    let mut worker = shop.start(&["worker", "coupons"]);
    shop.until_ready().await;
    let room = Arc::new(Semaphore::new(64));
    let mut sign_ups = JoinSet::new();
    for _ in 0..1_000 {
        let (shop, room) = (shop.clone(), room.clone());
        sign_ups.spawn(async move {
            let _place = room.acquire().await.unwrap();
            sign_up(&shop).await
        });
    }
    let users = sign_ups.join_all().await;
    let coupon_id = coupon(&shop, json!({"quantity": 100})).await;
    let claiming = {
        let shop = shop.clone();
        tokio::spawn(async move { claims(&shop, users, coupon_id, 64).await })
    };
    for issued in [1, 40] {
        until("some are issued", async || {
            shop.count(&format!("SELECT issued::bigint FROM coupons WHERE key = '{coupon_id}'")).await
                >= issued
        })
        .await;
        worker.kill9();
        worker = shop.start(&["worker", "coupons"]);
    }
    let claims = claiming.await.unwrap();
    assert_eq!(places(&claims), (1..=100).collect::<Vec<i64>>());
    for (status, claim) in &claims {
        let is_told = match status.as_u16() {
            202 => claim["status"] == "ISSUED" || claim["failure"]["code"] == "COUPON_SOLD_OUT",
            409 => claim["code"] == "COUPON_SOLD_OUT",
            _ => false,
        };
        assert!(is_told, "{status} {claim}");
    }
    let owners = format!("SELECT count(DISTINCT user_id) FROM user_coupons WHERE coupon_id = '{coupon_id}'");
    assert_eq!(shop.count(&owners).await, 100);
    let shown = shop.get(&format!("/coupons/{coupon_id}")).await;
    assert_eq!((&shown["remaining"], &shown["status"]), (&json!(0), &json!("SOLD_OUT")));
    until("everybody is welcomed", async || {
        shop.count("SELECT issued::bigint FROM coupons WHERE state ->> 'name' = 'Welcome'").await == 1_000
    })
    .await;
    shop.until_quiet().await;
    shop.assert_verified().await;
    stop(&worker);
    children.iter().for_each(stop);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_claims_at_once_by_one_user_bring_one_coupon() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let (user, coupon_id) = (shop.user(0).await, coupon(&shop, json!({})).await);
    let claims = claims(&shop, vec![user.clone(); 10], coupon_id, 10).await;
    let (accepted, refused): (Vec<_>, Vec<_>) =
        claims.iter().partition(|(status, _)| *status == StatusCode::ACCEPTED);
    assert_eq!((accepted.len(), refused.len()), (1, 9));
    for (status, problem) in refused {
        assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("COUPON_ALREADY_CLAIMED")));
        assert_eq!(problem["claim_id"], accepted[0].1["claim_id"]);
    }
    let owned = owned(&shop, &user, "ISSUED").await;
    assert_eq!(owned.iter().filter(|owned| owned["name"] == "Spring").count(), 1);
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_coupons_there_is_one_each_for_ten_users() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let mut coupons = Vec::new();
    for _ in 0..3 {
        coupons.push(coupon(&shop, json!({"quantity": 1})).await);
    }
    let mut calls = JoinSet::new();
    for number in 0..10 {
        let (shop, user, coupon_id) = (shop.clone(), shop.user(0).await, coupons[number % 3]);
        calls.spawn(async move { claim(&shop, &user, coupon_id).await });
    }
    assert_eq!(places(&calls.join_all().await), [1, 1, 1]);
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_in_five_orders_at_once_is_used_once_and_comes_back_from_a_cancelled_one() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let (user, lamp) = (shop.user(100_000).await, shop.product(1_000, 50).await);
    let own = own_coupon(&shop, &user, json!({})).await;
    let mut orders = JoinSet::new();
    for _ in 0..5 {
        let (shop, user) = (shop.clone(), user.clone());
        orders.spawn(async move { order_with(&shop, &user, &[(lamp, 2)], own).await });
    }
    let (mut confirmed, mut refused) = (Vec::new(), 0);
    for order in orders.join_all().await {
        if order["status"] == "CONFIRMED" {
            confirmed.push(order);
        } else {
            assert_eq!(order["failure"]["code"], "COUPON_NOT_USABLE", "{order}");
            refused += 1;
        }
    }
    assert_eq!((confirmed.len(), refused), (1, 4));
    assert_eq!(confirmed[0]["total"], 1_800);
    assert_eq!(confirmed[0]["discounts"], json!([{"kind": "COUPON", "amount": 200, "user_coupon_id": own}]));
    assert_eq!(shop.balance(&user).await, (98_200, 0));
    assert_eq!(owned(&shop, &user, "USED").await[0]["order_id"], confirmed[0]["order_id"]);
    let order_id = id(&confirmed[0]["order_id"]);
    assert_eq!(shop.ask(&user.key, order_id, "cancellation", &json!({})).await.0, StatusCode::ACCEPTED);
    assert_eq!(shop.settled(order_id).await["status"], "CANCELLED");
    assert!(owned(&shop, &user, "USED").await.is_empty());
    // It can be used again, with the bank transfer's discount on what is left.
    let mut body = order_of(&user, &[(lamp, 1)]);
    body["user_coupon_id"] = json!(own);
    body["payment_method"] = json!("BANK_TRANSFER");
    let order = shop.post("/orders", &body).await.1;
    let order = shop.settled(id(&order["order_id"])).await;
    assert_eq!((&order["status"], &order["total"]), (&json!("CONFIRMED"), &json!(855)));
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_order_gives_the_coupon_back_and_a_modification_keeps_it() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(5_000).await, shop.product(1_000, 10).await);
    let own = own_coupon(&shop, &user, json!({"min_subtotal": 2_000})).await;
    for (quantity, code) in [(9, "INSUFFICIENT_BALANCE"), (11, "OUT_OF_STOCK"), (1, "COUPON_NOT_USABLE")] {
        let order = order_with(&shop, &user, &[(lamp, quantity)], own).await;
        assert_eq!((&order["status"], &order["failure"]["code"]), (&json!("REJECTED"), &json!(code)));
        assert!(owned(&shop, &user, "USED").await.is_empty(), "{code}");
    }
    let order = order_with(&shop, &user, &[(lamp, 3)], own).await;
    assert_eq!((&order["status"], &order["total"]), (&json!("CONFIRMED"), &json!(2_700)));
    let order_id = id(&order["order_id"]);
    assert_eq!(shop.modify(&user, &order, &[(lamp, 4)]).await.0, StatusCode::ACCEPTED);
    let order = shop.settled(order_id).await;
    assert_eq!(order["total"], 3_600);
    assert_eq!(shop.modify(&user, &order, &[(lamp, 1)]).await.0, StatusCode::ACCEPTED);
    let order = shop.settled(order_id).await;
    assert_eq!(order["last_modification"]["failure"]["code"], "COUPON_NOT_USABLE");
    assert_eq!((&order["status"], &order["total"]), (&json!("CONFIRMED"), &json!(3_600)));
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_claimed_within_its_dates_and_expires_by_itself() {
    let shop = Shop::new().await;
    let start = Timestamp::now();
    let clock = Clock::manual(start);
    let running = shop.open_at(clock.clone()).await;
    let user = shop.user(5_000).await;
    let hours = |hours| start + SignedDuration::from_hours(hours);
    let later = coupon(&shop, json!({"claimable_from": hours(1), "claimable_until": hours(2)})).await;
    assert_eq!(shop.get(&format!("/coupons/{later}")).await["status"], "CLOSED");
    let (status, problem) = claim(&shop, &user, later).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("COUPON_NOT_CLAIMABLE")));
    clock.advance(SignedDuration::from_mins(90));
    assert_eq!(claim(&shop, &user, later).await.1["status"], "ISSUED");
    let brief = own_coupon(&shop, &user, json!({"valid_days": 1})).await;
    clock.advance(SignedDuration::from_hours(25));
    until("it has expired", async || !owned(&shop, &user, "EXPIRED").await.is_empty()).await;
    assert_eq!(owned(&shop, &user, "EXPIRED").await[0]["user_coupon_id"], json!(brief));
    let lamp = shop.product(1_000, 10).await;
    let order = order_with(&shop, &user, &[(lamp, 1)], brief).await;
    assert_eq!(order["failure"]["code"], "COUPON_NOT_USABLE");
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_has_a_welcome_coupon_of_five_percent_which_can_be_revoked() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(5_000).await, shop.product(1_000, 10).await);
    until("the user is welcomed", async || !owned(&shop, &user, "ISSUED").await.is_empty()).await;
    let welcome = owned(&shop, &user, "ISSUED").await.remove(0);
    assert_eq!(welcome["discount"], json!({"type": "PERCENT", "value": 5}));
    let own = id(&welcome["user_coupon_id"]);
    let other = shop.user(5_000).await;
    let order = order_with(&shop, &other, &[(lamp, 1)], own).await;
    assert_eq!(order["failure"]["code"], "COUPON_NOT_USABLE");
    let order = order_with(&shop, &user, &[(lamp, 1)], own).await;
    assert_eq!(order["total"], 950);
    let revocation = format!("/user-coupons/{own}/revocation");
    let (status, problem) = shop.post(&revocation, &json!({"reason": "abuse"})).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("COUPON_NOT_USABLE")));
    until("the other is welcomed", async || !owned(&shop, &other, "ISSUED").await.is_empty()).await;
    let own = id(&owned(&shop, &other, "ISSUED").await[0]["user_coupon_id"]);
    let revocation = format!("/user-coupons/{own}/revocation");
    for _ in 0..2 {
        let (status, revoked) = shop.post(&revocation, &json!({"reason": "abuse"})).await;
        assert_eq!((status.as_u16(), &revoked["status"]), (200, &json!("REVOKED")));
    }
    let order = order_with(&shop, &other, &[(lamp, 1)], own).await;
    assert_eq!(order["failure"]["code"], "COUPON_NOT_USABLE");
    let stranger = shop.request_as(&user.key, Method::GET, &format!("/users/{}/coupons", other.id));
    assert_eq!(answer(stranger).await.0, StatusCode::NOT_FOUND);
    let unknown = shop.request_as(ADMIN_KEY, Method::GET, &format!("/coupons/{}", Uuid::nil()));
    assert_eq!(answer(unknown).await.1["code"], "COUPON_NOT_FOUND");
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_charges_and_a_hundred_and_sixty_orders_at_once_leave_what_they_should() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let (user, lamp) = (shop.user(0).await, shop.product(700, 1_000).await);
    let mut charges = JoinSet::new();
    for _ in 0..100 {
        let (shop, path) = (shop.clone(), format!("/users/{}/balance/charges", user.id));
        charges.spawn(async move { shop.post(&path, &json!({"amount": 1_000})).await.0 });
    }
    assert!(charges.join_all().await.into_iter().all(|status| status == StatusCode::CREATED));
    let mut orders = JoinSet::new();
    for _ in 0..160 {
        let (shop, user) = (shop.clone(), user.clone());
        orders.spawn(async move { shop.order(&user, &[(lamp, 1)]).await });
    }
    let orders = orders.join_all().await;
    let confirmed = orders.iter().filter(|order| order["status"] == "CONFIRMED").count();
    let refused = orders.iter().filter(|order| order["failure"]["code"] == "INSUFFICIENT_BALANCE").count();
    assert_eq!((confirmed, refused), (142, 18));
    assert_eq!(shop.balance(&user).await, (600, 0));
    running.stop().await;
    shop.assert_verified().await;
}
