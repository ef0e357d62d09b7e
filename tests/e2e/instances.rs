//! Several API processes: what one remembers is right after another has changed it, whatever is away.

use std::time::{Duration, Instant};

use ordermill_stack::{Child, Private, TestStack, free_port};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{ORDERMILL, Shop, answer, id, new_wire_secret, stop, until};

/// How soon a change must be visible everywhere.
const VISIBLE_WITHIN: Duration = Duration::from_secs(1);

/// A second API process.
struct OtherApi {
    child: Child,
    url: String,
}

impl OtherApi {
    async fn start(shop: &Shop) -> OtherApi {
        let listen = format!("127.0.0.1:{}", free_port().unwrap());
        let child = shop.start(&["api", "--listen", &listen]);
        let other = OtherApi { child, url: format!("http://{listen}") };
        until("the other API listens", async || {
            shop.client.get(format!("{}/healthz", other.url)).send().await.is_ok()
        })
        .await;
        other
    }

    async fn product(&self, shop: &Shop, product_id: Uuid) -> Value {
        let url = format!("{}/v1/products/{product_id}", self.url);
        let (status, product) = answer(shop.client.get(url)).await;
        assert_eq!(status, 200, "{product}");
        product
    }

    /// How often the cache said so.
    async fn reads(&self, shop: &Shop, outcome: &str) -> u64 {
        let figures = shop.client.get(format!("{}/metrics", self.url)).send().await.unwrap();
        let name = format!("ordermill_product_cache_reads_total{{outcome=\"{outcome}\"}} ");
        let figures = figures.text().await.unwrap();
        figures.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
    }

    /// Asks until the answer comes from memory, and answers it.
    async fn remembered(&self, shop: &Shop, product_id: Uuid) -> Value {
        let mut product = Value::Null;
        until("the product is remembered", async || {
            let before = self.reads(shop, "hit").await;
            product = self.product(shop, product_id).await;
            self.reads(shop, "hit").await > before
        })
        .await;
        product
    }
}

async fn change(shop: &Shop, product_id: Uuid, change: Value) -> Value {
    let request = shop.request(Method::PATCH, &format!("/products/{product_id}"));
    let (status, product) = answer(request.json(&change)).await;
    assert_eq!(status, 200, "{product}");
    product
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_visible_within_a_second_on_an_instance_that_remembers_the_product() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let other = OtherApi::start(&shop).await;
    let lamp = shop.product(100, 5).await;
    for price in 200..210 {
        let remembered = other.remembered(&shop, lamp).await;
        assert_eq!(remembered, shop.get(&format!("/products/{lamp}")).await);
        let after = change(&shop, lamp, json!({"price": price})).await;
        let changed_at = Instant::now();
        assert_eq!(shop.get(&format!("/products/{lamp}")).await, after, "at once where it was made");
        until("the change is visible", async || other.product(&shop, lamp).await == after).await;
        assert!(changed_at.elapsed() < VISIBLE_WITHIN, "{:?}", changed_at.elapsed());
    }
    assert_eq!(other.remembered(&shop, lamp).await["price"], 209);
    stop(&other.child);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_is_never_remembered() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let other = OtherApi::start(&shop).await;
    let lamp = shop.product(100, 5).await;
    for stock in (0..5).rev() {
        other.remembered(&shop, lamp).await;
        let taken = json!({"delta": -1, "reason": "counted"});
        assert_eq!(shop.post(&format!("/products/{lamp}/stock"), &taken).await.0, 200);
        let product = other.product(&shop, lamp).await;
        assert_eq!(product["stock"], stock, "at once");
        assert_eq!(product["status"], if stock > 0 { "ON_SALE" } else { "SOLD_OUT" });
    }
    stop(&other.child);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_visible_within_a_second_while_kafka_stands_still() {
    let kafka = Private::kafka().unwrap();
    let shop = Shop::with_kafka(&kafka.brokers()).await;
    let running = shop.open().await;
    let other = OtherApi::start(&shop).await;
    let lamp = shop.product(100, 5).await;
    other.remembered(&shop, lamp).await;
    kafka.pause();
    let mut expected = Value::Null;
    for price in [200, 300] {
        expected = change(&shop, lamp, json!({"price": price})).await;
        let changed_at = Instant::now();
        until("the change is visible", async || other.product(&shop, lamp).await == expected).await;
        assert!(changed_at.elapsed() < VISIBLE_WITHIN, "{:?}", changed_at.elapsed());
    }
    let bypassed = other.reads(&shop, "bypassed").await;
    assert_eq!(other.product(&shop, lamp).await, expected);
    assert_eq!(other.reads(&shop, "bypassed").await, bypassed + 1, "what is remembered is not used");
    kafka.resume();
    // Once everything has been published, what is remembered is what stands. Until then it may be what stood a moment ago.
    until("what is remembered is what stands", async || other.remembered(&shop, lamp).await == expected)
        .await;
    stop(&other.child);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_one_instance_revokes_is_refused_by_the_other_within_seconds() {
    const REMEMBERED_FOR: Duration = Duration::from_secs(2);
    let shop = Shop::new().await;
    let running = shop.open().await;
    let other = OtherApi::start(&shop).await;
    let user = shop.user(0).await;
    let url = format!("{}/v1/users/{}", other.url, user.id);
    let look = async || shop.client.get(&url).bearer_auth(&user.key).send().await.unwrap().status();
    assert_eq!(look().await, 200);
    let path = format!("/users/{}", user.id);
    let erased = shop.request_as(&user.key, Method::DELETE, &path).send().await.unwrap();
    assert_eq!(erased.status(), 204);
    let erased_at = Instant::now();
    assert_ne!(look().await, 200, "the user is gone at once, whoever asks");
    until("the key is refused", async || look().await == 401).await;
    // Not more than a busy machine adds to it.
    assert!(erased_at.elapsed() < REMEMBERED_FOR * 2, "{:?}", erased_at.elapsed());
    stop(&other.child);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_partitions_is_said_where_the_log_is_set_up_and_never_again() {
    let url = TestStack::shared().await.fresh_database().await;
    let directory = tempfile::tempdir().unwrap();
    let secret = new_wire_secret(directory.path());
    let migrate = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(ORDERMILL);
        command.arg("migrate").args(arguments).env("DATABASE_URL", &url).kill_on_drop(true);
        command.env("ORDERMILL_WIRE_SECRET_FILE", &secret);
        let output = command.output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(migrate(&["--partitions", "0"]).await.0, Some(2));
    assert_eq!(migrate(&["--partitions", "3"]).await, (Some(0), String::new()));
    assert_eq!(migrate(&[]).await, (Some(0), String::new()), "later releases are not told");
    let (status, text) = migrate(&["--partitions", "5"]).await;
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("written for 3 partitions, not 5"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_claims_on_two_instances_at_once_has_one_claim_and_hears_of_it() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let other = OtherApi::start(&shop).await;
    let coupon = json!({"name": "Spring", "discount": {"type": "PERCENT", "value": 10}, "quantity": 100});
    let (status, coupon) = shop.post("/coupons", &coupon).await;
    assert_eq!(status, 201, "{coupon}");
    let path = format!("/coupons/{}/claims", id(&coupon["coupon_id"]));
    for _ in 0..10 {
        let user = shop.user(0).await;
        let here = shop.request_as(&user.key, Method::POST, &path);
        let there = shop.client.post(format!("{}/v1{path}", other.url)).bearer_auth(&user.key);
        let claim = |request: RequestBuilder| answer(request.json(&json!({"user_id": user.id})));
        let (here, there) = tokio::join!(claim(here), claim(there));
        let (taken, refused) = if here.0 == 202 { (here, there) } else { (there, here) };
        assert_eq!((taken.0.as_u16(), refused.0.as_u16()), (202, 409), "{} {}", taken.1, refused.1);
        assert_eq!(refused.1["code"], "COUPON_ALREADY_CLAIMED");
        assert_eq!(refused.1["claim_id"], taken.1["claim_id"]);
    }
    stop(&other.child);
    running.stop().await;
    shop.assert_verified().await;
}
