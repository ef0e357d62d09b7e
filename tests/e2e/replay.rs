//! `ordermill replay` makes the tables again from the log, and changes nothing but what it is asked to.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ordermill_store::replay::{NOT_IN_THE_LOG, tables};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::coupons;
use crate::documents::Forgery;
use crate::support::{ADMIN_KEY, DEADLINE, Shop, User, answer, id, lines_of, until};

/// What has happened in a shop, so that every state table has something to tell.
pub(crate) struct Traded {
    user: User,
    lamp: Uuid,
    coupon: Uuid,
    user_coupon: Uuid,
    shipment: Uuid,
    shipped: Uuid,
    cancelled: Uuid,
    discounted: Uuid,
    /// When the order that was cancelled later was still confirmed, with five lamps on the shelf.
    meanwhile: Timestamp,
    /// Before anything.
    before: Timestamp,
}

impl Traded {
    /// The shop is opened, everything happens, and it is closed.
    pub(crate) async fn in_shop(shop: &Shop) -> Traded {
        let running = shop.open().await;
        let traded = Traded::in_open_shop(shop).await;
        running.stop().await;
        traded
    }

    /// Orders are confirmed, refused, modified, shipped, cancelled.
    pub(crate) async fn in_open_shop(shop: &Shop) -> Traded {
        let before = Timestamp::now();
        let user = shop.user(100_000).await;
        let (lamp, chair) = (shop.product(1_000, 9).await, shop.product_of("home", 300, 50).await);
        let user_coupon = coupons::own_coupon(shop, &user, json!({"min_subtotal": 500})).await;
        let discounted = coupons::order_with(shop, &user, &[(chair, 2)], user_coupon).await;
        assert_eq!(discounted["status"], "CONFIRMED", "{discounted}");
        let cancelled = shop.order(&user, &[(lamp, 4)]).await;
        assert_eq!(cancelled["status"], "CONFIRMED", "{cancelled}");
        shop.until_quiet().await;
        let meanwhile = Timestamp::now();
        let (_, modifying) = shop.modify(&user, &discounted, &[(chair, 3), (lamp, 1)]).await;
        shop.settled(id(&modifying["order_id"])).await;
        let cancelled = id(&cancelled["order_id"]);
        let (status, _) = shop.ask(&user.key, cancelled, "cancellation", &json!({})).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        assert_eq!(shop.settled(cancelled).await["status"], "CANCELLED");
        let refused = shop.order(&user, &[(lamp, 40)]).await;
        assert_eq!(refused["failure"]["code"], "OUT_OF_STOCK", "{refused}");
        let shipped = id(&shop.order(&user, &[(lamp, 2), (chair, 1)]).await["order_id"]);
        let parcel = json!({"lines": lines_of(&[(lamp, 2)]), "tracking_number": "6112 4711"});
        let (status, parcel) = shop.ask(ADMIN_KEY, shipped, "shipments", &parcel).await;
        assert_eq!(status, StatusCode::CREATED, "{parcel}");
        let shipment = id(&parcel["shipment_id"]);
        let (status, _) = shop.post(&format!("/shipments/{shipment}/delivery"), &json!({})).await;
        assert_eq!(status, StatusCode::OK);
        let by_card = json!({"user_id": user.id, "lines": lines_of(&[(chair, 1)]), "payment_method": "CARD"});
        let (_, by_card) = shop.post("/orders", &by_card).await;
        assert_eq!(shop.settled(id(&by_card["order_id"])).await["status"], "CONFIRMED");
        let change = json!({"price": 310, "description": "Bright"});
        let change = shop.request(reqwest::Method::PATCH, &format!("/products/{chair}")).json(&change);
        assert_eq!(answer(change).await.0, StatusCode::OK);
        let counted = json!({"delta": -1, "reason": "counted"});
        assert_eq!(shop.post(&format!("/products/{chair}/stock"), &counted).await.0, StatusCode::OK);
        shop.until_quiet().await;
        shop.until_applied().await;
        let coupon = sqlx::query_scalar("SELECT coupon_id FROM user_coupons WHERE key = $1");
        let coupon = coupon.bind(user_coupon).fetch_one(&shop.pool).await.unwrap();
        let discounted = id(&discounted["order_id"]);
        Traded {
            user,
            lamp,
            coupon,
            user_coupon,
            shipment,
            shipped,
            cancelled,
            discounted,
            meanwhile,
            before,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// Exit code 2 and one line on standard error that has all of these parts.
fn assert_refused(output: &Output, parts: &[&str]) {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(parts.iter().all(|part| line.contains(part)), "{line}");
}

/// Columns that the log does not know, as an array of SQL.
fn unknown_columns() -> String {
    format!("'{{{}}}'::text[]", NOT_IN_THE_LOG.map(|(column, _)| column).join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_alone_makes_every_state_table_again() {
    let shop = Shop::new().await;
    Traded::in_shop(&shop).await;
    for jobs in ["1", "3"] {
        let output = shop.run(&["replay", "--json", "--jobs", jobs]).await;
        let report = report(&output);
        assert_eq!((output.status.code(), &report["ok"]), (Some(0), &json!(true)), "{report:#}");
        assert_eq!(report["events"], shop.count("SELECT count(*) FROM event_log").await);
        assert_eq!(report["tables"].as_array().unwrap().len(), tables().count());
        for table in tables() {
            // Sums of sales that have come down to 0 stay in the live table.
            let counted =
                if table.name == "sales" { "(quantity, revenue, orders) <> (0, 0, 0)" } else { "true" };
            let of = |schema| {
                let (name, unknown) = (table.name, unknown_columns());
                format!("SELECT to_jsonb(t) - {unknown} FROM {schema}.{name} AS t WHERE {counted}")
            };
            let (live, shadow) = (of("public"), of("replay"));
            let rows = shop.count(&format!("SELECT count(*) FROM ({live}) AS rows")).await;
            let differing = format!(
                "SELECT count(*) FROM (({live} EXCEPT {shadow}) UNION ALL ({shadow} EXCEPT {live})) AS rows"
            );
            assert_eq!((rows > 0, shop.count(&differing).await), (true, 0), "{}", table.name);
        }
    }
}

/// Everything that a side effect could leave: log, cursors, tables, the gateway's ledger, the ends of the topics.
async fn traces(shop: &Shop) -> BTreeMap<String, String> {
    let mut traces = BTreeMap::new();
    let others =
        ["log_segment", "log_word", "gateway_lease", "relay_cursor", "consumer_offset", "dead_letter"];
    for table in tables().map(|table| table.name).chain(others) {
        let digest =
            format!("SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM public.{table} AS t");
        let digest: Option<String> =
            sqlx::query_scalar(AssertSqlSafe(digest)).fetch_one(&shop.pool).await.unwrap();
        traces.insert(table.to_owned(), digest.unwrap_or_default());
    }
    let ledger = shop.client.get(format!("{}/charges?limit=10000", shop.gateway.url())).send().await.unwrap();
    traces.insert("the gateway's ledger".to_owned(), ledger.text().await.unwrap());
    let kafka = shop.connections.kafka.clone();
    let ends = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = kafka.client().create().unwrap();
        let metadata = consumer.fetch_metadata(None, DEADLINE).unwrap();
        let ours = metadata.topics().iter().filter(|topic| topic.name().starts_with(&kafka.prefix));
        let partitions = ours.flat_map(|topic| topic.partitions().iter().map(|p| (topic.name(), p.id())));
        let end = |(topic, partition)| {
            let (_, end) = consumer.fetch_watermarks(topic, partition, DEADLINE).unwrap();
            (format!("{topic}[{partition}]"), end.to_string())
        };
        partitions.map(end).collect::<Vec<_>>()
    });
    traces.extend(ends.await.unwrap());
    traces
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_appends_nothing_publishes_nothing_and_asks_no_gateway() {
    let shop = Shop::new().await;
    let traded = Traded::in_shop(&shop).await;
    let before = traces(&shop).await;
    assert!(before.keys().any(|trace| trace.ends_with("orders[0]")), "{:?}", before.keys());
    let (at, order) = (traded.meanwhile.to_string(), format!("order:{}", traded.cancelled));
    for arguments in [
        &["replay"][..],
        &["replay", "--check"],
        &["replay", "--at", &at],
        &["replay", "--at", &at, "--aggregate", &order],
        &["replay", "--swap", "sales"],
    ] {
        let output = shop.run(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(traces(&shop).await, before, "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_a_shop_at_work_finds_nothing_and_names_a_row_that_was_changed_by_hand() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let orders = Orders::begin(&shop).await;
    for _ in 0..4 {
        let output = shop.run(&["replay", "--check", "--json"]).await;
        let report = report(&output);
        assert_eq!((output.status.code(), &report["difference_count"]), (Some(0), &json!(0)), "{report:#}");
    }
    orders.end().await;
    shop.until_quiet().await;
    running.stop().await;
    let order: (Uuid, i64) = sqlx::query_as("SELECT key, paid FROM orders WHERE paid > 0 LIMIT 1")
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    let (path, payment) = ("state.charges[0].amount", || Forgery::of("payments", order.0));
    payment().add("charges,0,amount", 7).make(&shop.pool).await;
    let output = shop.run(&["replay", "--check"]).await;
    assert_eq!(output.status.code(), Some(1));
    let named = format!("payments {}: {path} is {}, but the log makes {}", order.0, order.1 + 7, order.1);
    assert!(text(&output.stdout).contains(&named), "{}", text(&output.stdout));
    let report = report(&shop.run(&["replay", "--check", "--json"]).await);
    let column = json!({"column": path, "live": order.1 + 7, "log": order.1});
    let expected = json!([{"table": "payments", "row": order.0, "columns": [column]}]);
    assert_eq!((&report["ok"], &report["differences"]), (&json!(false), &expected));
    payment().add("charges,0,amount", -7).make(&shop.pool).await;
    assert_eq!(shop.run(&["replay", "--check"]).await.status.code(), Some(0));
}

/// Orders that keep coming, some of them cancelled at once, until they are ended.
struct Orders {
    enough: Arc<AtomicBool>,
    customers: Vec<tokio::task::JoinHandle<usize>>,
}

impl Orders {
    async fn begin(shop: &Arc<Shop>) -> Orders {
        let enough = Arc::new(AtomicBool::new(false));
        let mut customers = Vec::new();
        for _ in 0..3 {
            let (user, lamp) = (shop.user(10_000_000).await, shop.product(100, 100_000).await);
            let (shop, enough) = (shop.clone(), enough.clone());
            customers.push(tokio::spawn(async move {
                let mut count = 0;
                while !enough.load(Ordering::Relaxed) {
                    let order = shop.order(&user, &[(lamp, 1)]).await;
                    assert_eq!(order["status"], "CONFIRMED", "{order}");
                    if count % 3 == 0 {
                        let order_id = id(&order["order_id"]);
                        shop.ask(&user.key, order_id, "cancellation", &json!({})).await;
                    }
                    count += 1;
                }
                count
            }));
        }
        until("the first orders are counted", async || {
            shop.count("SELECT count(*) FROM sales WHERE level = 'ALL' AND orders > 0").await > 0
        })
        .await;
        Orders { enough, customers }
    }

    async fn end(self) {
        self.enough.store(true, Ordering::Relaxed);
        for customer in self.customers {
            assert!(customer.await.unwrap() > 0);
        }
    }
}

/// The state of an aggregate as the command shows it.
async fn state_at(shop: &Shop, at: Timestamp, aggregate: &str) -> Value {
    let output = shop.run(&["replay", "--json", "--at", &at.to_string(), "--aggregate", aggregate]).await;
    assert_eq!(output.status.code(), Some(0), "{aggregate}: {}", text(&output.stderr));
    report(&output)["state"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_aggregate_can_be_seen_as_it_was() {
    let shop = Shop::new().await;
    let traded = Traded::in_shop(&shop).await;
    let claim: Uuid = sqlx::query_scalar("SELECT claim_id FROM user_coupons WHERE key = $1")
        .bind(traded.user_coupon)
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    // As of now, all of them are what the tables say.
    for (kind, table, row) in [
        ("order", "orders", traded.cancelled),
        ("reservation", "stock_reservations", traded.discounted),
        ("payment", "payments", traded.cancelled),
        ("shipment", "shipments", traded.shipment),
        ("balance", "balances", traded.user.id),
        ("user", "balances", traded.user.id),
        ("product", "products", traded.lamp),
        ("stock", "stock", traded.lamp),
        ("coupon", "coupons", traded.coupon),
        ("claim", "coupon_claims", claim),
        ("coupon-use", "coupon_uses", traded.discounted),
        ("user-coupon", "user_coupons", traded.user_coupon),
    ] {
        // The bulk is a member of the document, where there is one.
        let member = if table == "orders" { "purchase" } else { "lines" };
        let live = format!(
            "SELECT CASE WHEN bulk IS NULL THEN state ELSE state || jsonb_build_object('{member}', bulk) END
             FROM {table} WHERE key = '{row}'"
        );
        let live: Value = sqlx::query_scalar(AssertSqlSafe(live)).fetch_one(&shop.pool).await.unwrap();
        assert_eq!(state_at(&shop, Timestamp::now(), &format!("{kind}:{row}")).await, live, "{kind}");
    }
    // And as of then, what they were.
    let then = async |aggregate: String| state_at(&shop, traded.meanwhile, &aggregate).await;
    let order = then(format!("order:{}", traded.cancelled)).await;
    assert_eq!((&order["status"], &order["paid"]), (&json!("CONFIRMED"), &json!(4_000)));
    assert_eq!(order.get("refunded"), Some(&json!(0)));
    let shelf = then(format!("stock:{}", traded.lamp)).await;
    assert_eq!((&shelf["on_hand"], &shelf["deducted"]), (&json!(5), &json!(4)));
    let balance = then(format!("balance:{}", traded.user.id)).await;
    assert_eq!(balance["available"], 100_000 - 4_000 - 540);
    assert_eq!(then(format!("user-coupon:{}", traded.user_coupon)).await["state"], "USED");
    assert_eq!(then(format!("coupon:{}", traded.coupon)).await["issued"], 1);
    let output = shop.run(&["replay", "--at", &traded.meanwhile.to_string(), "--json"]).await;
    let summary = report(&output);
    let orders = &summary["tables"][0];
    assert_eq!((&orders["table"], &orders["by_state"]), (&json!("orders"), &json!({"CONFIRMED": 2})));
    assert_eq!(orders["sums"]["paid"], 4_540);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_there_then_and_times_that_are_none_are_refused_in_words() {
    let shop = Shop::new().await;
    let traded = Traded::in_shop(&shop).await;
    let (order, now) = (format!("order:{}", traded.shipped), Timestamp::now().to_string());
    let early = traded.before.to_string();
    let stranger = format!("order:{}", Uuid::new_v4());
    let future = (Timestamp::now() + SignedDuration::from_hours(1)).to_string();
    for (arguments, parts) in [
        (["--at", &early, "--aggregate", &order], vec!["did not exist at", "its first event is of"]),
        (["--at", &now, "--aggregate", &stranger], vec!["the log knows no", &stranger]),
        (["--at", &future, "--aggregate", &order], vec!["lies in the future"]),
        (["--at", "yesterday", "--aggregate", &order], vec!["not a time with its offset, like"]),
        (["--at", "2026-11-21T10:00:00", "--aggregate", &order], vec!["not a time with its offset, like"]),
        (["--at", &now, "--aggregate", "cup:7"], vec!["there is no kind \"cup\"", "user-coupon"]),
        (["--at", &now, "--aggregate", "order:7"], vec!["\"7\" is no id"]),
        (["--jobs", "0", "--at", &now], vec!["1..=64"]),
    ] {
        let arguments: Vec<&str> = std::iter::once("replay").chain(arguments).collect();
        assert_refused(&shop.run(&arguments).await, &parts);
    }
    assert_refused(&shop.run(&["replay", "--aggregate", &order]).await, &["--at <TIME>"]);
    let nowhere = ["replay", "--check", "--database-url", "postgres://nobody@127.0.0.1:1/nothing"];
    assert_refused(&shop.run(&nowhere).await, &["PostgreSQL does not answer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_is_swapped_under_load_and_no_sale_is_lost_or_counted_twice() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let orders = Orders::begin(&shop).await;
    for forgery in [
        "UPDATE sales SET quantity = quantity + 5, revenue = revenue - 3 WHERE level = 'ALL'",
        "DELETE FROM sales WHERE level = 'CATEGORY'",
        "INSERT INTO sales SELECT level, bucket, 'GHOSTS', product_id, 1, 1, 1 FROM sales
             WHERE level = 'PRODUCT' LIMIT 1",
    ] {
        sqlx::query(forgery).execute(&shop.pool).await.unwrap();
        let output = shop.run(&["replay", "--swap", "sales", "--json"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let report = report(&output);
        let changed = report["removed"].as_u64().unwrap() + report["written"].as_u64().unwrap();
        assert!(changed > 0, "{report}");
        let verified = shop.verify().await;
        let sales = verified.checks.iter().find(|check| check.name == "sales").unwrap();
        assert!(sales.ok, "{forgery}: {:#?}", sales.violations);
    }
    orders.end().await;
    shop.until_quiet().await;
    shop.until_applied().await;
    running.stop().await;
    shop.assert_verified().await;
    let report = report(&shop.run(&["replay", "--swap", "sales", "--json"]).await);
    assert_eq!((&report["removed"], &report["written"]), (&json!(0), &json!(0)), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_was_put_aside_is_swapped_in_once_it_has_been_applied() {
    let shop = Shop::new().await;
    Traded::in_shop(&shop).await;
    let put_aside =
        "INSERT INTO dead_letter (dead_letter_id, group_name, topic, partition, record_offset, headers, authentic, event_id,
             code, error, attempts, first_failed_at, last_failed_at)
         SELECT gen_random_uuid(), 'sales', topic, partition, 0, '[]', true, event_id, 'RULE', '', 1, at, at
         FROM event_log WHERE type = 'order.confirmed' ORDER BY position LIMIT 1";
    sqlx::query(put_aside).execute(&shop.pool).await.unwrap();
    let of_all = "SELECT sum(orders)::bigint FROM sales WHERE level = 'ALL'";
    let counted = shop.count(of_all).await;
    for (state, orders) in [("PARKED", counted - 1), ("REPLAYED", counted - 1), ("RESOLVED", counted)] {
        let set = "UPDATE dead_letter
             SET state = $1, (resolved_at, had_effect) = (SELECT now(), true WHERE $1 = 'RESOLVED')";
        sqlx::query(set).bind(state).execute(&shop.pool).await.unwrap();
        let output = shop.run(&["replay", "--swap", "sales"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(shop.count(of_all).await, orders, "{state}");
        // Of a letter that was put into its table by hand, its topic knows nothing; all else is right.
        let report = shop.verify().await;
        let wrong = report.checks.iter().filter(|check| !check.ok && check.name != "dead letters");
        assert_eq!(wrong.map(|check| &check.violations).next(), None, "{state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_that_workers_decide_by_is_not_swapped_and_replays_do_not_meet() {
    let shop = Shop::new().await;
    let output = shop.run(&["replay", "--swap", "orders"]).await;
    assert_refused(&output, &["orders is no projection: workers decide by its rows"]);
    let mut alone = shop.pool.acquire().await.unwrap();
    assert!(ordermill_store::replay::shadow::lock(&mut alone).await.unwrap());
    assert_refused(&shop.run(&["replay"]).await, &["another replay is at work"]);
    assert_refused(&shop.run(&["replay", "--swap", "sales"]).await, &["another replay is at work"]);
    alone.close().await.unwrap();
    until("the lock is gone", async || shop.run(&["replay"]).await.status.success()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_can_not_have_the_table_gives_up_and_says_so() {
    let shop = Shop::new().await;
    let mut holder = ordermill_pipeline::database::begin(&shop.pool).await.unwrap();
    sqlx::query("LOCK TABLE sales IN ROW EXCLUSIVE MODE").execute(&mut *holder).await.unwrap();
    let output =
        tokio::time::timeout(Duration::from_secs(60), shop.run(&["replay", "--swap", "sales"])).await;
    assert_refused(&output.unwrap(), &["another transaction holds on to it"]);
    holder.rollback().await.unwrap();
    assert_eq!(shop.run(&["replay", "--swap", "sales"]).await.status.code(), Some(0));
}
