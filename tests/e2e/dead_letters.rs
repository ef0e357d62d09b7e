//! Dead letters as an operator works them, over HTTP and by the command.

mod changes;
mod command;
mod coupons;
mod killed;
mod rule;

use std::process::Output;

use jiff::{SignedDuration, Timestamp};
use ordermill_pipeline::clock::Clock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::documents::Forgery;
use crate::support::{Running, Shop, answer, id, until};

/// A shop whose clock stands still, so that no order that waits for a dead letter is given up. It stands a little
/// ahead, so that what the command asks for by the machine's clock is due.
async fn open_shop() -> (Shop, Running) {
    let shop = Shop::new().await;
    let ahead = Timestamp::now() + SignedDuration::from_secs(240);
    let running = shop.open_at(Clock::manual(ahead)).await;
    (shop, running)
}

/// What of a shelf that is poisoned is not as it must be.
const BROKEN_RULE: &str = "its units do not add up to what was received";

/// A shelf whose units do not add up: the rules of the domain refuse whatever is decided of it, before anything is
/// written. So the stock worker can't apply orders of that product, and a dry run knows it, too.
pub(crate) struct Poison {
    product_id: Uuid,
    /// Adds the rule that the table has of the same.
    rule: String,
}

impl Poison {
    pub(crate) async fn of(shop: &Shop, product_id: Uuid) -> Poison {
        let rule =
            "SELECT format('ALTER TABLE stock ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid))
            FROM pg_constraint WHERE conname = 'stock_adds_up' AND conrelid = 'stock'::regclass";
        let rule = sqlx::query_scalar(rule).fetch_one(&shop.pool).await.unwrap();
        let poison = Poison { product_id, rule };
        let script = format!("ALTER TABLE stock DROP CONSTRAINT stock_adds_up; {}", poison.receives(1));
        sqlx::raw_sql(AssertSqlSafe(script)).execute(&shop.pool).await.unwrap();
        poison
    }

    /// The stock worker can apply all orders again.
    pub(crate) async fn cure(self, shop: &Shop) {
        let script = format!("{}; {}", self.receives(-1), self.rule);
        sqlx::raw_sql(AssertSqlSafe(script)).execute(&shop.pool).await.unwrap();
    }

    fn receives(&self, units: i64) -> String {
        Forgery::of("stock", self.product_id).add("received", units).statement()
    }
}

/// Waits until the group has that many letters in that state.
pub(crate) async fn until_letters(shop: &Shop, group: &str, state: &str, count: i64) {
    let sql = format!("SELECT count(*) FROM dead_letter WHERE group_name = '{group}' AND state = '{state}'");
    until("the letters are there", async || shop.count(&sql).await == count).await;
}

/// Asks for a replay and answers it once every letter has its verdict.
pub(crate) async fn replay(shop: &Shop, body: &Value) -> Value {
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
    let words = "INSERT INTO log_word (word) VALUES ('orders'), ('balance.opened'), ('admin')
        ON CONFLICT DO NOTHING";
    sqlx::query(words).execute(&shop.pool).await.unwrap();
    let written = sqlx::query(
        "INSERT INTO log_segment (events, about, event_id, topic, partition, aggregate_id, sequence, type, version, actor, trace,
             at, data)
         SELECT 1, ARRAY[$1], ARRAY[gen_random_uuid()], ARRAY[topic.code], '{0}', ARRAY[$1], ARRAY[$2], ARRAY[type.code], '{1}',
             ARRAY[actor.code], decode('0af7651916cd43dd8448eb211c80319cb7ad6b716920333101', 'hex'), now(), ARRAY[$3]
         FROM log_word AS topic, log_word AS type, log_word AS actor
         WHERE topic.word = 'orders' AND type.word = 'balance.opened' AND actor.word = 'admin'",
    )
    .bind(key)
    .bind(sequence)
    .bind(payload.as_bytes())
    .execute(&shop.pool)
    .await
    .unwrap();
    assert_eq!(written.rows_affected(), 1);
}

/// A payload that such a message should have.
fn sound(key: Uuid) -> String {
    json!({"user_id": key}).to_string()
}

/// Of a key, a message whose payload is broken, and some behind it that are sound. Answers its letter of the group stock,
/// once all of them are put aside.
pub(crate) async fn broken_with_waiting(shop: &Shop, waiting: i32) -> (Uuid, Uuid) {
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
