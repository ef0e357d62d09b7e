//! API keys as an operator makes, replaces and revokes them, and as the API takes them.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use ordermill_pipeline::clock::Clock;
use ordermill_stack::{Child, free_port};
use ordermill_store::keys::{self, NewKey};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Shop, stop, until};

/// What the API logs of a key.
const HASH_DIGITS: usize = 8;

/// An API in a process of its own, with further arguments.
pub(crate) async fn start_api(shop: &Shop, arguments: &[&str]) -> Child {
    let api = shop.start(&[&["api"], arguments].concat());
    until("the API listens", async || shop.client.get(shop.url("/healthz")).send().await.is_ok()).await;
    api
}

/// What `ordermill keys` prints where it does as it is told.
async fn done(shop: &Shop, arguments: &[&str]) -> String {
    let output = shop.run(&[&["keys"], arguments].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// What it says where it does not.
async fn refused(shop: &Shop, arguments: &[&str]) -> String {
    let output = shop.run(&[&["keys"], arguments].concat()).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The keys of administrators, or with `--user ID` those of a customer.
async fn listed(shop: &Shop, whose: &[&str]) -> Vec<Value> {
    let list = done(shop, &[&["list", "--json"], whose].concat()).await;
    serde_json::from_str(&list).unwrap()
}

/// The states of the keys of that name, oldest first.
async fn states(shop: &Shop, name: &str) -> Vec<String> {
    let keys = listed(shop, &[]).await.into_iter().filter(|key| key["name"] == name);
    keys.map(|key| key["state"].as_str().unwrap().to_owned()).collect()
}

/// How the API answers an administrator with that key.
async fn status(shop: &Shop, key: &str) -> StatusCode {
    shop.request_as(key, Method::GET, "/orders").send().await.unwrap().status()
}

async fn until_refused(shop: &Shop, key: &str) {
    until("the key is refused", async || status(shop, key).await == StatusCode::UNAUTHORIZED).await;
}

fn hash_of(key: &str) -> String {
    ordermill_api::hash_key(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_when_it_is_made_and_never_again() {
    let shop = Shop::new().await;
    let api = start_api(&shop, &[]).await;
    let key = done(&shop, &["create", "--name", "minji", "--expires-in", "90d"]).await;
    assert_eq!(status(&shop, &key).await, 200);
    let text = refused(&shop, &["create", "--name", "minji"]).await;
    assert!(text.contains("ordermill keys rotate minji"), "{text}");

    let keys = listed(&shop, &[]).await;
    let [_, minji] = &keys[..] else { panic!("{keys:?}") };
    let mut members: Vec<&str> = minji.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    let expected = [
        "created_at",
        "expires_at",
        "id",
        "key_hash",
        "name",
        "replaced_until",
        "revoked_at",
        "scope",
        "state",
        "user_id",
    ];
    assert_eq!(members, expected);
    assert_eq!((&minji["name"], &minji["scope"]), (&json!("minji"), &json!("admin")));
    assert_eq!(
        (&minji["state"], &minji["key_hash"]),
        (&json!("VALID"), &json!(hash_of(&key)[..HASH_DIGITS]))
    );
    let time = |member: &str| minji[member].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!(time("expires_at").duration_since(time("created_at")), SignedDuration::from_hours(90 * 24));
    for list in [done(&shop, &["list"]).await, done(&shop, &["list", "--json"]).await] {
        assert!(list.contains("minji") && list.contains(minji["id"].as_str().unwrap()), "{list}");
        assert!(!list.contains(&key[3..]) && !list.contains(&hash_of(&key)), "{list}");
    }

    done(&shop, &["revoke", "minji"]).await;
    until_refused(&shop, &key).await;
    assert_eq!(states(&shop, "minji").await, ["REVOKED"]);
    let text = refused(&shop, &["revoke", "minji"]).await;
    assert!(text.contains("there is no key minji"), "{text}");
    let again = done(&shop, &["create", "--name", "minji"]).await;
    assert_eq!(status(&shop, &again).await, 200);
    stop(&api);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_at_once_or_with_a_time_in_which_both_are_good() {
    let shop = Shop::new().await;
    let api = start_api(&shop, &[]).await;
    let first = done(&shop, &["create", "--name", "minji"]).await;
    let second = done(&shop, &["rotate", "minji", "--grace", "1h"]).await;
    for good in [&first, &second] {
        assert_eq!(status(&shop, good).await, 200);
    }
    assert_eq!(states(&shop, "minji").await, ["REPLACED", "VALID"]);
    let third = done(&shop, &["rotate", "minji"]).await;
    for former in [&first, &second] {
        until_refused(&shop, former).await;
    }
    assert_eq!(status(&shop, &third).await, 200);
    assert_eq!(states(&shop, "minji").await, ["REVOKED", "REVOKED", "VALID"]);
    done(&shop, &["revoke", "minji"]).await;
    until_refused(&shop, &third).await;
    assert_eq!(states(&shop, "minji").await, ["REVOKED"; 3]);
    let text = refused(&shop, &["rotate", "minji"]).await;
    assert!(text.contains("there is no key minji"), "{text}");
    stop(&api);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_key_is_rotated_by_its_id_and_goes_with_the_customer() {
    let shop = Shop::new().await;
    let api = start_api(&shop, &[]).await;
    let user = shop.user(0).await;
    let (user_id, path) = (user.id.to_string(), format!("/users/{}", user.id));
    let look = async |key: &str| shop.request_as(key, Method::GET, &path).send().await.unwrap().status();
    let keys = listed(&shop, &["--user", &user_id]).await;
    let [signed_up] = &keys[..] else { panic!("{keys:?}") };
    assert_eq!((&signed_up["name"], &signed_up["scope"]), (&json!("sign-up"), &json!("customer")));
    assert_eq!(signed_up["user_id"], user_id.as_str());
    let id = signed_up["id"].as_str().unwrap();
    let second = done(&shop, &["rotate", id, "--grace", "1h"]).await;
    let third = done(&shop, &["create", "--name", "app", "--user", &user_id]).await;
    for good in [&user.key, &second, &third] {
        assert_eq!(look(good).await, 200);
        assert_eq!(status(&shop, good).await, 403, "a customer's");
    }
    let erased = shop.request_as(&third, Method::DELETE, &path).send().await.unwrap();
    assert_eq!(erased.status(), 204);
    for gone in [&user.key, &second, &third] {
        assert_eq!(look(gone).await, 401);
    }
    let text = refused(&shop, &["create", "--name", "app", "--user", &user_id]).await;
    assert!(text.contains(&format!("there is no user {user_id}")), "{text}");
    let text = refused(&shop, &["rotate", id]).await;
    assert!(text.contains(&format!("there is no key {id}")), "{text}");
    stop(&api);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_the_environment_is_the_one_that_was_given_last_and_no_other() {
    let shop = Shop::new().await;
    let (first, second) = ("1f".repeat(32), "2f".repeat(32));
    let api = start_api(&shop, &["--admin-key", &first]).await;
    // A process beside it that is given the same.
    let listen = format!("127.0.0.1:{}", free_port().unwrap());
    let other = shop.start(&["api", "--listen", &listen, "--admin-key", &first]);
    let other_url = format!("http://{listen}/healthz");
    until("the other API listens", async || shop.client.get(&other_url).send().await.is_ok()).await;
    assert_eq!(status(&shop, &first).await, 200);
    assert_eq!(states(&shop, "environment").await, ["VALID"]);
    stop(&api);
    stop(&other);

    let api = start_api(&shop, &["--admin-key", &second]).await;
    assert_eq!(status(&shop, &first).await, 401);
    assert_eq!(status(&shop, &second).await, 200);
    assert_eq!(states(&shop, "environment").await, ["REVOKED", "VALID"]);
    stop(&api);
    // A process that is given the former one serves, and lets nobody in by it.
    let api = start_api(&shop, &["--admin-key", &first]).await;
    assert_eq!(status(&shop, &first).await, 401);
    assert_eq!(status(&shop, &second).await, 200);
    assert_eq!(states(&shop, "environment").await, ["REVOKED", "VALID"]);
    stop(&api);
    // One that can't serve has revoked nothing.
    let output = shop.run(&["api", "--admin-key", &"3f".repeat(32), "--callback-secret", ""]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(states(&shop, "environment").await, ["REVOKED", "VALID"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrators_key_that_could_be_guessed_is_refused_with_advice() {
    let shop = Shop::new().await;
    let output = shop.run(&["api", "--admin-key", "for-one-machine-only"]).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("ORDERMILL_ADMIN_KEY") && text.contains("openssl rand -hex 32"), "{text}");
    assert!(!text.contains("for-one-machine-only"), "{text}");
    assert_eq!(states(&shop, "environment").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_time_is_over_is_refused_though_it_was_in_use() {
    /// For which a key is remembered, and the longest that the database may have taken to say that it is good.
    const REMEMBERED_FOR: Duration = Duration::from_secs(3);
    let shop = Shop::new().await;
    let clock = Clock::manual(Timestamp::now());
    let running = shop.open_at(clock.clone()).await;
    let (key, key_hash) = ordermill_api::new_api_key().unwrap();
    let hour = SignedDuration::from_hours(1);
    let name = "guest".parse().unwrap();
    let guest = NewKey { name, user_id: None, expires_at: Some(clock.now() + hour) };
    keys::create(&shop.pool, &key_hash, &guest, clock.now()).await.unwrap();
    assert_eq!(status(&shop, &key).await, 200);
    clock.advance(hour);
    let over_at = Instant::now();
    until_refused(&shop, &key).await;
    // Not more than a busy machine adds to it.
    assert!(over_at.elapsed() < REMEMBERED_FOR * 2, "{:?}", over_at.elapsed());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_keys_are_counted_by_what_was_wrong_and_no_log_has_one() {
    let shop = Shop::new().await;
    let api = start_api(&shop, &[]).await;
    let unknown = "om_a_key_that_nobody_has_0123456789".to_owned();
    let revoked = done(&shop, &["create", "--name", "minji"]).await;
    done(&shop, &["revoke", "minji"]).await;
    let (expired, key_hash) = ordermill_api::new_api_key().unwrap();
    let (now, hour) = (Clock::system().now(), SignedDuration::from_hours(1));
    let name = "guest".parse().unwrap();
    let guest = NewKey { name, user_id: None, expires_at: Some(now - hour) };
    keys::create(&shop.pool, &key_hash, &guest, now - hour - hour).await.unwrap();
    assert_eq!(states(&shop, "guest").await, ["EXPIRED"]);
    for key in [&unknown, &revoked, &expired] {
        assert_eq!(status(&shop, key).await, 401);
    }
    let nobody = shop.request_as_nobody(Method::GET, "/v1/orders").send().await.unwrap();
    assert_eq!(nobody.status(), 401);
    for reason in ["unknown", "revoked", "expired", "missing"] {
        let name = format!("ordermill_authentication_failures_total{{reason=\"{reason}\"}}");
        assert_eq!(shop.metric(&name).await, Some(1.0), "{reason}");
    }
    let log = api.output();
    for key in [&unknown, &revoked, &expired] {
        let hash = hash_of(key);
        assert!(log.contains(&hash[..HASH_DIGITS]), "{log}");
        assert!(!log.contains(key.as_str()) && !log.contains(&hash), "{log}");
    }
    stop(&api);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_idempotency_keys_are_an_administrators_whichever_key_is_used() {
    let shop = Shop::new().await;
    let api = start_api(&shop, &[]).await;
    let lamp = json!({"name": "Lamp", "description": "", "category": "light", "price": 5, "stock": 5});
    let idempotency_key = Uuid::new_v4().to_string();
    let add = async |key: &str| {
        let request = shop.request_as(key, Method::POST, "/products");
        let answer = request.header("Idempotency-Key", &idempotency_key).json(&lamp).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        answer.headers().contains_key("idempotency-replayed")
    };
    let acted = async |name: &str| {
        let sql = format!("SELECT count(DISTINCT request_id) FROM event_log WHERE actor = 'admin:{name}'");
        shop.count(&sql).await
    };
    let first = done(&shop, &["create", "--name", "minji"]).await;
    assert!(!add(&first).await);
    let second = done(&shop, &["rotate", "minji"]).await;
    assert!(add(&second).await, "it is the same administrator");
    let other = done(&shop, &["create", "--name", "jun"]).await;
    assert!(!add(&other).await, "it is another administrator");
    assert_eq!((acted("minji").await, acted("jun").await), (1, 1));
    stop(&api);
}
