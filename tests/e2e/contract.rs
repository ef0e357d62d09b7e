//! What is published is what the contract says: headers, keys, schemas.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use ordermill_schemas::documents::schema;
use ordermill_schemas::{CATALOGUE, Topic, headers};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::support::{DEADLINE, Shop};

struct Published {
    topic: Topic,
    key: String,
    headers: HashMap<String, String>,
    payload: Value,
}

fn read_all(shop: &Shop) -> Vec<Published> {
    let kafka = &shop.connections.kafka;
    let mut config = kafka.client();
    config.set("group.id", "contract").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut assignment = TopicPartitionList::new();
    let mut expected = 0;
    for topic in Topic::ALL.iter().copied() {
        let name = kafka.full_name(topic.name());
        let metadata = consumer.fetch_metadata(Some(&name), DEADLINE).unwrap();
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks(&name, partition.id(), DEADLINE).unwrap();
            assignment.add_partition_offset(&name, partition.id(), Offset::Offset(low)).unwrap();
            expected += high - low;
        }
    }
    consumer.assign(&assignment).unwrap();
    let (mut records, started) = (Vec::new(), Instant::now());
    while i64::try_from(records.len()).unwrap() < expected {
        assert!(started.elapsed() < DEADLINE, "{} of {expected} records", records.len());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        records.push(Published {
            topic: Topic::from_name(message.topic().strip_prefix(&kafka.prefix).unwrap()).unwrap(),
            key: text(message.key().unwrap()),
            headers: message
                .headers()
                .unwrap()
                .iter()
                .map(|header| (header.key.to_owned(), text(header.value.unwrap())))
                .collect(),
            payload: serde_json::from_slice(message.payload().unwrap()).unwrap(),
        });
    }
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_a_cloud_event_that_its_schema_accepts() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(20_000).await, shop.product(12_000, 3).await);
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let confirmed = shop.order(&user, &[(lamp, 1)]).await;
    shop.order(&user, &[(lamp, 1)]).await;
    shop.order(&user, &[(lamp, 9)]).await;
    let change = shop.request(reqwest::Method::PATCH, &format!("/products/{lamp}"));
    let (status, _) = crate::support::answer(change.json(&json!({"withdrawn": true}))).await;
    assert_eq!(status, 200);
    let request = shop
        .request(reqwest::Method::POST, &format!("/users/{}/balance/charges", user.id))
        .header("Idempotency-Key", "traced")
        .header("traceparent", traceparent);
    let (status, _) = crate::support::answer(request.json(&json!({"amount": 5}))).await;
    assert_eq!(status, 201);
    shop.until_quiet().await;
    running.stop().await;
    let mut seen = HashSet::new();
    for record in read_all(&shop) {
        let header = |name: &str| record.headers.get(name).map(String::as_str);
        let name = header(headers::TYPE).unwrap();
        let event_type = CATALOGUE.iter().find(|t| t.name == name).unwrap();
        seen.insert(name.to_owned());
        assert_eq!(event_type.topic, record.topic, "{name}");
        assert_eq!(record.payload[event_type.key_field], record.key.as_str(), "{name}");
        assert_eq!(header(headers::SPEC_VERSION), Some("1.0"));
        assert_eq!(header(headers::SOURCE), Some(format!("/ordermill/{}", record.topic).as_str()));
        assert_eq!(header(headers::CONTENT_TYPE), Some("application/json"));
        assert!(header(headers::TIME).unwrap().parse::<jiff::Timestamp>().is_ok());
        for name in [headers::ID, headers::SUBJECT, headers::SEQUENCE, headers::ACTOR, headers::LABEL] {
            assert!(header(name).is_some(), "{name} is missing");
        }
        assert!(header(headers::KEY).unwrap().starts_with("1-1-"));
        assert_eq!(header(headers::MAC).unwrap().len(), 32);
        if let Some(order_id) = record.payload["order_id"].as_str() {
            assert_eq!(header(headers::CORRELATION), Some(order_id));
        }
        if record.payload["amount"] == 5 {
            assert!(header(headers::TRACEPARENT).unwrap().contains("4bf92f3577b34da6a3ce929d0e0e4736"));
        }
        let schema = schema(event_type);
        assert_eq!(header(headers::DATA_SCHEMA), schema["$id"].as_str());
        let validator = jsonschema::validator_for(&schema).unwrap();
        assert!(validator.is_valid(&record.payload), "{name}: {}", record.payload);
    }
    assert!(seen.contains("product.changed"), "{seen:?}");
    assert!(seen.contains("order.confirmed") && seen.contains("order.rejected"), "{confirmed}: {seen:?}");
}
