//! Dead letters as an operator works them, over HTTP and by the command.

mod changes;
mod command;
mod killed;
mod rule;

use std::process::Output;

use jiff::{SignedDuration, Timestamp};
use ordermill_pipeline::clock::Clock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::{Running, Shop, answer, id, until};

/// A shop whose clock stands still, so that no order that waits for a dead letter is given up. It stands a little
/// ahead, so that what the command asks for by the machine's clock is due.
async fn open_shop() -> (Shop, Running) {
    let shop = Shop::new().await;
    let ahead = Timestamp::now() + SignedDuration::from_secs(240);
    let running = shop.open_at(Clock::manual(ahead)).await;
    (shop, running)
}

/// From now on the stock worker can't apply orders of that product.
async fn poison(shop: &Shop, product_id: Uuid) {
    let rule = format!(
        "ALTER TABLE stock_reservations ADD CONSTRAINT no_lamps
         CHECK (NOT lines @> '[{{\"product_id\": \"{product_id}\"}}]')"
    );
    sqlx::raw_sql(AssertSqlSafe(rule)).execute(&shop.pool).await.unwrap();
}

/// The stock worker can apply all orders again.
async fn cure(shop: &Shop) {
    let rule = "ALTER TABLE stock_reservations DROP CONSTRAINT no_lamps";
    sqlx::raw_sql(rule).execute(&shop.pool).await.unwrap();
}

/// Waits until the group has that many letters in that state.
async fn until_letters(shop: &Shop, group: &str, state: &str, count: i64) {
    let sql = format!("SELECT count(*) FROM dead_letter WHERE group_name = '{group}' AND state = '{state}'");
    until("the letters are there", async || shop.count(&sql).await == count).await;
}

/// Asks for a replay and answers it once every letter has its verdict.
async fn replay(shop: &Shop, body: &Value) -> Value {
    let (status, requested) = shop.post("/dead-letters/replays", body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{requested}");
    done(shop, id(&requested["replay_id"])).await
}

/// The replay once every letter has its verdict.
async fn done(shop: &Shop, replay_id: Uuid) -> Value {
    let path = format!("/dead-letters/replays/{replay_id}");
    let mut replay = Value::Null;
    until("the replay is done", async || {
        let request = shop.request(Method::GET, &path).header("Prefer", "wait=5");
        replay = answer(request).await.1;
        replay["state"] == "DONE"
    })
    .await;
    replay
}

/// How many letters of a replay have which verdict, those that none has left out.
fn counts(replay: &Value) -> Value {
    let counts = replay["counts"].as_object().unwrap().clone();
    counts.into_iter().filter(|(_, count)| *count != 0).collect::<serde_json::Map<_, _>>().into()
}

/// The letter with everything.
async fn letter(shop: &Shop, dead_letter_id: Uuid) -> Value {
    shop.get(&format!("/dead-letters/{dead_letter_id}")).await
}

/// Writes a message into the log that no part of ours would: on the topic `orders`, of a type that the stock worker has
/// nothing to do for.
async fn write_by_hand(shop: &Shop, key: Uuid, sequence: i32, payload: &str) {
    sqlx::query(
        "INSERT INTO event_log (event_id, topic, partition, key, aggregate_id, sequence, type, version, actor,
             traceparent, at, data)
         VALUES (gen_random_uuid(), 'orders', 0, $1, $1, $2, 'balance.opened', 1, 'admin',
             '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', now(), $3)",
    )
    .bind(key)
    .bind(sequence)
    .bind(payload.as_bytes())
    .execute(&shop.pool)
    .await
    .unwrap();
}

/// A payload that such a message should have.
fn sound(key: Uuid) -> String {
    json!({"user_id": key}).to_string()
}

/// Of a key, a message whose payload is broken, and some behind it that are sound. Answers its letter of the group stock,
/// once all of them are put aside.
async fn broken_with_waiting(shop: &Shop, waiting: i32) -> (Uuid, Uuid) {
    let key = Uuid::now_v7();
    write_by_hand(shop, key, 1, r#"{"user_id": "nobody"}"#).await;
    for sequence in 2..waiting + 2 {
        write_by_hand(shop, key, sequence, &sound(key)).await;
    }
    let of_key = format!("FROM dead_letter WHERE group_name = 'stock' AND record_key = '{key}'");
    let count = format!("SELECT count(*) {of_key}");
    until("all are put aside", async || shop.count(&count).await == i64::from(waiting) + 1).await;
    let parked = format!("SELECT dead_letter_id {of_key} AND state = 'PARKED'");
    (key, sqlx::query_scalar(AssertSqlSafe(parked)).fetch_one(&shop.pool).await.unwrap())
}

/// The states of a key's letters of the group stock, in order.
async fn states(shop: &Shop, key: Uuid) -> Vec<String> {
    let sql = "SELECT state FROM dead_letter WHERE group_name = 'stock' AND record_key = $1 ORDER BY ordinal";
    sqlx::query_scalar(sql).bind(key.to_string().into_bytes()).fetch_all(&shop.pool).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What the command printed, where it ended with that code.
fn printed(output: &Output, code: i32) -> &str {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    text(&output.stdout)
}

/// What the command printed as JSON, where it ended with that code.
fn json_of(output: &Output, code: i32) -> Value {
    serde_json::from_str(printed(output, code)).unwrap()
}

/// The one line that says why the command did not do it.
fn refusal(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let line = text(&output.stderr).trim_end();
    assert!(!line.contains('\n'), "{line}");
    line
}
