//! Somebody who can write to Kafka, and has no key, tries to get goods without paying.

use ordermill_domain::payments::charge_id;
use ordermill_pipeline::partition::partition_of;
use ordermill_schemas::headers;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use reqwest::StatusCode;
use serde_json::json;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::{DEADLINE, PARTITIONS, Shop, id, order_of, until};

/// Position and id of the last event of a topic; of one partition, where it is said.
async fn last_event(shop: &Shop, topic: &str, partition: Option<i16>) -> (i64, Uuid) {
    let of_partition = partition.map_or_else(String::new, |partition| format!("AND partition = {partition}"));
    let sql = format!(
        "SELECT position, event_id FROM event_log WHERE topic = '{topic}' {of_partition} ORDER BY position DESC LIMIT 1"
    );
    sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&shop.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_payment_confirms_no_order_that_the_gateway_declines() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(0).await, shop.product(1_000, 5).await);
    shop.behave(&json!({"decline": 1.0, "latency_ms": [2_000, 2_000]})).await;
    let mut body = order_of(&user, &[(lamp, 2)]);
    body["payment_method"] = json!("CARD");
    let (status, order) = shop.post("/orders", &body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{order}");
    let order_id = id(&order["order_id"]);
    let requested = format!(
        "SELECT count(*) FROM event_log WHERE type = 'payment.requested' AND aggregate_id = '{order_id}'"
    );
    until("the gateway is asked", async || shop.count(&requested).await == 1).await;

    // It follows on the last record of its partition, and copies label and id of a later event, which is in the log.
    let partition = partition_of(order_id, PARTITIONS);
    let (last, _) = last_event(&shop, "payments", Some(partition)).await;
    let _later = shop.user(0).await;
    let (position, event_id) = last_event(&shop, "balances", None).await;
    let payload = json!({
        "order_id": order_id, "user_id": user.id, "charge_id": charge_id(order_id, 1), "charge_number": 1,
        "amount": 2_000, "method": "CARD",
    });
    let headers = [
        (headers::ID, event_id.to_string()),
        (headers::TYPE, "payment.completed".to_owned()),
        (headers::SOURCE, "/ordermill/payments".to_owned()),
        (headers::SPEC_VERSION, "1.0".to_owned()),
        (headers::TIME, "2026-01-01T00:00:00Z".to_owned()),
        (headers::SUBJECT, order_id.to_string()),
        (headers::DATA_SCHEMA, "urn:ordermill:schema:payment.completed:1".to_owned()),
        (headers::SEQUENCE, "2".to_owned()),
        (headers::CORRELATION, order_id.to_string()),
        (headers::ACTOR, "gateway".to_owned()),
        (headers::LABEL, format!("1-{position}")),
        (headers::PREVIOUS, format!("1-{last}")),
    ];
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
    let kafka = &shop.connections.kafka;
    let producer: BaseProducer = kafka.client().create().unwrap();
    let (topic, key, payload) = (kafka.full_name("payments"), order_id.to_string(), payload.to_string());
    let record =
        BaseRecord::to(&topic).partition(i32::from(partition)).key(&key).payload(&payload).headers(headers);
    producer.send(record).unwrap();
    producer.flush(DEADLINE).unwrap();

    let order = shop.settled(order_id).await;
    assert_eq!(order["status"], "REJECTED", "{order}");
    assert_eq!(shop.stock(lamp).await, 5, "goods were given away");
    shop.until_quiet().await;
    running.stop().await;
    shop.assert_verified().await;
}
