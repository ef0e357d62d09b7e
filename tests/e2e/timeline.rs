//! The whole story of an order, over HTTP and by the command.

use ordermill_schemas::headers;
use ordermill_stack::Child;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::orders::types;
use crate::support::{ADMIN_KEY, DEADLINE, Shop, User, answer, id, order_of, stop, until};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn told_to(shop: &Shop, key: &str, order_id: Uuid) -> Value {
    let (status, timeline) =
        answer(shop.request_as(key, Method::GET, &format!("/orders/{order_id}/events"))).await;
    assert_eq!(status, 200, "{timeline}");
    timeline
}

/// Runs the API alone.
async fn start_api(shop: &Shop) -> Child {
    let api = shop.start(&["api"]);
    until("the API listens", async || {
        shop.client.get(shop.url("/healthz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    api
}

fn event<'a>(timeline: &'a Value, event_type: &str) -> &'a Value {
    let items = timeline["items"].as_array().unwrap();
    let event = items.iter().find(|item| item["type"] == event_type);
    event.unwrap_or_else(|| panic!("no {event_type}: {timeline:#}"))
}

/// Places an order under that key; answers its id and the id of the request.
async fn place(shop: &Shop, user: &User, body: &Value, key: &str) -> (Uuid, String) {
    let request = shop.request_as(&user.key, Method::POST, "/orders").header("Idempotency-Key", key);
    let request = request.header("traceparent", format!("00-{TRACE_ID}-00f067aa0ba902b7-01")).json(body);
    let answer = request.send().await.unwrap();
    let request_id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let order: Value = answer.json().await.unwrap();
    (id(&order["order_id"]), request_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeline_tells_request_causes_calls_entries_and_who_is_done_with_each_event() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(12_000, 5).await);
    let (order_id, request_id) = place(&shop, &user, &order_of(&user, &[(lamp, 2)]), "cart-1").await;
    shop.settled(order_id).await;
    until("everybody is done with the first event", async || {
        let timeline = told_to(&shop, ADMIN_KEY, order_id).await;
        let read_by = timeline["items"][0]["read_by"].as_array().unwrap();
        ["coupons", "sales", "stock"].iter().all(|group| read_by.contains(&json!(group)))
    })
    .await;
    shop.until_quiet().await;
    let timeline = told_to(&shop, &user.key, order_id).await;
    let placed = &timeline["items"][0];
    assert_eq!(placed["request"], json!({"request_id": request_id, "route": "POST /v1/orders"}));
    assert_eq!((&placed["cause_id"], &placed["cause_sequence"]), (&Value::Null, &Value::Null));
    for item in timeline["items"].as_array().unwrap() {
        assert_eq!((&item["trace_id"], &item["published"]), (&json!(TRACE_ID), &json!(true)), "{item}");
        assert_eq!(item["request"].is_object(), item["type"] == "order.placed", "{item}");
    }
    let reserved = event(&timeline, "stock.reserved");
    assert_eq!((&reserved["cause_id"], &reserved["cause_sequence"]), (&placed["event_id"], &json!(1)));
    let held = event(&timeline, "balance.held");
    assert!(held["kafka"]["offset"].is_u64() && held.get("balance_entry").is_none(), "{held}");
    let (topic, partition) = (&held["topic"], &held["partition"]);
    assert_eq!((topic, partition.is_u64()), (&json!("balances"), true));
    assert_eq!((&held["kafka"]["topic"], &held["kafka"]["partition"]), (topic, partition));
    let entry = &event(&timeline, "balance.captured")["balance_entry"];
    assert_eq!(
        (&entry["kind"], &entry["amount"], &entry["balance_after"]),
        (&json!("USED"), &json!(24_000), &json!(26_000))
    );
    let requested = &event(&timeline, "payment.requested")["gateway"]["charge_ids"];
    let gateway = &event(&timeline, "payment.completed")["gateway"];
    assert_eq!(&gateway["charge_ids"], requested);
    assert_eq!(gateway["attempts"].as_array().unwrap().last().unwrap()["outcome"], "APPROVED");
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_by_an_administrator_shows_its_refund_but_not_the_request_to_the_customer() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(12_000, 5).await);
    let order_id = id(&shop.order(&user, &[(lamp, 2)]).await["order_id"]);
    let (status, order) = shop.ask(ADMIN_KEY, order_id, "cancellation", &json!({})).await;
    assert_eq!(status, 202, "{order}");
    assert_eq!(shop.settled(order_id).await["status"], "CANCELLED");
    let (to_admin, to_user) =
        (told_to(&shop, ADMIN_KEY, order_id).await, told_to(&shop, &user.key, order_id).await);
    assert_eq!(
        event(&to_admin, "order.cancelling")["request"]["route"],
        "POST /v1/orders/{order_id}/cancellation"
    );
    assert!(event(&to_user, "order.cancelling")["request"].is_null());
    assert_eq!(event(&to_admin, "order.cancelling")["actor"], "admin:tests");
    assert_eq!(event(&to_user, "order.cancelling")["actor"], "admin");
    assert!(event(&to_user, "order.placed")["request"].is_object());
    let refunds = &event(&to_user, "payment.refunding")["gateway"]["refund_ids"];
    assert_eq!(refunds.as_array().unwrap().len(), 1, "{refunds}");
    assert_eq!(&event(&to_user, "payment.refunded")["gateway"]["refund_ids"], refunds);
    let entry = &event(&to_user, "balance.refunded")["balance_entry"];
    assert_eq!((&entry["kind"], &entry["amount"]), (&json!("REFUNDED"), &json!(24_000)));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_an_order_is_told_to_administrators_only() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(12_000, 5).await);
    let order_id = id(&shop.order(&user, &[(lamp, 1)]).await["order_id"]);
    let kafka = &shop.connections.kafka;
    let producer: BaseProducer = kafka.client().create().unwrap();
    let topic = kafka.full_name("payments");
    let text = order_id.to_string();
    let headers = OwnedHeaders::new().insert(Header { key: headers::CORRELATION, value: Some(&text) });
    let record =
        BaseRecord::to(&topic).partition(0).key("stranger").payload("another's words").headers(headers);
    producer.send(record).unwrap();
    producer.flush(DEADLINE).unwrap();
    until("its dead letters stand on the timeline", async || {
        types(&told_to(&shop, ADMIN_KEY, order_id).await).contains(&"dead_letter.recorded")
    })
    .await;
    let timeline = told_to(&shop, ADMIN_KEY, order_id).await;
    let dead_letter = &event(&timeline, "dead_letter.recorded")["dead_letter"];
    assert_eq!((&dead_letter["code"], &dead_letter["state"]), (&json!("FOREIGN"), &json!("PARKED")));
    assert_eq!((&dead_letter["kafka"]["topic"], &dead_letter["attempts"]), (&json!("payments"), &json!(1)));
    let to_user = told_to(&shop, &user.key, order_id).await;
    assert!(!types(&to_user).contains(&"dead_letter.recorded"));
    assert!(!to_user.to_string().contains("another's words"));
    let sequences: Vec<u64> =
        to_user["items"].as_array().unwrap().iter().map(|item| item["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    let output = shop.run(&["order", &text]).await;
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("PARKED") && table.contains("FOREIGN"), "{table}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_what_the_api_tells_and_lets_nothing_near_the_terminal() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(12_000, 5).await);
    let (order_id, request_id) = place(&shop, &user, &order_of(&user, &[(lamp, 2)]), "cart-1").await;
    shop.settled(order_id).await;
    let reason = json!({"reason": "red\u{1b}[31m"});
    assert_eq!(shop.ask(&user.key, order_id, "cancellation", &reason).await.0, 202);
    assert_eq!(shop.settled(order_id).await["status"], "CANCELLED");
    shop.until_quiet().await;
    running.stop().await;
    // The API alone, so that nothing moves between its answer and the command's.
    let api = start_api(&shop).await;
    let order = shop.get(&format!("/orders/{order_id}")).await;
    let timeline = told_to(&shop, ADMIN_KEY, order_id).await;
    stop(&api);
    let order_id = order_id.to_string();
    let output = shop.run(&["order", &order_id, "--json"]).await;
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["order"], &told["items"]), (&order, &timeline["items"]));
    let output = shop.run(&["order", &order_id]).await;
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{table}");
    for text in [
        "CANCELLED",
        "2 x Lamp at 12000",
        &format!("request {request_id}: POST /v1/orders, trace {TRACE_ID}"),
        "gateway: attempt 1",
        "balance: USED 24000, 26000 after it",
        "balance: REFUNDED 24000, 50000 after it",
        "#1 order.placed",
        r"reason: red\u{1b}[31m",
    ] {
        assert!(table.contains(text), "{text}: {table}");
    }
    assert!(!table.contains('\u{1b}'), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_follows_an_order_to_its_end() {
    let shop = Shop::new().await;
    let api = start_api(&shop).await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(12_000, 1).await);
    let order_id = id(&shop.submit(&user, &[(lamp, 2)]).await["order_id"]).to_string();
    let follow = ["order", &order_id, "--follow"];
    let go_on = async {
        let followers = "SELECT count(*) FROM pg_stat_activity
            WHERE application_name = 'ordermill-order' AND datname = current_database()";
        until("it is being followed", async || shop.count(followers).await > 0).await;
        [shop.start(&["relay"]), shop.start(&["worker"])]
    };
    let (output, processes) = tokio::join!(shop.run(&follow), go_on);
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{table}");
    for text in ["order.placed", "stock.refused", "order.rejected"] {
        assert!(table.contains(text), "{text}: {table}");
    }
    processes.iter().for_each(stop);
    stop(&api);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_not_there_and_a_database_that_is_not_are_told_apart() {
    let shop = Shop::new().await;
    let unknown = Uuid::now_v7().to_string();
    let output = shop.run(&["order", &unknown]).await;
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{line}");
    assert_eq!(line, format!("ordermill: there is no order {unknown}\n"));
    let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
    let output = shop.run(&["order", &unknown, "--database-url", nowhere]).await;
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{line}");
    assert!(
        line.starts_with("ordermill: the order could not be read: ") && line.lines().count() == 1,
        "{line}"
    );
}
