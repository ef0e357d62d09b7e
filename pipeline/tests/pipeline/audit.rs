//! The log against Kafka, as a partition looks after losses and repeats.

use std::sync::Arc;

use ordermill_pipeline::audit::{Check, log_against_kafka};
use ordermill_pipeline::label::Label;
use ordermill_schemas::{Topic, headers};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use uuid::Uuid;

use crate::attacker::{Attacker, Captured, signed};
use crate::support::{DEADLINE, Log, end_of, first_of, until};

async fn audit(log: &Log) -> Check {
    log_against_kafka::<Topic>(&log.pool, &log.kafka).await.unwrap()
}

/// Moves the relay's cursor, as if it had published everything up to there.
async fn move_cursor(log: &Log, position: i64) {
    sqlx::query("UPDATE relay_cursor SET position = $1").bind(position).execute(&log.pool).await.unwrap();
}

/// A record of the log's row at `position`, which says that the row before it came before it.
fn record(partition: i16, position: i64, event_id: &str) -> Captured {
    let label = |position| Label { era: 1, position }.to_string();
    Captured { partition: i32::from(partition), ..Captured::default() }
        // A relay takes what is not the log's event for a future that was lost.
        .with(headers::ID, event_id)
        .with(headers::TYPE, "balance.charged")
        .with(headers::DATA_SCHEMA, "urn:ordermill:schema:balance.charged:1")
        .with(headers::TIME, "2026-01-01T00:00:00Z")
        .with(headers::SEQUENCE, "1")
        .with(headers::LABEL, &label(position))
        .with(headers::PREVIOUS, &label(position - 1))
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
    let keys = log.kafka.keyring.keys();
    let mut records = Vec::new();
    for position in (11..=20).map(first_of) {
        let event_id: Uuid = sqlx::query_scalar("SELECT event_id FROM event_log WHERE position = $1")
            .bind(position)
            .fetch_one(&log.pool)
            .await
            .unwrap();
        let record = record(partition, position, &event_id.to_string());
        records.push(signed(&log, record, keys.signing(1).unwrap()));
    }
    Attacker::of(&log).send(Topic::Balances.name(), &records);
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
