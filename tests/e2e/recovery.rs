//! Kafka or the database is lost: what is there afterwards adds up, and orders go on.

use std::process::Output;
use std::sync::Arc;

use ordermill_domain::payments::charge_id;
use ordermill_pipeline::database;
use ordermill_stack::{Private, postgres_program};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;
use uuid::Uuid;

use crate::faults::Load;
use crate::support::{Shop, id, stop, until};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_moved_to_another_cluster_is_refused_then_adopted_and_orders_go_on() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(1_000).await, shop.product(100, 5).await);
    assert_eq!(shop.order(&user, &[(lamp, 1)]).await["status"], "CONFIRMED");
    shop.until_quiet().await;
    running.stop().await;
    sqlx::query("UPDATE relay_cursor SET system_identifier = 1").execute(&shop.pool).await.unwrap();
    let relay = shop.start(&["relay"]);
    until("the relay refuses", async || relay.output().contains("a copy of another one")).await;
    stop(&relay);
    let adopted = ["the log began in another database cluster", "era 2 has begun"];
    assert_says(&shop, &["relay", "adopt", "--recreate-topics"], 0, &adopted).await;
    let running = shop.open().await;
    assert_eq!(shop.order(&user, &[(lamp, 1)]).await["status"], "CONFIRMED");
    shop.until_quiet().await;
    running.stop().await;
    shop.assert_verified().await;
}

/// A charge at the gateway that no payment asked for.
async fn charge(shop: &Shop, charge_id: Uuid, order: &Value) {
    let body =
        json!({"charge_id": charge_id, "amount": 70, "method": "CARD", "reference": order["order_id"]});
    let url = format!("{}/charges", shop.gateway.url());
    let answer = shop.client.post(url).json(&body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_lost_charges_of_ours_that_nobody_will_ask_for_again_are_given_back() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(1_000).await, shop.product(100, 5).await);
    let confirmed = shop.order(&user, &[(lamp, 1)]).await;
    let rejected = shop.order(&user, &[(lamp, 9)]).await;
    assert_eq!((&confirmed["status"], &rejected["status"]), (&json!("CONFIRMED"), &json!("REJECTED")));
    shop.until_quiet().await;
    running.stop().await;
    assert_says(&shop, &["payments", "reconcile"], 0, &["given back: 0 charges"]).await;
    // A modification may ask for the first again; the second is lost; the third is somebody else's.
    let [again, lost, strange] =
        [charge_id(id(&confirmed["order_id"]), 2), charge_id(id(&rejected["order_id"]), 1), Uuid::new_v4()];
    for (charge_id, order) in [(again, &confirmed), (lost, &rejected), (strange, &rejected)] {
        charge(&shop, charge_id, order).await;
    }
    let verdict = |charge_id: Uuid, verdict: &str| format!("charge {charge_id}: 70 {verdict}");
    let verdicts = [
        verdict(again, "left alone: the order may still be charged"),
        verdict(lost, "given back"),
        verdict(strange, "left alone: not a charge of this shop"),
    ];
    let parts: Vec<&str> = verdicts.iter().map(String::as_str).collect();
    assert_says(&shop, &["payments", "reconcile", "--apply"], 1, &parts).await;
    let named = shop.verify().await;
    let named: Vec<&String> = named.checks.iter().flat_map(|check| &check.violations).collect();
    assert_eq!(named.len(), 2, "{named:#?}");
    assert!(!named.iter().any(|text| text.contains(&lost.to_string())), "{named:#?}");
}
