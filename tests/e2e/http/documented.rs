//! Answers have the shape that the document promises.

use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::ask;
use crate::coupons::{order_with, own_coupon};
use crate::dead_letters::{broken_with_waiting, replay};
use crate::support::{ADMIN_KEY, Shop, id};

#[tokio::test(flavor = "multi_thread")]
async fn every_get_answers_in_the_shape_that_the_document_promises() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(50_000).await, shop.product(12_000, 5).await);
    let own = own_coupon(&shop, &user, json!({})).await;
    let order = order_with(&shop, &user, &[(lamp, 2)], own).await;
    assert_eq!(shop.order(&user, &[(lamp, 9)]).await["status"], "REJECTED");
    let claimed = "SELECT coupon_id, claim_id FROM user_coupons WHERE key = $1";
    let (coupon, claim): (Uuid, Uuid) =
        sqlx::query_as(claimed).bind(own).fetch_one(&shop.pool).await.unwrap();
    let (_, letter) = broken_with_waiting(&shop, 1).await;
    let replay = replay(&shop, &json!({"ids": [letter], "dry_run": true})).await;
    let ids = [
        ("{user_id}", user.id),
        ("{product_id}", lamp),
        ("{order_id}", id(&order["order_id"])),
        ("{coupon_id}", coupon),
        ("{claim_id}", claim),
        ("{dead_letter_id}", letter),
        ("{replay_id}", id(&replay["replay_id"])),
    ];
    let document = ask(shop.request_as_nobody(Method::GET, "/openapi.json")).await.with(200);
    let mut looked_at = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let content = &item["get"]["responses"]["200"]["content"]["application/json"];
        let Some(schema) = content.get("schema") else { continue };
        let path = ids.iter().fold(path.clone(), |path, (name, id)| path.replace(name, &id.to_string()));
        let request = shop.request_as_nobody(Method::GET, &path).bearer_auth(ADMIN_KEY);
        let answer = ask(request).await.with(200);
        // What the schema refers to is found from its root.
        let promised = json!({"allOf": [schema], "components": document["components"]});
        let promised = jsonschema::validator_for(&promised).unwrap();
        let broken = promised.iter_errors(&answer);
        let broken: Vec<String> = broken.map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(broken.is_empty(), "GET {path}: {broken:#?} {answer:#}");
        looked_at += 1;
    }
    assert!(looked_at > 20, "{looked_at}");
    running.stop().await;
}
