//! `ordermill verify` passes what is right and names every row that is not.

mod columns;
mod forgeries;
mod rules;

use ordermill_pipeline::audit::Check;
use ordermill_pipeline::database;
use ordermill_store::verification;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::coupons;
use crate::documents::Forgery;
use crate::support::{DEADLINE, Shop, answer, closed_pipe, id, until};

/// What some orders were about: one that was confirmed, one that was refused.
struct Subjects {
    user: Uuid,
    lamp: Uuid,
    confirmed: Uuid,
    rejected: Uuid,
    coupon: Uuid,
    claim: Uuid,
    user_coupon: Uuid,
    /// The order that the coupon is used for.
    discounted: Uuid,
}

impl Subjects {
    /// Has orders confirmed and refused, and closes the shop again, so that nothing moves any more.
    async fn of(shop: &Shop) -> Subjects {
        let running = shop.open().await;
        let (user, other) = (shop.user(10_000).await, shop.user(10_000).await);
        let (lamp, chair) = (shop.product(1_000, 9).await, shop.product(300, 9).await);
        let confirmed = shop.order(&user, &[(lamp, 2), (chair, 1)]).await;
        assert_eq!(confirmed["status"], "CONFIRMED", "{confirmed}");
        assert_eq!(shop.order(&other, &[(chair, 1)]).await["status"], "CONFIRMED");
        assert_eq!(shop.order(&user, &[(lamp, 8)]).await["failure"]["code"], "OUT_OF_STOCK");
        let rejected = shop.order(&user, &[(lamp, 7), (chair, 7)]).await;
        assert_eq!(rejected["failure"]["code"], "INSUFFICIENT_BALANCE", "{rejected}");
        let own = coupons::own_coupon(shop, &other, json!({})).await;
        let discounted = coupons::order_with(shop, &other, &[(chair, 1)], own).await;
        assert_eq!(discounted["status"], "CONFIRMED", "{discounted}");
        let coupons = coupons::owned(shop, &other, "USED").await;
        let claim = sqlx::query_scalar("SELECT claim_id FROM user_coupons WHERE key = $1");
        let claim: Uuid = claim.bind(own).fetch_one(&shop.pool).await.unwrap();
        shop.until_quiet().await;
        until("both are welcomed", async || shop.count("SELECT count(*) FROM user_coupons").await == 3).await;
        let change = json!({"description": "Bright", "withdrawn": true});
        let change = shop.request(Method::PATCH, &format!("/products/{lamp}")).json(&change);
        assert_eq!(answer(change).await.0, 200);
        let counted = json!({"delta": -1, "reason": "counted"});
        assert_eq!(shop.post(&format!("/products/{chair}/stock"), &counted).await.0, 200);
        shop.until_quiet().await;
        until("all sales are counted", async || {
            shop.count("SELECT coalesce(sum(orders), 0)::bigint FROM sales WHERE level = 'ALL'").await == 3
        })
        .await;
        running.stop().await;
        let (confirmed, rejected) = (id(&confirmed["order_id"]), id(&rejected["order_id"]));
        Subjects {
            user: user.id,
            lamp,
            confirmed,
            rejected,
            coupon: id(&coupons[0]["coupon_id"]),
            claim,
            user_coupon: own,
            discounted: id(&discounted["order_id"]),
        }
    }
}

/// The violations, each behind the name of its check.
fn violations(checks: &[Check]) -> Vec<String> {
    let mut violations = Vec::new();
    for check in checks {
        assert_eq!(check.ok, check.violations.is_empty());
        violations.extend(check.violations.iter().map(|text| format!("{}: {text}", check.name)));
    }
    violations
}

#[tokio::test(flavor = "multi_thread")]
async fn every_number_that_is_changed_by_hand_is_found_and_its_row_named() {
    let shop = Shop::new().await;
    let subjects = Subjects::of(&shop).await;
    shop.assert_verified().await;
    for forgery in subjects.forgeries() {
        assert_named(&shop, &forgery.statement(), &[&forgery.key.to_string()]).await;
    }
    // A payment that asks for what no order waits for is told beside what its document should be.
    let asking =
        Forgery::of("payments", subjects.confirmed).set("asked", json!({"sequence": 1, "at": 0})).statement();
    assert_named(&shop, &asking, &["it is CONFIRMED, but its payment asks the gateway since event 1"]).await;
    for forgery in subjects.forged_shipments() {
        assert_named(&shop, &forgery, &[&subjects.confirmed.to_string()]).await;
    }
    for (forgery, row, figure) in subjects.forged_sales() {
        assert_named(&shop, &forgery, &[&row, &format!(": {figure} is ")]).await;
    }
    shop.assert_verified().await;
}

/// Forges a row, expects that a violation names it, and takes the forgery back: nobody but the checks sees it.
async fn assert_named(shop: &Shop, forgery: &str, named: &[&str]) {
    let mut transaction = database::begin(&shop.pool).await.unwrap();
    let forged = sqlx::query(AssertSqlSafe(forgery)).execute(&mut *transaction).await;
    let forged = forged.unwrap_or_else(|error| panic!("{forgery}: {error}"));
    assert_eq!(forged.rows_affected(), 1, "{forgery}");
    let now = jiff::Timestamp::now();
    let checks = verification::check_all(&mut transaction, ordermill::verify::groups(), now).await.unwrap();
    transaction.rollback().await.unwrap();
    let violations = violations(&checks);
    let is_named = violations.iter().any(|violation| named.iter().all(|part| violation.contains(part)));
    assert!(is_named, "{forgery}: {violations:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_its_report_and_its_exit_code_says_whether_all_is_well() {
    let shop = Shop::new().await;
    let subjects = Subjects::of(&shop).await;
    let output = shop.run(&["verify", "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(0), &json!(true)), "{report:#}");
    assert!(report["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    let names: Vec<&str> =
        report["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    for name in ["balances", "holds", "stock", "orders", "payments", "coupons", "sales", "rebuild", "gateway"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
    for check in report["checks"].as_array().unwrap() {
        assert_eq!((&check["ok"], &check["violations"]), (&json!(true), &json!([])), "{check}");
        // Nothing was put aside here.
        let finds_something = check["name"] != "dead letters";
        assert_eq!(
            check["checked"].as_u64().unwrap() > 0,
            finds_something,
            "{check} has looked at something"
        );
    }
    assert_untold(&shop, subjects.confirmed).await;
    let balance = || Forgery::of("balances", subjects.user);
    balance().add("available", 1).make(&shop.pool).await;
    assert_untold(&shop, subjects.confirmed).await;
    let output = shop.run(&["verify", "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(1), &json!(false)));
    let output = shop.run(&["verify"]).await;
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains(&format!("user {}: available 7701", subjects.user)), "{table}");
    balance().add("available", -1).make(&shop.pool).await;
    assert_eq!(shop.run(&["verify"]).await.status.code(), Some(0));
}

/// Where nobody reads what was found, the exit code says neither that all is well nor that it is not, and nobody goes on to follow an order.
async fn assert_untold(shop: &Shop, order_id: Uuid) {
    let order_id = order_id.to_string();
    for arguments in [&["verify"][..], &["verify", "--json"], &["order", &order_id, "--follow"]] {
        let output = shop.run_into(arguments, closed_pipe()).await;
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(141), &b""[..]), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_can_not_look_says_so_in_one_line_and_is_no_violation() {
    let shop = Shop::new().await;
    shop.gateway.stop();
    let output = shop.run(&["verify", "--json"]).await;
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(line.starts_with("ordermill: nothing verified: gateway ") && line.lines().count() == 1, "{line}");
    assert!(output.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_at_the_gateway_that_is_not_ours_and_one_that_was_refunded_are_found() {
    let shop = Shop::new().await;
    let subjects = Subjects::of(&shop).await;
    let charge = "SELECT (state #>> '{charges,0,charge_id}')::uuid FROM payments WHERE key = $1";
    let charge: Uuid =
        sqlx::query_scalar(charge).bind(subjects.confirmed).fetch_one(&shop.pool).await.unwrap();
    let stray = Uuid::new_v4();
    for (path, body) in [
        (
            "charges".to_owned(),
            json!({"charge_id": stray, "amount": 5, "method": "CARD", "reference": "nothing"}),
        ),
        (format!("charges/{charge}/refunds"), json!({"refund_id": Uuid::new_v4(), "amount": 1})),
    ] {
        let answer =
            shop.client.post(format!("{}/{path}", shop.gateway.url())).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    }
    let report = shop.verify().await;
    let violations = violations(&report.checks);
    assert_eq!((report.ok, violations.len()), (false, 2), "{violations:#?}");
    for charge in [stray, charge] {
        assert!(violations.iter().any(|text| text.contains(&charge.to_string())), "{violations:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_record_stops_nobody_and_is_counted_but_is_no_violation() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let kafka = &shop.connections.kafka;
    let producer: BaseProducer = kafka.client().create().unwrap();
    let topic = kafka.full_name("orders");
    for partition in 0..4 {
        let record = BaseRecord::to(&topic).partition(partition).key("stranger").payload("not ours");
        producer.send(record).unwrap();
    }
    producer.flush(DEADLINE).unwrap();
    until("the foreign records are dead letters", async || {
        shop.count("SELECT count(*) FROM event_log WHERE topic LIKE 'orders.%.dlt'").await >= 4
    })
    .await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(1_000, 50).await);
    for _ in 0..8 {
        assert_eq!(shop.order(&user, &[(lamp, 1)]).await["status"], "CONFIRMED");
    }
    shop.until_quiet().await;
    running.stop().await;
    let report = shop.verify().await;
    assert!(report.ok, "{:#?}", violations(&report.checks));
    let notes: Vec<&str> = report.checks.iter().filter_map(|check| check.note.as_deref()).collect();
    // Each of the four groups that read the topic has put them aside.
    assert_eq!(notes, ["16 parked, 0 waiting behind them", "4 foreign records"]);
}
