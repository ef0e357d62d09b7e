//! The API against its own document. schemathesis asks every operation what the document allows, and what it does not, as each kind of
//! caller; no answer may be a failure of the server's, and each must have a status, a type, headers and a body that the document promises.

use std::env;
use std::fs;
use std::time::Duration;

use ordermill_stack::{Quiet, Scratch, schemathesis};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::coupons::own_coupon;
use crate::dead_letters::{broken_with_waiting, replay};
use crate::support::{ADMIN_KEY, Shop, User, answer, id, lines_of};

/// How one caller asks, and what counts as wrong.
const CONFIG: &str = include_str!("schemathesis/schemathesis.toml");
/// The same for a caller who has a key.
const WITH_KEY: &str = "\n[auth.openapi.api_key]\nbearer = \"${ORDERMILL_KEY}\"\n";
/// What has requests reach what there is in the shop.
const HOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/schemathesis/hooks.py");
/// How long all requests of one caller may take on a busy machine.
const RUN_MAX: Duration = Duration::from_secs(900);
/// Further arguments for schemathesis, like `--max-examples 500` or `--include-operation-id place_order`.
const FURTHER: &str = "SCHEMATHESIS_ARGS";
/// What even an administrator asks in vain: no group has stopped that could go on, and only the gateway can sign callbacks.
const IN_VAIN: [&str; 2] = ["POST /v1/dead-letters/halts/{group}/resume", "POST /v1/payments/callbacks"];

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Nobody,
    Customer,
    Administrator,
}

async fn ordered(shop: &Shop, user: &User, lines: &[(Uuid, i32)]) -> Uuid {
    id(&shop.order(user, lines).await["order_id"])
}

/// The coupon that a user's coupon is of, and the claim that has brought it.
async fn origin_of(shop: &Shop, user_coupon_id: Uuid) -> (Uuid, Uuid) {
    let origin = "SELECT coupon_id, claim_id FROM user_coupons WHERE key = $1";
    sqlx::query_as(origin).bind(user_coupon_id).fetch_one(&shop.pool).await.unwrap()
}

/// Fills the shop. Answers the customer, and the ids of what there is, as the hooks read them.
async fn fill(shop: &Shop, caller: Caller) -> (User, Value) {
    let (customer, other) = (shop.user(5_000_000).await, shop.user(1_000_000).await);
    let (erased, erased_too) = (shop.user(0).await, shop.user(0).await);
    let (lamp, chair) = (shop.product(1_000, 1_000_000).await, shop.product(12_000, 1_000_000).await);
    let (gone, changing) = (shop.product(5_000, 0).await, shop.product(7_000, 10).await);

    let [used, unused] =
        [own_coupon(shop, &customer, json!({})).await, own_coupon(shop, &customer, json!({})).await];
    let revoked = own_coupon(shop, &customer, json!({})).await;
    let ((coupon, claim), (second, second_claim)) =
        (origin_of(shop, used).await, origin_of(shop, unused).await);
    let open = json!({"name": "Summer", "discount": {"type": "FIXED", "value": 500}, "quantity": 1_000_000});
    let (status, open) = shop.post("/coupons", &open).await;
    assert_eq!(status, StatusCode::CREATED, "{open}");

    let mut confirmed = Vec::new();
    for _ in 0..8 {
        confirmed.push(ordered(shop, &customer, &[(lamp, 5)]).await);
    }
    let (rejected, others) =
        (ordered(shop, &customer, &[(gone, 1)]).await, ordered(shop, &other, &[(chair, 1)]).await);
    let shipped = confirmed.remove(0);
    let lines = json!({"lines": lines_of(&[(lamp, 1)]), "tracking_number": "6112 4711"});
    let (status, shipment) = shop.ask(ADMIN_KEY, shipped, "shipments", &lines).await;
    assert_eq!(status, StatusCode::CREATED, "{shipment}");
    let cancelled = confirmed.remove(0);
    let (status, order) = shop.ask(&customer.key, cancelled, "cancellation", &json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{order}");
    shop.settled(cancelled).await;
    let in_every_state = [&confirmed[..], &[rejected, shipped, cancelled, others]].concat();

    let (letters, replays) = if caller == Caller::Administrator {
        let mut letters = Vec::new();
        for _ in 0..3 {
            letters.push(broken_with_waiting(shop, 1).await.1);
        }
        let replay = replay(shop, &json!({"ids": letters, "dry_run": true})).await;
        (letters, vec![id(&replay["replay_id"])])
    } else {
        // Nobody else gets so far as to be told of any.
        (vec![Uuid::now_v7()], vec![Uuid::now_v7()])
    };
    // What ends or takes away what it is asked for has some of its own.
    let things = json!({
        "user_id": [customer.id, customer.id, other.id],
        "erase_user.user_id": [erased.id, erased_too.id],
        "product_id": [lamp, chair, gone],
        "change_product.product_id": [changing],
        "adjust_stock.product_id": [changing],
        "ship_order.product_id": [lamp],
        "order_id": in_every_state,
        "ship_order.order_id": [confirmed[0], confirmed[1], cancelled],
        "modify_order.order_id": [confirmed[2], confirmed[3], shipped],
        "cancel_order.order_id": [confirmed[4], confirmed[5], rejected],
        "shipment_id": [shipment["shipment_id"]],
        "coupon_id": [coupon, second, open["coupon_id"]],
        "get_claim.coupon_id": [coupon, second],
        "claim_id": [claim, second_claim],
        "user_coupon_id": [used, unused],
        "revoke_user_coupon.user_coupon_id": [revoked],
        "dead_letter_id": letters,
        "edit_dead_letter.dead_letter_id": [letters[0]],
        "discard_dead_letter.dead_letter_id": [letters[letters.len() - 1]],
        "ids": letters,
        "replay_id": replays,
    });
    (customer, things)
}

fn further_arguments() -> Vec<String> {
    env::var(FURTHER).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Has schemathesis ask everything, with that key where there is one. Answers its report.
async fn ask_everything(shop: &Shop, key: Option<&str>, things: &Value) -> Value {
    let scratch = Scratch::new().unwrap();
    let directory = scratch.path().to_owned();
    let [config, ids, report] =
        ["schemathesis.toml", "things.json", "report.json"].map(|name| directory.join(name));
    fs::write(&config, [CONFIG, key.map_or("", |_| WITH_KEY)].concat()).unwrap();
    fs::write(&ids, things.to_string()).unwrap();
    let (document, key) = (shop.url("/openapi.json"), key.unwrap_or_default().to_owned());
    let written = report.clone();
    let run = move || {
        let child = schemathesis(&directory.join("output"), &Quiet)
            .unwrap()
            .arg("--config-file")
            .arg(config)
            .args(["run", document.as_str(), "--report", "json", "--report-json-path"])
            .arg(written)
            .args(further_arguments())
            .without_env_prefix("SCHEMATHESIS_")
            .env("SCHEMATHESIS_HOOKS", HOOKS)
            .env("ORDERMILL_THINGS", ids)
            .env("ORDERMILL_KEY", key)
            // Whatever proxy there is, this does not go through it.
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1")
            .directory(directory)
            .start()
            .unwrap();
        (child.wait(RUN_MAX), child.output())
    };
    let (status, output) = tokio::task::spawn_blocking(run).await.unwrap();
    let found_nothing = status.is_some_and(|status| status.success());
    assert!(found_nothing, "schemathesis, which has {RUN_MAX:?}, ended with {status:?}:\n{output}");
    // Shown where the test is run with --nocapture.
    eprintln!("{output}");
    serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap()
}

/// Those operations of the document that no request was let in to.
async fn asked_in_vain(shop: &Shop, report: &Value) -> Vec<String> {
    let (_, document) = answer(shop.request_as_nobody(Method::GET, "/openapi.json")).await;
    let mut in_vain = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let operation = format!("{} {path}", method.to_uppercase());
            let phases = report["valid_rates"][&operation].as_object();
            let was_let_in = |phase: &Value| phase["accepted"].as_u64().is_some_and(|accepted| accepted > 0);
            if !phases.is_some_and(|phases| phases.values().any(was_let_in)) {
                in_vain.push(operation);
            }
        }
    }
    in_vain
}

async fn is_answered_as_documented(caller: Caller) {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (customer, things) = fill(&shop, caller).await;
    let key = match caller {
        Caller::Nobody => None,
        Caller::Customer => Some(customer.key.as_str()),
        Caller::Administrator => Some(ADMIN_KEY),
    };
    let report = ask_everything(&shop, key, &things).await;
    // Where all is refused, little was looked at.
    if caller == Caller::Administrator && further_arguments().is_empty() {
        assert_eq!(asked_in_vain(&shop, &report).await, IN_VAIN);
    }
    shop.until_quiet().await;
    running.stop().await;
    // An administrator's shop has messages that were written into the log by hand, so that there are dead letters.
    if caller != Caller::Administrator {
        shop.assert_verified().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_without_a_key_is_answered_as_the_document_says() {
    is_answered_as_documented(Caller::Nobody).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_customer_asks_is_answered_as_the_document_says() {
    is_answered_as_documented(Caller::Customer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_administrator_asks_is_answered_as_the_document_says() {
    is_answered_as_documented(Caller::Administrator).await;
}
