//! What consumers make of what they read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::handlers::Recorder;
use crate::support::{Log, PARTITIONS, until};

/// Keys are applied in order, each event once.
pub(crate) async fn assert_applied(log: &Log, count: i64) {
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

pub(crate) async fn append_many(log: &Log, keys: &[Uuid], from: i64, to: i64) {
    for ordinal in from..=to {
        for key in keys {
            log.append(*key, ordinal).await;
        }
    }
}

pub(crate) fn keys(count: usize) -> Vec<Uuid> {
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
             tip_era = 1, tip_position = (SELECT max(position) FROM event_log), tip_offset = next_offset + 1
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
