//! `ordermill verify` passes what is right and names every row that is not.

mod columns;

use ordermill_pipeline::audit::Check;
use ordermill_pipeline::database;
use ordermill_store::verification;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::coupons;
use crate::support::{DEADLINE, Shop, answer, id, until};

/// What some orders were about: one that was confirmed, one that was refused.
struct Subjects {
    user: Uuid,
    lamp: Uuid,
    confirmed: Uuid,
    rejected: Uuid,
    /// The entry of the money that the confirmed order took.
    entry: Uuid,
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
        let entries = shop.get(&format!("/users/{}/balance/entries", user.id)).await;
        assert_eq!(entries["items"][0]["order_id"], confirmed["order_id"]);
        let own = coupons::own_coupon(shop, &other, json!({})).await;
        let discounted = coupons::order_with(shop, &other, &[(chair, 1)], own).await;
        assert_eq!(discounted["status"], "CONFIRMED", "{discounted}");
        let coupons = coupons::owned(shop, &other, "USED").await;
        let claim = sqlx::query_scalar("SELECT claim_id FROM user_coupons WHERE user_coupon_id = $1");
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
            entry: id(&entries["items"][0]["entry_id"]),
            coupon: id(&coupons[0]["coupon_id"]),
            claim,
            user_coupon: own,
            discounted: id(&discounted["order_id"]),
        }
    }

    /// Table, row and what is done to it: one number or word, and what the table's own rules ask for with it.
    fn forgeries(&self) -> Vec<(&'static str, Uuid, &'static str)> {
        let Subjects { user, lamp, confirmed, rejected, entry, coupon, claim, user_coupon, discounted } =
            *self;
        vec![
            ("balances", user, "available = available + 1"),
            ("balances", user, "held = held + 1"),
            ("balances", user, "available = available - 1, held = held + 1"),
            ("balance_entries", entry, "amount = amount + 1"),
            ("balance_entries", entry, "balance_after = balance_after + 1"),
            ("balance_entries", entry, "kind = 'REFUNDED'"),
            ("balance_entries", entry, "kind = 'CHARGED'"),
            ("products", lamp, "price = price + 1"),
            ("products", lamp, "withdrawn = NOT withdrawn"),
            ("products", lamp, "sequence = sequence + 1"),
            ("stock", lamp, "on_hand = on_hand + 1, received = received + 1"),
            ("stock", lamp, "on_hand = on_hand - 1, reserved = reserved + 1"),
            ("stock", lamp, "on_hand = on_hand + 1, deducted = deducted - 1"),
            ("stock_reservations", confirmed, "state = 'RELEASED'"),
            ("stock_reservations", rejected, "state = 'RESERVED'"),
            ("stock_reservations", confirmed, "lines = jsonb_set(lines, '{0,quantity}', '7')"),
            ("stock_reservations", confirmed, "state = 'SHORT'"),
            ("stock_reservations", confirmed, STOCK_CHANGE),
            ("stock_reservations", confirmed, "round = round + 1"),
            ("orders", confirmed, "total = total + 1, paid = paid + 1"),
            ("orders", confirmed, "subtotal = subtotal + 1"),
            ("orders", confirmed, "lines = jsonb_set(lines, '{0,unit_price}', '7')"),
            ("orders", confirmed, "version = version + 1"),
            ("orders", confirmed, "status = 'PENDING', deadline_at = now() - interval '1 day'"),
            ("orders", confirmed, "status = 'CANCELLING', deadline_at = now() - interval '1 day'"),
            ("orders", confirmed, CHANGE),
            ("orders", confirmed, CANCELLED),
            ("orders", confirmed, "status = 'PARTIALLY_SHIPPED'"),
            ("orders", confirmed, "status = 'SHIPPED'"),
            ("orders", confirmed, "status = 'DELIVERED'"),
            ("orders", confirmed, "shipped = jsonb_build_array(lines -> 0)"),
            ("orders", confirmed, "in_transit = in_transit + 1"),
            ("orders", confirmed, "paid = paid + 1, refunded = refunded + 1"),
            ("orders", rejected, "paid = paid + 1, refunded = refunded + 1"),
            ("orders", confirmed, "discounts = '[{\"kind\": \"COUPON\", \"amount\": 0}]'"),
            ("orders", confirmed, "round = round + 1"),
            ("orders", confirmed, "last_modification = '{\"status\": \"APPLIED\"}'"),
            ("orders", confirmed, "confirmed_at = confirmed_at + interval '1 second'"),
            ("orders", confirmed, "deadline_at = deadline_at + interval '1 second'"),
            ("orders", rejected, "failure_code = 'OUT_OF_STOCK'"),
            ("payments", confirmed, "amount = amount + 1"),
            ("payments", confirmed, "state = 'FAILED'"),
            ("payments", confirmed, "charge_number = charge_number + 1"),
            ("payments", confirmed, "state = 'REQUESTED'"),
            ("payments", confirmed, "state = 'VOIDING'"),
            ("payments", confirmed, "method = 'CARD'"),
            ("payments", confirmed, "user_id = order_id"),
            ("payments", confirmed, "charge_id = order_id"),
            ("payments", confirmed, "refunded = refunded + 1"),
            ("payments", confirmed, EARLIER),
            ("payments", confirmed, "refund = '{\"round\": 2, \"parts\": []}'"),
            ("payments", confirmed, "refund_round = refund_round + 1"),
            ("coupons", coupon, "issued = issued + 1"),
            ("coupons", coupon, "quantity = quantity + 1"),
            ("coupons", coupon, "valid_days = valid_days + 1"),
            ("coupon_claims", claim, "position = position + 1"),
            ("coupon_claims", claim, "requested_at = requested_at + interval '1 second'"),
            ("user_coupons", user_coupon, "state = 'ISSUED', order_id = NULL, used_at = NULL"),
            ("user_coupons", user_coupon, "min_subtotal = min_subtotal + 1"),
            ("user_coupons", user_coupon, "expires_at = expires_at + interval '1 day'"),
            ("coupon_uses", discounted, "state = 'RETURNED'"),
            ("coupon_uses", discounted, "sequence = sequence + 1"),
            ("orders", discounted, "coupon_step = 'NOT_USED'"),
            ("orders", discounted, "coupon = jsonb_set(coupon, '{min_subtotal}', '7')"),
        ]
    }

    /// Sums of sales that are not what was sold, each with how the row is named and a figure of it that is wrong.
    fn forged_sales(&self) -> Vec<(String, String, &'static str)> {
        let mut forgeries = Vec::new();
        for (row, name) in rows_of_sales(self.lamp) {
            for figure in ["quantity", "revenue", "orders"] {
                let forgery = format!("UPDATE sales SET {figure} = {figure} + 1 WHERE {row}");
                forgeries.push((forgery, name.clone(), figure));
            }
            let earlier = "bucket = bucket - interval '1 hour'";
            forgeries.push((format!("UPDATE sales SET {earlier} WHERE {row}"), name.clone(), "quantity"));
            forgeries.push((format!("DELETE FROM sales WHERE {row}"), name, "orders"));
        }
        let invented = "INSERT INTO sales SELECT level, bucket, 'GHOSTS', product_id, 1, 1, 1 FROM sales
            WHERE level = 'CATEGORY' LIMIT 1";
        forgeries.push((invented.to_owned(), "sales CATEGORY GHOSTS at ".to_owned(), "revenue"));
        // Nobody has counted what was put aside.
        let put_aside = format!(
            "INSERT INTO dead_letter (dead_letter_id, group_name, topic, partition, record_offset, headers, event_id,
                 code, error, attempts, first_failed_at, last_failed_at)
             SELECT gen_random_uuid(), 'sales', topic, partition, 0, '[]', event_id, 'RULE', '', 1, at, at
             FROM event_log WHERE type = 'order.confirmed' AND aggregate_id = '{}'",
            self.confirmed
        );
        forgeries.push((put_aside, format!("sales PRODUCT LIGHT {} at ", self.lamp), "orders"));
        forgeries
    }

    /// Shipments that never left, and what they are said to have done since.
    fn forged_shipments(&self) -> [String; 2] {
        ["NULL", "now()"].map(|delivered_at| {
            format!(
                "INSERT INTO shipments (shipment_id, order_id, lines, created_at, delivered_at)
                 SELECT gen_random_uuid(), order_id, jsonb_build_array(lines -> 0), now(), {delivered_at}
                 FROM orders WHERE order_id = '{}'",
                self.confirmed
            )
        })
    }
}

/// The row of all sales, that of their category, and that of the lamp, each with how it is named; of one bucket where
/// there are more.
fn rows_of_sales(lamp: Uuid) -> [(String, String); 3] {
    let first = |level: &str| {
        format!("level = '{level}' AND bucket = (SELECT min(bucket) FROM sales WHERE level = '{level}')")
    };
    [
        (first("ALL"), "sales ALL at ".to_owned()),
        (first("CATEGORY"), "sales CATEGORY LIGHT at ".to_owned()),
        (format!("product_id = '{lamp}'"), format!("sales PRODUCT LIGHT {lamp} at ")),
    ]
}

/// A modification under way that nobody asked for.
const CHANGE: &str = "status = 'MODIFYING', change = jsonb_build_object('lines', lines, 'subtotal', subtotal,
    'discounts', discounts, 'total', total, 'stock', 'ASKED', 'payment', 'NOT_DUE', 'failure', NULL)";
/// The stock that it would take.
const STOCK_CHANGE: &str =
    "change = jsonb_build_object('round', round + 1, 'taken', lines, 'returning', '[]'::jsonb,
    'lines', lines)";
/// A cancellation that gave nothing back.
const CANCELLED: &str =
    "status = 'CANCELLED', stock_step = 'RELEASED', payment_step = 'REFUNDED', refunded = paid";
/// A charge before the first.
const EARLIER: &str =
    "earlier = jsonb_build_array(jsonb_build_object('number', 0, 'charge_id', order_id, 'amount', 1,
    'refunded', 0, 'state', 'COMPLETED'))";

fn key_of(table: &str) -> &'static str {
    match table {
        "balances" => "user_id",
        "balance_entries" => "entry_id",
        "products" | "stock" => "product_id",
        "coupons" => "coupon_id",
        "coupon_claims" => "claim_id",
        "user_coupons" => "user_coupon_id",
        _ => "order_id",
    }
}

/// The statement that forges a row.
fn forgery(table: &str, row: Uuid, assignments: &str) -> String {
    format!("UPDATE {table} SET {assignments} WHERE {} = '{row}'", key_of(table))
}

async fn execute(shop: &Shop, statement: String) {
    let done = sqlx::query(AssertSqlSafe(statement)).execute(&shop.pool).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
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
    for (table, row, assignments) in subjects.forgeries() {
        assert_named(&shop, &forgery(table, row, assignments), &[&row.to_string()]).await;
    }
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
    execute(&shop, forgery("balances", subjects.user, "available = available + 1")).await;
    let output = shop.run(&["verify", "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(1), &json!(false)));
    let output = shop.run(&["verify"]).await;
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains(&format!("user {}: available 7701", subjects.user)), "{table}");
    execute(&shop, forgery("balances", subjects.user, "available = available - 1")).await;
    assert_eq!(shop.run(&["verify"]).await.status.code(), Some(0));
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
    let charge: Uuid = sqlx::query_scalar("SELECT charge_id FROM payments WHERE order_id = $1")
        .bind(subjects.confirmed)
        .fetch_one(&shop.pool)
        .await
        .unwrap();
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
