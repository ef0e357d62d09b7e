//! What lies behind the relay's last records is not the relay's: junk, control records, an open transaction.

use std::time::Duration;

use ordermill_pipeline::audit;
use ordermill_pipeline::relay::Adoption;
use ordermill_schemas::Topic;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use uuid::Uuid;

use crate::support::{DEADLINE, Log, PARTITIONS};

/// So many that no look at the last few records of a partition would find one of ours.
const JUNK: usize = 40;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A log of some events, all of them in Kafka, and no relay.
async fn published() -> Log {
    let log = Log::new().await;
    let relay = log.relay();
    for _ in 0..24 {
        log.append(Uuid::new_v4(), 1).await;
    }
    log.until_published().await;
    relay.stop().await;
    log
}

/// Sends to each partition of the topic what nobody of ours has written.
fn send_junk(producer: &BaseProducer, log: &Log, count: usize) {
    let topic = log.kafka.full_name("balances");
    for partition in 0..i32::from(PARTITIONS) {
        for _ in 0..count {
            let record = BaseRecord::to(&topic).partition(partition).key("junk").payload("junk");
            producer.send(record).unwrap();
        }
    }
    producer.flush(DEADLINE).unwrap();
}

/// A producer with a transaction under way.
fn in_a_transaction(log: &Log) -> BaseProducer {
    let id = log.kafka.full_name("a-foreign-transaction");
    let producer: BaseProducer = log.kafka.client().set("transactional.id", id).create().unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    producer
}

/// Another relay leads, looks some times, publishes what is new, and nothing again; and an adoption finds nothing wrong.
async fn assert_unharmed(log: &Log) {
    let relay = log.relay_that_looks(LOOK_EVERY);
    log.append(Uuid::new_v4(), 1).await;
    log.until_published().await;
    // That nothing is done shows only after some time.
    tokio::time::sleep(LOOK_EVERY * 8).await;
    relay.stop().await;
    assert_eq!(log.metrics.relay_repeats.get(), 0);
    let check = audit::log_against_kafka::<Topic>(&log.pool, &log.kafka).await.unwrap();
    assert!(check.ok, "{:#?}", check.violations);
    let note = check.note.unwrap_or_default();
    assert!(!note.contains("sent again"), "{note}");
    let adoption = Adoption::look(&log.pool, &log.kafka, &Log::groups(), None).await.unwrap();
    assert_eq!(adoption.reason, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_at_the_end_of_each_partition_makes_the_relay_publish_nothing_again() {
    let log = published().await;
    send_junk(&log.kafka.client().create().unwrap(), &log, JUNK);
    assert_unharmed(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_leads_where_the_control_record_of_a_transaction_is_the_end_of_a_partition() {
    let log = published().await;
    let producer = in_a_transaction(&log);
    send_junk(&producer, &log, 1);
    producer.commit_transaction(DEADLINE).unwrap();
    assert_unharmed(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_leads_while_a_transaction_of_others_is_open() {
    let log = published().await;
    let producer = in_a_transaction(&log);
    send_junk(&producer, &log, JUNK);
    assert_unharmed(&log).await;
    producer.abort_transaction(DEADLINE).unwrap();
}
