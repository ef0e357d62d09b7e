//! What stops or fails is named by readiness within seconds, and no more once it works again.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::database;
use ordermill_stack::{Private, Signal, TestStack};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::support::{Shop, id, stop, until};

/// How soon it is named.
const NAMED_WITHIN: Duration = Duration::from_secs(15);

/// Something that is not ready.
pub(crate) struct Named {
    pub(crate) code: String,
    pub(crate) detail: String,
    /// What is told of the whole shop.
    of_all: String,
}

/// What is told of that, if it is not ready.
async fn look(shop: &Shop, what: &str) -> Option<Named> {
    let answer = shop.client.get(shop.url("/readyz")).send().await.unwrap();
    if answer.status() == 200 {
        return None;
    }
    let problem: Value = answer.json().await.unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let error = problem["errors"].as_array().unwrap().iter().find(|error| error["field"] == what)?;
    Some(Named {
        code: text(&error["code"]),
        detail: text(&error["detail"]),
        of_all: text(&problem["detail"]),
    })
}

/// Waits until that is named, which must be soon.
pub(crate) async fn until_named(shop: &Shop, what: &str) -> Named {
    let (started, mut named) = (Instant::now(), None);
    until(&format!("{what} is named"), async || {
        named = look(shop, what).await;
        named.is_some()
    })
    .await;
    // Not more than a busy machine adds to it.
    assert!(started.elapsed() < NAMED_WITHIN * 2, "{what} is named after {:?}", started.elapsed());
    named.unwrap()
}

/// Has the database refuse every change of the rows of a table, until [`let_change`].
async fn refuse_changes(shop: &Shop, table: &str) {
    refuse_changes_where(shop, table, "true").await;
}

/// The same of those that fulfil a condition on the row's `OLD` and `NEW`.
async fn refuse_changes_where(shop: &Shop, table: &str, condition: &str) {
    let refuse = format!(
        "CREATE FUNCTION refuse_for_a_test() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'a secret of the database'; END $$;
         CREATE TRIGGER refuse_for_a_test BEFORE UPDATE ON {table}
             FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse_for_a_test()"
    );
    sqlx::raw_sql(AssertSqlSafe(refuse)).execute(&shop.pool).await.unwrap();
}

async fn let_change(shop: &Shop) {
    sqlx::raw_sql("DROP FUNCTION refuse_for_a_test CASCADE").execute(&shop.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stands_still_is_named_until_it_goes_on() {
    let shop = Shop::new().await;
    let (relay, others) = (shop.start(&["relay"]), [shop.start(&["worker"]), shop.start(&["api"])]);
    shop.until_ready().await;
    relay.signal(Signal::SIGSTOP);
    until_named(&shop, "relay").await;
    relay.signal(Signal::SIGCONT);
    shop.until_ready().await;
    others.iter().chain([&relay]).for_each(stop);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_lives_and_cannot_lead_is_named_until_it_can() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let held = "UPDATE relay_cursor SET leader = 'somebody who hangs', epoch = epoch + 1,
        lease_until = now() + interval '1 hour'";
    sqlx::query(held).execute(&shop.pool).await.unwrap();
    assert_eq!(until_named(&shop, "relay").await.code, "NOT_LEADING");
    sqlx::query("UPDATE relay_cursor SET lease_until = '-infinity'").execute(&shop.pool).await.unwrap();
    shop.until_ready().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stands_still_with_work_to_do_is_named_until_it_goes_on() {
    let shop = Shop::new().await;
    let stock = shop.start(&["worker", "stock"]);
    let others = ["worker", "orders", "payments", "coupons", "sales", "timers"];
    let others = [shop.start(&others), shop.start(&["relay"]), shop.start(&["api"])];
    shop.until_ready().await;
    let (user, lamp) = (shop.user(1_000).await, shop.product(100, 5).await);
    stock.signal(Signal::SIGSTOP);
    let order = shop.submit(&user, &[(lamp, 1)]).await;
    let named = until_named(&shop, "worker:stock").await;
    assert!(named.of_all.contains("the oldest order has been under way for"), "{}", named.of_all);
    stock.signal(Signal::SIGCONT);
    shop.until_ready().await;
    shop.settled(id(&order["order_id"])).await;
    others.iter().chain([&stock]).for_each(stop);
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_batches_fail_is_named_until_they_do_not_and_nobody_reads_the_error() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(1_000).await, shop.product(100, 5).await);
    refuse_changes(&shop, "stock").await;
    let order = shop.submit(&user, &[(lamp, 1)]).await;
    let named = until_named(&shop, "worker:stock").await;
    assert_eq!(named.code, "FAILING", "{}", named.detail);
    assert!(!named.detail.contains("secret"), "{}", named.detail);
    let_change(&shop).await;
    shop.until_ready().await;
    shop.settled(id(&order["order_id"])).await;
    shop.until_quiet().await;
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_that_fail_are_named_until_they_do_not() {
    let shop = Shop::new().await;
    let clock = Clock::manual(Timestamp::now());
    let running = shop.open_at(clock.clone()).await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(10_000, 5).await);
    shop.behave(&json!({"timeout_before": 1.0})).await;
    let order = shop.submit(&user, &[(lamp, 1)]).await;
    until("the gateway is asked", async || {
        shop.count("SELECT count(*) FROM event_log WHERE type = 'payment.requested'").await == 1
    })
    .await;
    shop.until_applied().await;
    refuse_changes(&shop, "orders").await;
    clock.advance(SignedDuration::from_secs(61));
    let named = until_named(&shop, "worker:timers").await;
    assert_eq!(named.code, "FAILING", "{}", named.detail);
    assert!(!named.detail.contains("secret"), "{}", named.detail);
    let_change(&shop).await;
    shop.until_ready().await;
    shop.behave(&json!({"timeout_before": 0.0})).await;
    let order = shop.settled(id(&order["order_id"])).await;
    assert_eq!(order["failure"]["code"], "DEADLINE_EXCEEDED", "{order}");
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_gateway_that_cannot_be_written_are_named_until_they_can() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(10_000, 5).await);
    // Whoever is not asked any more has been answered.
    refuse_changes_where(&shop, "payments", "OLD.state ? 'asked' AND NOT NEW.state ? 'asked'").await;
    let order = shop.submit(&user, &[(lamp, 1)]).await;
    let named = until_named(&shop, "worker:payments").await;
    assert!(named.detail.starts_with("what the gateway has answered can't be written"), "{}", named.detail);
    let_change(&shop).await;
    shop.until_ready().await;
    shop.settled(id(&order["order_id"])).await;
    shop.until_quiet().await;
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_nobody_can_read_make_no_database_that_does_not_answer() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let mut held = database::begin(&shop.pool).await.unwrap();
    sqlx::raw_sql("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let held_at = Instant::now();
    until("it would have been named", async || {
        assert!(look(&shop, "database").await.is_none());
        held_at.elapsed() > Duration::from_secs(12)
    })
    .await;
    held.rollback().await.unwrap();
    shop.until_ready().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stands_still_is_named_in_a_shop_in_which_nothing_moves() {
    let kafka = Private::kafka().unwrap();
    let shop = Shop::with_kafka(&kafka.brokers()).await;
    let running = shop.open().await;
    kafka.pause();
    assert_eq!(until_named(&shop, "kafka").await.code, "NOT_ANSWERING");
    // By a canary that is not acknowledged.
    until("the relay is named", async || {
        look(&shop, "relay").await.is_some_and(|named| named.detail.contains("acknowledged"))
    })
    .await;
    kafka.resume();
    shop.until_ready().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stands_still_is_named_until_it_goes_on() {
    let postgres = Private::postgres().unwrap();
    let shop = Shop::in_database(postgres.url("ordermill"), &TestStack::shared().await.kafka_brokers).await;
    let running = shop.open().await;
    postgres.pause();
    let named = until_named(&shop, "database").await;
    postgres.resume();
    assert_eq!(named.code, "NOT_ANSWERING", "{}", named.detail);
    shop.until_ready().await;
    running.stop().await;
    shop.assert_verified().await;
}
