//! Letters that are edited, discarded, or left as they are.

use ordermill_schemas::Topic;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    broken_with_waiting, counts, json_of, letter, open_shop, printed, refusal, replay, sound, states,
    until_letters,
};
use crate::support::{Shop, answer, until};

async fn change(shop: &Shop, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    answer(shop.request(method, &format!("/dead-letters/{path}")).json(&body)).await
}

async fn until_states(shop: &Shop, key: Uuid, expected: &[&str]) {
    until("the letters are decided", async || states(shop, key).await == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_payload_is_edited_and_what_waits_behind_it_follows() {
    let (shop, running) = open_shop().await;
    let (key, head) = broken_with_waiting(&shop, 2).await;
    let shown = letter(&shop, head).await;
    assert_eq!((&shown["code"], &shown["waiting_behind"]), (&json!("SCHEMA"), &json!(2)), "{shown}");
    assert_eq!((&shown["schema"]["ok"], &shown["schema"]["place"]), (&json!(false), &json!("user_id")));
    let waiting = shop.get("/dead-letters?group=stock&state=WAITING").await;
    assert_eq!(waiting["items"].as_array().unwrap().len(), 2, "{waiting}");
    for item in waiting["items"].as_array().unwrap() {
        assert_eq!(
            (&item["waits_for"], &item["code"], &item["attempts"]),
            (&json!(head), &Value::Null, &json!(0))
        );
    }
    let text = shop.run(&["dlq", "show", &head.to_string()]).await;
    let text = printed(&text, 0);
    assert!(text.contains("\"user_id\": \"nobody\"  <-- here"), "{text}");
    assert!(text.contains("with 2 of its key waiting behind it"), "{text}");

    let broken = shown["payload"].clone();
    let path = format!("{head}/payload");
    let (status, edited) = change(&shop, Method::PUT, &path, json!({"payload": "{oops"})).await;
    assert_eq!((status, &edited["schema"]["code"]), (StatusCode::OK, &json!("UNDECODABLE")), "{edited}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("payload.json");
    std::fs::write(&file, sound(key)).unwrap();
    let file = file.to_str().unwrap();
    let output = shop.run(&["dlq", "edit", &head.to_string(), "--file", file, "--json"]).await;
    let edited = json_of(&output, 0);
    assert_eq!(edited["schema"], json!({"ok": true}), "{edited}");
    assert_eq!((&edited["payload"], &edited["original_payload"]), (&json!(sound(key)), &broken));
    let audit = edited["audit"].as_array().unwrap();
    let actions: Vec<&Value> = audit.iter().map(|entry| &entry["action"]).collect();
    assert_eq!(actions, ["EDITED", "EDITED"], "{audit:?}");
    assert_eq!(audit[0]["actor"], "admin:tests", "{audit:?}");
    assert!(audit[1]["actor"].as_str().unwrap().starts_with("cli:"), "{audit:?}");

    // The stock worker has nothing to do for it, so it changes nothing, and that is what the verdict says.
    let replayed = replay(&shop, &json!({"ids": [head]})).await;
    assert_eq!(counts(&replayed), json!({"ALREADY_APPLIED": 1}), "{replayed}");
    until_states(&shop, key, &["RESOLVED"; 3]).await;
    assert_eq!(shop.count("SELECT count(*) FROM parked_key WHERE group_name = 'stock'").await, 0);
    let (status, problem) = change(&shop, Method::PUT, &path, json!({"payload": "{}"})).await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::CONFLICT, &json!("DEAD_LETTER_SETTLED")),
        "{problem}"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_discarded_and_what_waits_behind_it_is_released_or_discarded_too() {
    let (shop, running) = open_shop().await;
    let (released, first) = broken_with_waiting(&shop, 2).await;
    let (dropped, second) = broken_with_waiting(&shop, 1).await;

    let body = json!({"reason": "made by hand", "release_waiting": true});
    let (status, discarded) = change(&shop, Method::POST, &format!("{first}/discard"), body.clone()).await;
    assert_eq!((status, &discarded["state"]), (StatusCode::OK, &json!("DISCARDED")), "{discarded}");
    let detail = json!({"reason": "made by hand", "release_waiting": true, "waiting": 2});
    assert_eq!(discarded["audit"][0]["detail"], detail, "{discarded}");
    until_states(&shop, released, &["DISCARDED", "RESOLVED", "RESOLVED"]).await;
    let (status, problem) = change(&shop, Method::POST, &format!("{first}/discard"), body).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("DEAD_LETTER_SETTLED")));

    let id = second.to_string();
    let discard = ["dlq", "discard", &id, "--reason", "made by hand"];
    let line = shop.run(&discard).await;
    assert!(
        refusal(&line).contains("has 1 waiting behind it") && refusal(&line).contains("--release-waiting")
    );
    assert_eq!(states(&shop, dropped).await, ["PARKED", "WAITING"]);
    let done = shop.run(&[&discard[..], &["--discard-waiting"]].concat()).await;
    assert!(printed(&done, 0).contains("1 that waited behind it, too"), "{done:?}");
    assert_eq!(states(&shop, dropped).await, ["DISCARDED"; 2]);

    let unknown = Uuid::now_v7();
    for (body, status, code) in [
        (json!({"ids": [first, second]}), StatusCode::CONFLICT, "DEAD_LETTER_SETTLED"),
        (json!({"ids": [unknown]}), StatusCode::UNPROCESSABLE_ENTITY, "DEAD_LETTER_NOT_FOUND"),
    ] {
        let (answered, problem) = shop.post("/dead-letters/replays", &body).await;
        assert_eq!((answered, &problem["code"]), (status, &json!(code)), "{problem}");
        assert_eq!(problem["errors"][0]["field"], "ids[0]", "{problem}");
    }
    let line = shop.run(&["dlq", "replay", &id]).await;
    assert!(refusal(&line).contains("what was discarded is not replayed"), "{line:?}");
    for path in [format!("{unknown}"), format!("replays/{unknown}")] {
        let (status, _) = answer(shop.request(Method::GET, &format!("/dead-letters/{path}"))).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_fails_again_parks_its_letter_and_the_command_says_so() {
    let (shop, running) = open_shop().await;
    let (_, head) = broken_with_waiting(&shop, 1).await;
    let groups = ordermill_workers::groups();
    let groups = groups.iter().filter(|(_, topics)| topics.contains(&Topic::Orders)).count();
    let parked = "SELECT count(*) FROM dead_letter WHERE state = 'PARKED'";
    until("every group of the topic has put it aside", async || {
        shop.count(parked).await == i64::try_from(groups).unwrap()
    })
    .await;
    let attempts = letter(&shop, head).await["attempts"].as_i64().unwrap();
    let output = shop.run(&["dlq", "replay", "--group", "stock"]).await;
    let text = printed(&output, 1);
    assert!(text.contains("| FAILED_AGAIN    |       1 |") && text.contains(&head.to_string()), "{text}");
    until_letters(&shop, "stock", "PARKED", 1).await;
    assert_eq!(letter(&shop, head).await["attempts"], attempts + 1);
    let dry_run = shop.run(&["dlq", "replay", "--all", "--dry-run", "--json"]).await;
    let dry_run = json_of(&dry_run, 0);
    assert_eq!(counts(&dry_run), json!({"FAILED_AGAIN": groups}), "{dry_run}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_has_stopped_goes_on_once_somebody_has_looked() {
    let (shop, running) = open_shop().await;
    let halt =
        "INSERT INTO halted_group (group_name, halted_at, reason) VALUES ('stock', now(), 'too much fails')
        ON CONFLICT (group_name) DO UPDATE SET resumed_at = NULL, unchecked_until = NULL";
    sqlx::raw_sql(halt).execute(&shop.pool).await.unwrap();
    let halts = shop.get("/dead-letters/halts").await;
    assert_eq!(
        (&halts["items"][0]["group"], &halts["items"][0]["reason"]),
        (&json!("stock"), &json!("too much fails"))
    );
    assert_eq!(json_of(&shop.run(&["dlq", "halts", "--json"]).await, 0), halts);
    let (user, lamp) = (shop.user(1_000).await, shop.product(100, 5).await);
    let order = shop.submit(&user, &[(lamp, 1)]).await;

    let resume = |body| change(&shop, Method::POST, "halts/stock/resume", body);
    let (status, resumed) = resume(json!({"unchecked_seconds": 5})).await;
    assert_eq!((status, &resumed["group"]), (StatusCode::OK, &json!("stock")), "{resumed}");
    let at = |member: &str| resumed[member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!((at("unchecked_until") - at("resumed_at")).get_seconds(), 5);
    let (status, problem) = resume(json!({})).await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("HALT_NOT_FOUND")));
    let order = shop.settled(crate::support::id(&order["order_id"])).await;
    assert_eq!(order["status"], "CONFIRMED", "{order}");

    sqlx::raw_sql(halt).execute(&shop.pool).await.unwrap();
    let output = shop.run(&["dlq", "resume", "stock", "--unchecked-for", "1m"]).await;
    assert!(printed(&output, 0).starts_with("stock goes on"), "{output:?}");
    let again = shop.run(&["dlq", "resume", "stock"]).await;
    assert!(refusal(&again).contains("no group stock has stopped"), "{again:?}");
    let audited = "SELECT count(*) FROM dead_letter_audit WHERE action = 'RESUMED' AND group_name = 'stock'";
    assert_eq!(shop.count(audited).await, 2);
    running.stop().await;
}
