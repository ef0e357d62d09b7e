//! Relay, workers and API have connections to the database of their own.

use std::sync::Arc;

use ordermill::pools;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use crate::readiness::until_named;
use crate::support::{Shop, answer, id, until};

/// How many ask for something at once.
const CLIENTS: usize = 200;

/// From here on whoever reads of a user waits while somebody has the lock 1, for as long as a statement may take. A lock of the table would need a
/// transaction that the relay waits for, and the API would soon give it up.
const HOLD_READERS_UP: &str = "
    CREATE FUNCTION held_up_for_a_test() RETURNS boolean LANGUAGE sql SET lock_timeout = 0 AS
        $$ SELECT pg_advisory_xact_lock_shared(1); SELECT true $$;
    ALTER TABLE users RENAME TO users_of_a_test;
    CREATE VIEW users AS SELECT * FROM users_of_a_test WHERE held_up_for_a_test()";

/// The statements that wait for that lock: where, and since when.
async fn held_up(shop: &Shop) -> Vec<(i32, String)> {
    const WAITING: &str = "SELECT pid, query_start::text FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event = 'advisory' ORDER BY pid";
    sqlx::query_as(WAITING).fetch_all(&shop.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_settles_while_requests_have_every_connection_of_the_api_and_readiness_tells_of_them() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let (user, lamp) = (shop.user(5_000).await, shop.product(1_000, 10).await);
    // It is accepted, and does not rest before the gateway answers.
    shop.behave(&json!({"error": 1.0})).await;
    let order_id = id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]);
    until("the gateway is asked", async || {
        shop.metric("ordermill_gateway_answers_total{answer=\"UNKNOWN\"}").await >= Some(1.0)
    })
    .await;

    sqlx::raw_sql(HOLD_READERS_UP).execute(&shop.pool).await.unwrap();
    let mut holder = shop.pool.acquire().await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(1)").execute(&mut *holder).await.unwrap();
    let mut requests = JoinSet::new();
    for _ in 0..CLIENTS {
        let (shop, user) = (shop.clone(), user.clone());
        requests.spawn(async move {
            let path = format!("/users/{}", user.id);
            loop {
                match answer(shop.request_as(&user.key, Method::GET, &path)).await {
                    (StatusCode::OK, _) => return,
                    (StatusCode::SERVICE_UNAVAILABLE, _) => {}
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    let all = usize::try_from(pools::READING).unwrap();
    until("requests have every connection", async || held_up(&shop).await.len() == all).await;
    let before = held_up(&shop).await;

    shop.behave(&json!({"error": 0.0})).await;
    let confirmed = format!("SELECT count(*) FROM orders WHERE key = '{order_id}' AND status = 'CONFIRMED'");
    until("the order is confirmed", async || shop.count(&confirmed).await == 1).await;
    assert_eq!(held_up(&shop).await, before, "it has not waited for any of them");
    let named = until_named(&shop, "database").await;
    assert_eq!(named.code, "NOT_ANSWERING");
    assert!(named.detail.starts_with("every connection that the API reads with"), "{}", named.detail);
    assert!(requests.try_join_next().is_none(), "nobody has been answered meanwhile");

    sqlx::query("SELECT pg_advisory_unlock(1)").execute(&mut *holder).await.unwrap();
    shop.until_ready().await;
    while let Some(request) = requests.join_next().await {
        request.unwrap();
    }
    shop.until_quiet().await;
    running.stop().await;
    shop.assert_verified().await;
}
