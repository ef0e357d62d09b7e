//! What consumers make of what they read.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ordermill_schemas::headers;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::handlers::Recorder;
use crate::support::{DEADLINE, Log, PARTITIONS, until};

/// Keys are applied in order, each event once.
async fn assert_applied(log: &Log, count: i64) {
    log.until_applied(count).await;
    let mut last: HashMap<Uuid, i64> = HashMap::new();
    let applied = log.applied().await;
    for (key, ordinal) in &applied {
        let before = last.insert(*key, *ordinal).unwrap_or(0);
        assert_eq!(*ordinal, before + 1, "key {key} was applied out of order");
    }
    assert_eq!(i64::try_from(applied.len()).unwrap(), count);
    assert_documents_agree(log).await;
}

/// The documents name what was applied, in the same order.
async fn assert_documents_agree(log: &Log) {
    let differing = log
        .count(
            "SELECT count(*) FROM recorded r FULL JOIN (
                 SELECT key, jsonb_agg(event_id ORDER BY ordinal) AS state FROM applied GROUP BY key) a USING (key)
             WHERE r.state IS DISTINCT FROM a.state",
        )
        .await;
    assert_eq!(differing, 0, "documents that don't tell what was applied");
}

async fn append_many(log: &Log, keys: &[Uuid], from: i64, to: i64) {
    for ordinal in from..=to {
        for key in keys {
            log.append(*key, ordinal).await;
        }
    }
}

fn keys(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::new_v4()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_applied_once_in_the_order_of_its_key() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    append_many(&log, &keys(8), 1, 12).await;
    assert_applied(&log, 96).await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_again_is_not_applied_again() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let keys = keys(5);
    append_many(&log, &keys, 1, 4).await;
    assert_applied(&log, 20).await;
    relay.stop().await;
    sqlx::query("UPDATE relay_cursor SET position = 0, tails = '{}'").execute(&log.pool).await.unwrap();
    let relay = log.relay();
    append_many(&log, &keys, 5, 6).await;
    assert_applied(&log, 30).await;
    consumer.stop().await;
    // A member that begins behind a repeat goes on where the other was.
    let consumer = log.consumer(Arc::default());
    append_many(&log, &keys, 7, 7).await;
    assert_applied(&log, 35).await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_failure_is_tried_again_in_place_and_nothing_overtakes() {
    let log = Log::new().await;
    let recorder = Arc::new(Recorder { failures: 4.into(), ..Recorder::default() });
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    append_many(&log, &keys(3), 1, 10).await;
    assert_applied(&log, 30).await;
    assert_eq!(recorder.failures.load(Ordering::SeqCst), 0);
    assert_eq!(log.count("SELECT count(*) FROM dead_letter").await, 0);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_share_the_partitions_and_repeat_nothing_when_one_leaves() {
    let log = Log::new().await;
    let relay = log.relay();
    let (first, second) = (log.consumer(Arc::default()), log.consumer(Arc::default()));
    let keys = keys(24);
    append_many(&log, &keys, 1, 5).await;
    until("both members own partitions", async || {
        log.count("SELECT count(*) FROM consumer_offset WHERE epoch > 0").await == i64::from(PARTITIONS)
            && log.count("SELECT count(*) FROM heartbeat WHERE role = 'worker:recorder'").await == 2
    })
    .await;
    first.stop().await;
    append_many(&log, &keys, 6, 10).await;
    assert_applied(&log, 240).await;
    second.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_partition_while_it_worked_applies_nothing() {
    let log = Log::new().await;
    let recorder = Arc::new(Recorder { gate: Some(Semaphore::new(0)), ..Recorder::default() });
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    let key = Uuid::new_v4();
    log.append(key, 1).await;
    until("a batch is under way", async || recorder.decisions.load(Ordering::SeqCst) == 1).await;
    // As another member does when it takes the partition over.
    sqlx::query("UPDATE consumer_offset SET epoch = epoch + 1").execute(&log.pool).await.unwrap();
    recorder.gate.as_ref().unwrap().add_permits(1);
    until("the batch comes again", async || recorder.decisions.load(Ordering::SeqCst) == 2).await;
    assert_eq!(log.count("SELECT count(*) FROM applied").await, 0, "a zombie has committed");
    recorder.gate.as_ref().unwrap().add_permits(100);
    assert_applied(&log, 1).await;
    consumer.stop().await;
    relay.stop().await;
}

/// Publishes past the relay.
fn publish(log: &Log, key: &[u8], payload: &[u8], headers: OwnedHeaders) {
    let producer: BaseProducer = log.kafka.client().set("partitioner", "murmur2_random").create().unwrap();
    let topic = log.kafka.full_name("balances");
    producer.send(BaseRecord::to(&topic).key(key).payload(payload).headers(headers)).unwrap();
    producer.flush(DEADLINE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_record_becomes_a_dead_letter_and_the_rest_goes_on() {
    let log = Log::new().await;
    log.make_topics().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let keys = keys(4);
    append_many(&log, &keys, 1, 2).await;
    publish(&log, keys[0].to_string().as_bytes(), b"\xff\x00 not ours", OwnedHeaders::new());
    let lies = OwnedHeaders::new()
        .insert(Header { key: headers::TYPE, value: Some("balance.\0charged") })
        .insert(Header { key: headers::DATA_SCHEMA, value: Some("urn:ordermill:schema:balance.charged:1") });
    publish(&log, keys[1].to_string().as_bytes(), b"{}", lies);
    append_many(&log, &keys, 3, 4).await;
    assert_applied(&log, 16).await;
    until("both are dead letters", async || log.count("SELECT count(*) FROM dead_letter").await == 2).await;
    assert_eq!(log.count("SELECT count(*) FROM dead_letter WHERE code = 'FOREIGN'").await, 2);
    let kept =
        log.count("SELECT count(*) FROM dead_letter WHERE payload = '\\xff00206e6f74206f757273'").await;
    assert_eq!(kept, 1, "the payload is not kept to the byte");
    until("their topic has them", async || {
        log.count("SELECT count(*) FROM event_log, relay_cursor c WHERE topic = 'balances.recorder.dlt' AND event_log.position <= c.position").await == 2
    })
    .await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_record_of_any_size_and_with_a_header_that_can_not_be_read_becomes_a_dead_letter() {
    let log = Log::new().await;
    log.make_topics().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let keys = keys(4);
    // No database can compress it into a row of an index, nor does it fit into a message with such a payload.
    let random: Vec<u8> = (0..4_000).flat_map(|_| *Uuid::new_v4().as_bytes()).collect();
    publish(&log, &random, &vec![b'x'; 900_000], OwnedHeaders::new());
    publish_with_unreadable_header(&log, &keys[1].to_string()).await;
    append_many(&log, &keys, 1, 2).await;
    assert_applied(&log, 8).await;
    let (of_64_kb, foreign) = (
        "SELECT count(*) FROM dead_letter WHERE length(foreign_record_key) = 64000 AND length(payload) = 900000",
        "SELECT count(*) FROM dead_letter WHERE code = 'FOREIGN'",
    );
    until("both are dead letters", async || log.count(foreign).await == 2).await;
    assert_eq!(log.count(of_64_kb).await, 1, "the row keeps all of it");
    log.until_published().await;
    consumer.stop().await;
    relay.stop().await;
    // Nor does it keep the next relay and the next consumer from their work.
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    append_many(&log, &keys, 3, 3).await;
    assert_applied(&log, 12).await;
    consumer.stop().await;
    relay.stop().await;
}

/// Publishes a record as only programs in other languages can: the name of its header is not UTF-8.
async fn publish_with_unreadable_header(log: &Log, key: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{}").unwrap();
    let mut kcat = tokio::process::Command::new("kcat");
    kcat.args(["-P", "-b", &log.kafka.brokers, "-t", &log.kafka.full_name("balances"), "-k", key, "-H"]);
    let ended = kcat.arg(OsStr::from_bytes(b"\xff=any")).arg(file.path()).output().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_breaks_a_rule_is_found_among_many_and_put_aside_alone() {
    let log = Log::new().await;
    let relay = log.relay();
    for ordinal in 1..=200 {
        log.append(Uuid::new_v4(), if ordinal == 77 { 13 } else { 1 }).await;
    }
    log.until_published().await;
    let recorder = Arc::new(Recorder::default());
    let consumer = log.consumer(recorder.clone());
    until("the poison is put aside", async || log.count("SELECT count(*) FROM dead_letter").await == 1).await;
    log.until_applied(199).await;
    assert_eq!(log.count("SELECT count(*) FROM dead_letter WHERE code = 'RULE'").await, 1);
    let decisions = recorder.decisions.load(Ordering::SeqCst);
    assert!(decisions <= 60, "{decisions} decisions to find one poison in 200");
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_misses_records_waits_until_the_relay_has_sent_them_again() {
    let log = Log::new().await;
    let relay = log.relay();
    let key = Uuid::new_v4();
    append_many(&log, &[key], 1, 3).await;
    let consumer = log.consumer(Arc::default());
    log.until_applied(3).await;
    consumer.stop().await;
    // Kafka keeps 4 and 5 from the consumer, as if it had lost them after it had acknowledged them: the offset
    // moves past them, the label does not.
    append_many(&log, &[key], 4, 5).await;
    log.until_published().await;
    sqlx::query(
        "UPDATE consumer_offset SET next_offset = next_offset + 2,
             tip_era = 1, tip_position = (SELECT max(position) FROM event_log)
         WHERE label_position > 0",
    )
    .execute(&log.pool)
    .await
    .unwrap();
    append_many(&log, &[key], 6, 6).await;
    let consumer = log.consumer(Arc::default());
    assert_applied(&log, 6).await;
    assert!(log.metrics.relay_repeats.get() >= 1, "the relay was not asked");
    tokio::time::timeout(Duration::from_secs(30), consumer.stop()).await.unwrap();
    relay.stop().await;
}
