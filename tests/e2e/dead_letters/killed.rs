//! A worker that is killed in the middle of a replay.

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Poison, counts, done, replay, until_letters};
use crate::support::{Shop, id, stop, until};

/// How many orders are put aside.
const LETTERS: usize = 1_000;
/// How many of them were applied by a replay before.
const APPLIED_BEFORE: usize = 300;
/// How many customers order at once.
const CUSTOMERS: usize = 10;
/// Faster than one worker is, slow enough to be seen at work.
const RATE_PER_SECOND: i32 = 1_000;

/// Has so many orders of a product accepted.
async fn place_orders(shop: &Arc<Shop>, product_id: Uuid) {
    let mut customers = JoinSet::new();
    for _ in 0..CUSTOMERS {
        let (shop, user) = (shop.clone(), shop.user(0).await);
        customers.spawn(async move {
            for _ in 0..LETTERS / CUSTOMERS {
                shop.submit(&user, &[(product_id, 1)]).await;
            }
        });
    }
    customers.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_of_a_replay_leaves_exact_verdicts() {
    let shop = Arc::new(Shop::new().await);
    // Without timers, so that no order is given up; without a brake, since everything fails.
    let worker = ["worker", "stock", "--flood-share", "1"];
    let (api, relay, stock) = (shop.start(&["api"]), shop.start(&["relay"]), shop.start(&worker));
    until("the API listens", async || {
        shop.client.get(shop.url("/healthz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let lamp = shop.product(100, 10_000).await;
    let poison = Poison::of(&shop, lamp).await;
    place_orders(&shop, lamp).await;
    until_letters(&shop, "stock", "PARKED", LETTERS.try_into().unwrap()).await;
    poison.cure(&shop).await;
    let letters: Vec<Uuid> = sqlx::query_scalar("SELECT dead_letter_id FROM dead_letter ORDER BY ordinal")
        .fetch_all(&shop.pool)
        .await
        .unwrap();
    let before = replay(&shop, &json!({"ids": letters[..APPLIED_BEFORE]})).await;
    assert_eq!(counts(&before), json!({"APPLIED": APPLIED_BEFORE}));

    let body = json!({"ids": letters, "rate_per_second": RATE_PER_SECOND});
    let (_, requested) = shop.post("/dead-letters/replays", &body).await;
    let replay_id = id(&requested["replay_id"]);
    assert_eq!(requested["selected"], LETTERS, "{requested}");
    let undecided = format!(
        "SELECT count(*) FROM dead_letter_replay_item WHERE replay_id = '{replay_id}' AND verdict IS NULL"
    );
    let some_applied = i64::try_from(LETTERS - APPLIED_BEFORE - 100).unwrap();
    until("some of them are applied", async || shop.count(&undecided).await <= some_applied).await;
    stock.kill9();
    let left = shop.count(&undecided).await;
    assert!(left > 0, "the replay was over before the kill");

    let stock = shop.start(&worker);
    let after = done(&shop, replay_id).await;
    let expected = json!({"APPLIED": LETTERS - APPLIED_BEFORE, "ALREADY_APPLIED": APPLIED_BEFORE});
    assert_eq!(counts(&after), expected);
    let reserved = "SELECT count(*) FROM event_log WHERE type = 'stock.reserved'";
    assert_eq!(shop.count(reserved).await, i64::try_from(LETTERS).unwrap(), "each order reserved once");
    let sql = format!("SELECT reserved FROM stock WHERE key = '{lamp}'");
    assert_eq!(shop.count(&sql).await, i64::try_from(LETTERS).unwrap());
    for child in [&api, &relay, &stock] {
        stop(child);
    }
}
