//! The log against Kafka, as a partition looks after losses and repeats.

use std::sync::Arc;

use ordermill_pipeline::audit::{Check, log_against_kafka};
use ordermill_pipeline::label::Label;
use ordermill_schemas::{Topic, headers};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use uuid::Uuid;

use crate::support::{DEADLINE, Log, end_of, first_of, until};

async fn audit(log: &Log) -> Check {
    log_against_kafka::<Topic>(&log.pool, &log.kafka).await.unwrap()
}

/// Moves the relay's cursor, as if it had published everything up to there.
async fn move_cursor(log: &Log, position: i64) {
    sqlx::query("UPDATE relay_cursor SET position = $1").bind(position).execute(&log.pool).await.unwrap();
}

/// A record of the log's row at `position`, which says that the row before it came before it.
fn record<'a>(topic: &'a str, partition: i16, position: i64, event_id: &str) -> BaseRecord<'a, [u8], [u8]> {
    let label = |position| Label { era: 1, position }.to_string();
    let (label, previous) = (label(position), label(position - 1));
    let headers = OwnedHeaders::new()
        // A relay takes what is not the log's event for a future that was lost.
        .insert(Header { key: headers::ID, value: Some(event_id) })
        .insert(Header { key: headers::TYPE, value: Some("balance.charged") })
        .insert(Header { key: headers::DATA_SCHEMA, value: Some("urn:ordermill:schema:balance.charged:1") })
        .insert(Header { key: headers::TIME, value: Some("2026-01-01T00:00:00Z") })
        .insert(Header { key: headers::SEQUENCE, value: Some("1") })
        .insert(Header { key: headers::LABEL, value: Some(&label) })
        .insert(Header { key: headers::PREVIOUS, value: Some(&previous) });
    BaseRecord::to(topic).partition(i32::from(partition)).headers(headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_lie_behind_higher_ones_are_found_and_without_them_every_row_is_missing() {
    let log = Log::new().await;
    let key = Uuid::new_v4();
    for number in 0..20 {
        log.append(key, number).await;
    }
    let partition: i16 =
        sqlx::query_scalar("SELECT DISTINCT partition FROM event_log").fetch_one(&log.pool).await.unwrap();
    log.make_topics().await;
    // As a partition looks whose beginning was lost: it goes on in the middle.
    let producer: BaseProducer = log.kafka.client().create().unwrap();
    let topic = log.kafka.full_name(Topic::Balances.name());
    for position in (11..=20).map(first_of) {
        let event_id: Uuid = sqlx::query_scalar("SELECT event_id FROM event_log WHERE position = $1")
            .bind(position)
            .fetch_one(&log.pool)
            .await
            .unwrap();
        producer.send(record(&topic, partition, position, &event_id.to_string())).unwrap();
    }
    producer.flush(DEADLINE).unwrap();
    move_cursor(&log, end_of(20)).await;
    let check = audit(&log).await;
    assert_eq!(check.violation_count, 20 + 1, "each row, and where consumers stop: {:?}", check.violations);
    assert!(
        check.violations.iter().any(|text| text.contains("consumers stop at the beginning")),
        "{check:?}"
    );
    move_cursor(&log, 0).await;
    let relay = log.relay();
    log.until_published().await;
    relay.stop().await;
    let check = audit(&log).await;
    assert!(check.ok, "{:?}", check.violations);
    assert_eq!((check.checked, check.note.as_deref()), (20, Some("10 records sent again")));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_dead_letters_are_compared_in_every_byte() {
    let log = Log::new().await;
    let relay = log.relay();
    log.append(Uuid::new_v4(), 1).await;
    log.until_published().await;
    let producer: BaseProducer = log.kafka.client().create().unwrap();
    let topic = log.kafka.full_name(Topic::Balances.name());
    let payload = vec![0xff; 1_000];
    let foreign = || BaseRecord::<[u8], [u8]>::to(&topic).partition(0);
    for record in [
        foreign().key(b"\xff\0".as_slice()).payload(&payload),
        foreign().payload(b"no key".as_slice()),
        foreign().key(b"no payload".as_slice()),
    ] {
        producer.send(record).unwrap();
    }
    producer.flush(DEADLINE).unwrap();
    let consumer = log.consumer(Arc::default());
    until("all are dead letters", async || log.count("SELECT count(*) FROM dead_letter").await == 3).await;
    log.until_published().await;
    consumer.stop().await;
    relay.stop().await;
    let check = audit(&log).await;
    assert!(check.ok, "{:?}", check.violations);
    assert_eq!((check.checked, check.note.as_deref()), (4, Some("3 foreign records")));
}
