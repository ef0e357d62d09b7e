//! Kafka or the database is lost: what is there afterwards adds up, and orders go on.

use std::process::Output;
use std::sync::Arc;

use ordermill_pipeline::database;
use ordermill_stack::{Private, postgres_program};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use crate::faults::Load;
use crate::support::{Shop, stop, until};

#[tokio::test(flavor = "multi_thread")]
async fn kafka_loses_everything_while_orders_are_under_way_and_all_of_them_settle() {
    let kafka = tokio::task::spawn_blocking(Private::kafka).await.unwrap().unwrap();
    let shop = Arc::new(Shop::with_kafka(&kafka.brokers()).await);
    let running = shop.open().await;
    let load = Load::start(&shop, 4).await;
    load.until_accepted(60).await;
    let kafka = tokio::task::spawn_blocking(move || {
        kafka.wipe_data().unwrap();
        kafka.restart().unwrap();
        kafka
    })
    .await
    .unwrap();
    load.until_accepted(20).await;
    let accepted = load.stop().await;
    // An order that waited too long for Kafka is refused, as it is whenever something is away.
    shop.until_quiet().await;
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, i64::try_from(accepted.len()).unwrap());
    // What was lost is published again behind what is new, so it may take a moment longer.
    until("everything adds up", async || shop.verify().await.ok).await;
    assert!(shop.metric("ordermill_relay_repeats_total").await > Some(0.0));
    running.stop().await;
    drop(kafka);
}

/// A dump of a shop's database, taken while it is at work.
struct Dump(TempDir);

impl Dump {
    async fn of(shop: &Shop) -> Dump {
        let dump = Dump(tempfile::tempdir().unwrap());
        let file = format!("--file={}", dump.file());
        call("pg_dump", &["--format=custom", &file, "--dbname", url(shop)]).await;
        dump
    }

    /// In place of the database as it is.
    async fn restore(&self, shop: &Shop) {
        let (server, name) = url(shop).rsplit_once('/').unwrap();
        let admin = database::connect(&format!("{server}/postgres"), "test", 1).await.unwrap();
        for statement in [
            format!("DROP DATABASE {name} WITH (FORCE)"),
            format!("CREATE DATABASE {name} TEMPLATE template0"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&admin).await.unwrap();
        }
        call("pg_restore", &["--exit-on-error", "--dbname", url(shop), &self.file()]).await;
    }

    fn file(&self) -> String {
        self.0.path().join("shop.dump").display().to_string()
    }
}

/// Runs a program of PostgreSQL to its end.
async fn call(program: &str, arguments: &[&str]) {
    let mut command = tokio::process::Command::new(postgres_program(program).unwrap());
    let output = command.args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

fn url(shop: &Shop) -> &str {
    &shop.connections.database_url
}

/// What a command says, with what it ended with.
fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (output.status.code(), text.concat())
}

async fn assert_says(shop: &Shop, arguments: &[&str], code: i32, parts: &[&str]) {
    let (status, text) = said(&shop.run(arguments).await);
    assert_eq!(status, Some(code), "{arguments:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{arguments:?} does not say {part:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_from_a_dump_taken_under_load_is_refused_then_adopted_and_all_adds_up() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let load = Load::start(&shop, 6).await;
    load.until_accepted(80).await;
    let dump = Dump::of(&shop).await;
    load.until_accepted(80).await;
    let accepted = load.stop().await;
    shop.until_quiet().await;
    running.stop().await;
    dump.restore(&shop).await;
    let known = shop.count("SELECT count(*) FROM orders").await;
    assert!(known >= 80 && known < i64::try_from(accepted.len()).unwrap(), "{known} of {}", accepted.len());

    let relay = shop.start(&["relay"]);
    until("the relay says what to do", async || relay.output().contains("ordermill relay adopt")).await;
    assert_says(
        &shop,
        &["relay", "adopt", "--recreate-topics"],
        1,
        &["is at work: stop all relays and workers"],
    )
    .await;
    stop(&relay);
    let prefix = &shop.connections.kafka.prefix;
    assert_says(&shop, &["relay", "adopt"], 1, &["an event that the log does not have", "--recreate-topics"])
        .await;
    assert_says(
        &shop,
        &["relay", "adopt", "--recreate-topics", "--dry-run"],
        0,
        &["era 1 ends and era 2 begins"],
    )
    .await;
    let deleted = format!("{prefix}orders: ");
    assert_says(
        &shop,
        &["relay", "adopt", "--recreate-topics"],
        0,
        &["deleted and made anew", &deleted, "era 2 has begun"],
    )
    .await;
    assert_says(&shop, &["relay", "adopt", "--recreate-topics"], 1, &["nothing is wrong"]).await;

    let running = shop.open().await;
    shop.until_quiet().await;
    // The gateway was not restored, and has been paid for orders that nobody knows any more.
    assert_says(&shop, &["payments", "reconcile"], 1, &["to be given back"]).await;
    assert!(!shop.verify().await.ok, "nothing was given back yet");
    assert_says(&shop, &["payments", "reconcile", "--apply"], 0, &["given back: "]).await;
    assert_says(&shop, &["payments", "reconcile", "--apply"], 0, &["given back: 0 charges, 0 in all"]).await;
    shop.assert_verified().await;

    let (user, lamp) = (shop.user(1_000).await, shop.product(100, 5).await);
    let order = shop.order(&user, &[(lamp, 2)]).await;
    assert_eq!(order["status"], "CONFIRMED", "{order}");
    shop.until_quiet().await;
    running.stop().await;
    shop.assert_verified().await;
}
