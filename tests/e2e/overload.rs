//! More orders than relay and workers can bring to rest in time.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{Shop, order_of, until};

/// The relay's cursor, a little further on in the segment where it stands.
const MOVE_ON: &str = "UPDATE relay_cursor SET position = position + 1";
/// Everything in the log has waited for a minute.
const WAITED: &str = "ALTER TABLE log_segment DISABLE TRIGGER USER;
    UPDATE log_segment SET at = at - interval '1 minute'; ALTER TABLE log_segment ENABLE TRIGGER USER";

/// Places an order; the status, and for how many seconds to stay away.
async fn place(shop: &Shop, order: &Value) -> (StatusCode, Option<u64>) {
    let request = shop.request(Method::POST, "/orders");
    let answer =
        request.header("Idempotency-Key", Uuid::new_v4().to_string()).json(order).send().await.unwrap();
    let retry_after =
        answer.headers().get(RETRY_AFTER).map(|seconds| seconds.to_str().unwrap().parse().unwrap());
    (answer.status(), retry_after)
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_would_wait_too_long_are_refused_while_the_pipeline_moves_and_accepted_while_it_stands_still()
 {
    let shop = Shop::new().await;
    let api = shop.start(&["api"]);
    until("the API listens", async || shop.client.get(shop.url("/healthz")).send().await.is_ok()).await;
    let user = shop.user(1_000_000).await;
    let order = order_of(&user, &[(shop.product(100, 100).await, 1)]);
    sqlx::raw_sql(WAITED).execute(&shop.pool).await.unwrap();
    // Nothing moves: the relay is away, and will come back. That shows only once it has been looked at more than twice.
    for _ in 0..10 {
        assert_eq!(place(&shop, &order).await.0, StatusCode::ACCEPTED);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // It moves, and is a minute behind.
    let mut refused = None;
    until("an order is refused", async || {
        sqlx::query(MOVE_ON).execute(&shop.pool).await.unwrap();
        let (status, retry_after) = place(&shop, &order).await;
        refused = retry_after.filter(|_| status == StatusCode::SERVICE_UNAVAILABLE);
        refused.is_some()
    })
    .await;
    assert!(refused.is_some_and(|seconds| (30..=70).contains(&seconds)), "{refused:?}");
    // It stands still again.
    until("orders are accepted", async || place(&shop, &order).await.0 == StatusCode::ACCEPTED).await;
    drop(api);
}
