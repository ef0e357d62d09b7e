//! The command alone, while nothing else runs.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{json_of, printed, refusal};
use crate::support::{DEADLINE, Shop};

/// A letter of the group stock; its error would change a terminal.
async fn put_letter_by_hand(shop: &Shop) -> Uuid {
    sqlx::query_scalar(
        "INSERT INTO dead_letter (dead_letter_id, group_name, topic, partition, record_offset, record_key, headers, authentic,
             payload, code, error, attempts, first_failed_at, last_failed_at)
         VALUES (gen_random_uuid(), 'stock', 'orders', 0, 7, '\\xff00', '[]', false, '\\xfe', 'FOREIGN', E'\\x1b[2Jaway',
             1, now(), now())
         RETURNING dead_letter_id",
    )
    .fetch_one(&shop.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_works_on_the_database_and_shows_nothing_raw() {
    let shop = Shop::new().await;
    assert_eq!(printed(&shop.run(&["dlq", "list"]).await, 0), "no dead letters\n");
    let id = put_letter_by_hand(&shop).await.to_string();
    let list = shop.run(&["dlq", "list"]).await;
    let text = printed(&list, 0);
    assert!(text.contains(&id) && text.contains(r"\u{1b}[2Jaway") && !text.contains('\u{1b}'), "{text}");
    let show = shop.run(&["dlq", "show", &id]).await;
    assert!(printed(&show, 0).contains("(base64) /wA=") && !printed(&show, 0).contains('\u{1b}'), "{show:?}");
    assert_eq!(shop.run(&["dlq", "show", &id, "--payload"]).await.stdout, [0xfe]);
    let json = json_of(&shop.run(&["dlq", "show", &id, "--json"]).await, 0);
    assert_eq!((&json["key"], &json["key_base64"]), (&Value::Null, &json!("/wA=")));
    assert_eq!((&json["payload"], &json["payload_base64"]), (&Value::Null, &json!("/g==")));

    let asked = shop.run(&["dlq", "replay", "--all", "--no-wait", "--json", "--rate", "5"]).await;
    let asked = json_of(&asked, 0);
    assert_eq!((&asked["selected"], &asked["state"]), (&json!(1), &json!("RUNNING")));
    let replay_id = asked["replay_id"].as_str().unwrap();
    let progress = json_of(&shop.run(&["dlq", "progress", replay_id, "--no-wait", "--json"]).await, 0);
    assert_eq!(progress["counts"]["UNDECIDED"], 1, "{progress}");
    assert!(printed(&shop.run(&["dlq", "replays"]).await, 0).contains(replay_id));
    let edit = shop.run(&["dlq", "edit", &id, "--stdin"]).await;
    assert!(
        refusal(&edit).contains("REPLAYED, and what is PARKED or WAITING can be edited only"),
        "{edit:?}"
    );

    // Whoever waits for a worker that is not there is told so.
    let waiting = shop.start(&["dlq", "progress", replay_id]);
    waiting.wait_for_line("no worker of stock gives signs of life", DEADLINE).unwrap();
    waiting.kill9();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_command_can_not_do_it_says_in_one_line() {
    let shop = Shop::new().await;
    let unknown = Uuid::now_v7().to_string();
    for (arguments, says) in [
        (&["replay"][..], "--all"),
        (&["replay", &unknown, "--group", "stock"], "not both"),
        (&["replay", &unknown], "there is no dead letter"),
        (&["replay", "--topic", "order.stock.dlt"], "there is no topic order; there are orders"),
        (&["replay", "--topic", "orders.stock.dlt", "--group", "sales"], "leave --group out"),
        (&["replay", "--state", "discarded"], "what was discarded is not replayed"),
        (&["list", "--group", "stocks"], "there is no group stocks"),
        (&["list", "--cursor", "x"], "--cursor"),
        (&["show", &unknown], "there is no dead letter"),
        (&["edit", &unknown, "--stdin"], "there is no dead letter"),
        (&["discard", &unknown, "--reason", "twice"], "there is no dead letter"),
        (&["progress", &unknown], "there is no replay"),
        (&["resume", "stock"], "no group stock has stopped"),
        (&["halts", "--database-url", "postgres://nobody@127.0.0.1:1/nothing"], "PostgreSQL does not answer"),
    ] {
        let output = shop.run(&[&["dlq"], arguments].concat()).await;
        assert!(refusal(&output).contains(says), "{arguments:?}: {}", refusal(&output));
    }
    for arguments in [&["show", "x"][..], &["replay", "--all", "--rate", "0"], &["discard", &unknown]] {
        assert_eq!(shop.run(&[&["dlq"], arguments].concat()).await.status.code(), Some(2), "{arguments:?}");
    }
}
