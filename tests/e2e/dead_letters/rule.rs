//! Orders that break a rule of the stock worker's: found, looked at, tried, replayed.

use jiff::{SignedDuration, Timestamp};
use ordermill_pipeline::clock::Clock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{BROKEN_RULE, Poison, counts, done, json_of, letter, open_shop, replay, until_letters};
use crate::support::{Shop, answer, id, until};

/// How many events the orders have brought about.
async fn events_of(shop: &Shop, orders: &[Uuid]) -> i64 {
    let sql = "SELECT count(*) FROM event_log WHERE correlation_id = ANY($1)";
    sqlx::query_scalar(sql).bind(orders).fetch_one(&shop.pool).await.unwrap()
}

fn ids(list: &Value) -> Vec<Uuid> {
    list["items"].as_array().unwrap().iter().map(|item| id(&item["dead_letter_id"])).collect()
}

/// Lists, counts and pages find the three letters of the orders, however they are asked for.
async fn assert_found(shop: &Shop, orders: &[Uuid]) -> Vec<Uuid> {
    let list = shop.get("/dead-letters").await;
    let letters = ids(&list);
    assert_eq!((letters.len(), &list["next_cursor"]), (3, &Value::Null), "{list}");
    for item in list["items"].as_array().unwrap() {
        assert!(orders.contains(&id(&item["key"])), "{item}");
        assert_eq!(item["correlation_id"], item["key"]);
        let expected = json!(["orders", "stock", "order.placed", "RULE", "PARKED", 0, null, false]);
        let names =
            ["topic", "group", "event_type", "code", "state", "waiting_behind", "waits_for", "edited"];
        assert_eq!(names.map(|name| item[name].clone()).into_iter().collect::<Value>(), expected, "{item}");
        assert!(item["error"].as_str().unwrap().contains(BROKEN_RULE), "{item}");
    }
    let topic = shop.connections.kafka.full_name("orders.stock.dlt");
    for query in [
        "topic=orders.stock.dlt".to_owned(),
        format!("topic={topic}"),
        "topic=orders&group=stock&code=RULE&state=PARKED".to_owned(),
        "from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z".to_owned(),
    ] {
        assert_eq!(ids(&shop.get(&format!("/dead-letters?{query}")).await), letters, "{query}");
    }
    for query in ["topic=payments", "group=sales", "code=BUG", "state=RESOLVED", "to=2020-01-01T00:00:00Z"] {
        assert!(ids(&shop.get(&format!("/dead-letters?{query}")).await).is_empty(), "{query}");
    }
    let first = shop.get("/dead-letters?limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = shop.get(&format!("/dead-letters?limit=2&cursor={cursor}")).await;
    assert_eq!([ids(&first), ids(&second)].concat(), letters);
    let groups = shop.get("/dead-letters/groups?topic=orders.stock.dlt").await;
    let [group] = groups["items"].as_array().unwrap().as_slice() else { panic!("{groups}") };
    let expected = json!(["orders", "stock", "RULE", 3, {"PARKED": 3}]);
    let names = ["topic", "group", "code", "count", "states"];
    assert_eq!(names.map(|name| group[name].clone()).into_iter().collect::<Value>(), expected);
    // The command says the same as the API.
    assert_eq!(json_of(&shop.run(&["dlq", "list", "--json"]).await, 0), list);
    let printed = shop.run(&["dlq", "groups", "--json", "--topic", &topic]).await;
    assert_eq!(json_of(&printed, 0), groups);
    letters
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_break_a_rule_are_found_tried_and_replayed() {
    let (shop, running) = open_shop().await;
    let (user, lamp, chair) =
        (shop.user(10_000).await, shop.product(100, 9).await, shop.product(50, 9).await);
    let poison = Poison::of(&shop, lamp).await;
    let mut orders = Vec::new();
    for _ in 0..3 {
        orders.push(id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]));
    }
    assert_eq!(shop.order(&user, &[(chair, 1)]).await["status"], "CONFIRMED", "others are not delayed");
    until_letters(&shop, "stock", "PARKED", 3).await;
    let letters = assert_found(&shop, &orders).await;

    let shown = letter(&shop, letters[0]).await;
    assert_eq!((&shown["schema"], &shown["audit"]), (&json!({"ok": true}), &json!([])), "{shown}");
    let headers = shown["headers"].as_array().unwrap();
    assert!(headers.contains(&json!({"name": "ce_type", "value": "order.placed"})), "{shown}");
    let payload: Value = serde_json::from_str(shown["payload"].as_str().unwrap()).unwrap();
    assert_eq!((&payload["order_id"], shown.get("original_payload")), (&shown["key"], None));

    let attempts = shown["attempts"].clone();
    let dry_run = json!({"ids": letters, "dry_run": true});
    let failing = replay(&shop, &dry_run).await;
    assert_eq!(counts(&failing), json!({"FAILED_AGAIN": 3}), "{failing}");
    for item in failing["items"].as_array().unwrap() {
        assert!(item["detail"].as_str().unwrap().contains(BROKEN_RULE) && item["decided_at"].is_string());
    }
    assert_eq!(letter(&shop, letters[0]).await["attempts"], attempts, "a dry run is no attempt");

    poison.cure(&shop).await;
    let before = events_of(&shop, &orders).await;
    assert_eq!(counts(&replay(&shop, &dry_run).await), json!({"APPLIED": 3}));
    assert_eq!(events_of(&shop, &orders).await, before, "a dry run changes nothing");
    until_letters(&shop, "stock", "PARKED", 3).await;

    let topic = shop.connections.kafka.full_name("orders.stock.dlt");
    let replayed = json_of(&shop.run(&["dlq", "replay", "--topic", &topic, "--json"]).await, 0);
    assert_eq!(
        (counts(&replayed), &replayed["state"]),
        (json!({"APPLIED": 3}), &json!("DONE")),
        "{replayed}"
    );
    for order_id in &orders {
        assert_eq!(shop.settled(*order_id).await["status"], "CONFIRMED");
    }
    let shown = letter(&shop, letters[0]).await;
    assert_eq!(shown["state"], "RESOLVED");
    let actors: Vec<&str> =
        shown["audit"].as_array().unwrap().iter().map(|entry| entry["actor"].as_str().unwrap()).collect();
    assert_eq!(actors[..2], ["admin:tests"; 2]);
    assert!(actors[2].starts_with("cli:") && actors[2].contains('@'), "{actors:?}");

    assert_replayed_once_more(&shop, &letters).await;
    shop.until_quiet().await;
    until("all sales are counted", async || {
        shop.count("SELECT coalesce(sum(orders), 0)::bigint FROM sales WHERE level = 'ALL'").await == 4
    })
    .await;
    shop.assert_verified().await;
    running.stop().await;
}

/// What is resolved changes nothing any more, however often it is named; a request that is repeated asks for nothing anew.
async fn assert_replayed_once_more(shop: &Shop, letters: &[Uuid]) {
    let twice = [letters, letters].concat();
    let twice = json!({"ids": twice});
    let again = || {
        let request =
            shop.request(Method::POST, "/dead-letters/replays").header("Idempotency-Key", "once-more");
        answer(request.json(&twice))
    };
    let ((status, first), (repeated, second)) = (again().await, again().await);
    assert_eq!((status, repeated, &first), (StatusCode::ACCEPTED, StatusCode::ACCEPTED, &second));
    assert_eq!(first["selected"], 3, "{first}");
    assert_eq!(counts(&done(shop, id(&first["replay_id"])).await), json!({"ALREADY_APPLIED": 3}));
    let nothing = shop.post("/dead-letters/replays", &json!({"filter": {}})).await.1;
    assert_eq!((&nothing["selected"], &nothing["state"]), (&json!(0), &json!("DONE")));
    let listed = shop.get("/dead-letters/replays?limit=1").await;
    assert_eq!(listed["items"][0]["replay_id"], nothing["replay_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_which_a_step_was_discarded_is_refused_at_its_deadline() {
    let shop = Shop::new().await;
    let clock = Clock::manual(Timestamp::now());
    let running = shop.open_at(clock.clone()).await;
    let (user, lamp) = (shop.user(10_000).await, shop.product(100, 9).await);
    let poison = Poison::of(&shop, lamp).await;
    let order_id = id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]);
    until_letters(&shop, "stock", "PARKED", 1).await;
    clock.advance(SignedDuration::from_secs(61));
    until_letters(&shop, "stock", "WAITING", 1).await;
    let letter = ids(&shop.get("/dead-letters?state=PARKED").await)[0];
    let discard = json!({"reason": "not for sale", "release_waiting": true});
    let request = shop.request(Method::POST, &format!("/dead-letters/{letter}/discard"));
    assert_eq!(answer(request.json(&discard)).await.0, StatusCode::OK);
    // What waited tells the stock worker to give back what it was never asked for.
    let order = shop.settled(order_id).await;
    assert_eq!(
        (&order["status"], &order["failure"]["code"]),
        (&json!("REJECTED"), &json!("DEADLINE_EXCEEDED"))
    );
    assert_eq!((shop.balance(&user).await, shop.stock(lamp).await), ((10_000, 0), 9));
    poison.cure(&shop).await;
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_judges_what_waits_after_what_is_before_it() {
    let shop = Shop::new().await;
    let clock = Clock::manual(Timestamp::now());
    let running = shop.open_at(clock.clone()).await;
    let (user, lamp) = (shop.user(10_000).await, shop.product(100, 9).await);
    let poison = Poison::of(&shop, lamp).await;
    let order_id = id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]);
    until_letters(&shop, "stock", "PARKED", 1).await;
    clock.advance(SignedDuration::from_secs(61));
    until_letters(&shop, "stock", "WAITING", 1).await;
    let (failed, waits) = (shop.get("/dead-letters?state=PARKED"), shop.get("/dead-letters?state=WAITING"));
    let letters = [ids(&failed.await), ids(&waits.await)].concat();
    let dry_run = json!({"ids": letters, "dry_run": true});
    assert_eq!(counts(&replay(&shop, &dry_run).await), json!({"FAILED_AGAIN": 1, "WAITING": 1}));

    poison.cure(&shop).await;
    assert_eq!(counts(&replay(&shop, &dry_run).await), json!({"APPLIED": 2}));
    let decided =
        "SELECT count(*) FROM event_log WHERE type IN ('stock.reserved', 'stock.released', 'stock.refused')";
    assert_eq!(shop.count(decided).await, 0, "a dry run changes nothing");
    assert_eq!(counts(&replay(&shop, &json!({"ids": letters})).await), json!({"APPLIED": 2}));
    assert_eq!(shop.settled(order_id).await["failure"]["code"], "DEADLINE_EXCEEDED");
    assert_eq!((shop.balance(&user).await, shop.stock(lamp).await), ((10_000, 0), 9));
    shop.until_quiet().await;
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_database_refuses_is_put_aside_and_replayed_all_the_same() {
    let (shop, running) = open_shop().await;
    let (user, lamp, chair) =
        (shop.user(10_000).await, shop.product(100, 9).await, shop.product(50, 9).await);
    let rule = format!(
        "ALTER TABLE stock_reservations ADD CONSTRAINT no_lamps
         CHECK (NOT bulk::jsonb @> '[{{\"product_id\": \"{lamp}\"}}]')"
    );
    sqlx::raw_sql(AssertSqlSafe(rule)).execute(&shop.pool).await.unwrap();
    let order_id = id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]);
    assert_eq!(shop.order(&user, &[(chair, 1)]).await["status"], "CONFIRMED", "others are not delayed");
    until_letters(&shop, "stock", "PARKED", 1).await;
    let parked = ids(&shop.get("/dead-letters").await)[0];
    let shown = letter(&shop, parked).await;
    assert_eq!((&shown["code"], &shown["key"]), (&json!("RULE"), &json!(order_id)), "{shown}");
    assert!(shown["error"].as_str().unwrap().contains("no_lamps"), "{shown}");

    let failing = replay(&shop, &json!({"ids": [parked]})).await;
    assert_eq!(counts(&failing), json!({"FAILED_AGAIN": 1}), "{failing}");
    assert!(failing["items"][0]["detail"].as_str().unwrap().contains("no_lamps"), "{failing}");
    until_letters(&shop, "stock", "PARKED", 1).await;
    let again = letter(&shop, parked).await;
    assert_eq!(
        again["attempts"].as_i64(),
        shown["attempts"].as_i64().map(|attempts| attempts + 1),
        "{again}"
    );
    assert_eq!(shop.stock(lamp).await, 9, "nothing of what was refused is written");

    let rule = "ALTER TABLE stock_reservations DROP CONSTRAINT no_lamps";
    sqlx::raw_sql(rule).execute(&shop.pool).await.unwrap();
    assert_eq!(counts(&replay(&shop, &json!({"ids": [parked]})).await), json!({"APPLIED": 1}));
    assert_eq!(shop.settled(order_id).await["status"], "CONFIRMED");
    shop.until_quiet().await;
    running.stop().await;
    shop.assert_verified().await;
}
