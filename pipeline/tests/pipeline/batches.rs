//! A consumer's batch: conflicts are decided anew, what was tampered with is not committed, and how often it asks the
//! database.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ordermill_pipeline::consumer::FloodLimit;
use ordermill_pipeline::metrics::GroupLabel;
use sqlx::AssertSqlSafe;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::handlers::{Bystander, Recorder, answering_key};
use crate::round_trips::Counting;
use crate::support::{Log, Running, until};

/// A consumer whose first decisions wait, so that others come between a load and its write.
struct Held {
    log: Log,
    recorder: Arc<Recorder>,
    relay: Running,
    consumer: Running,
}

impl Held {
    async fn new() -> Held {
        let log = Log::new().await;
        let gate = Some(Semaphore::new(0));
        let recorder = Arc::new(Recorder { gate, answers: true, ..Recorder::default() });
        let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
        Held { log, recorder, relay, consumer }
    }

    fn let_go(&self, decisions: usize) {
        self.recorder.gate.as_ref().unwrap().add_permits(decisions);
    }

    async fn until_decisions(&self, count: usize) {
        until("it is decided", async || self.recorder.decisions.load(Ordering::SeqCst) >= count).await;
        assert_eq!(self.recorder.decisions.load(Ordering::SeqCst), count);
    }

    async fn retries(&self) -> u64 {
        let group = GroupLabel { group: "recorder".to_owned() };
        self.log.metrics.retries.get_or_create(&group).get()
    }

    /// Waits until `key` has its only event applied, and the key that answers has the answer; each once.
    async fn stop_with_one_effect(self, key: Uuid) {
        let log = &self.log;
        log.until_applied_of(key, &[1]).await;
        log.until_applied_of(answering_key(key), &[101]).await;
        log.until_published().await;
        self.consumer.stop().await;
        self.relay.stop().await;
        assert_eq!(log.count("SELECT count(*) FROM event_log").await, 2, "the event and its answer");
        assert_eq!(log.count("SELECT count(*) FROM dead_letter").await, 0);
        assert_eq!(log.applied_of(key).await, [1]);
    }
}

async fn assert_nothing_committed(log: &Log) {
    for (what, expected) in [("recorded", 0), ("applied", 0), ("event_log", 1), ("dead_letter", 0)] {
        assert_eq!(log.count(&format!("SELECT count(*) FROM {what}")).await, expected, "{what}");
    }
    let moved = "SELECT count(*) FROM consumer_offset WHERE next_offset > 0 OR label_position > 0";
    assert_eq!(log.count(moved).await, 0, "an offset has been moved");
}

const RAISE_EPOCHS: &str = "UPDATE consumer_offset SET epoch = epoch + 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_meets_a_row_which_was_not_there_when_it_was_loaded_is_decided_anew() {
    let held = Held::new().await;
    let key = Uuid::new_v4();
    held.log.append(key, 1).await;
    held.until_decisions(1).await;
    sqlx::query("INSERT INTO recorded VALUES ($1, 1, '[]')").bind(key).execute(&held.log.pool).await.unwrap();
    held.let_go(1);
    held.until_decisions(2).await;
    held.let_go(100);
    held.log.until_applied(2).await;
    let version = "SELECT version FROM recorded WHERE key = $1";
    let version: i32 = sqlx::query_scalar(version).bind(key).fetch_one(&held.log.pool).await.unwrap();
    assert_eq!((version, held.retries().await), (2, 0), "a conflict waits for nothing");
    held.stop_with_one_effect(key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_key_another_takes_meanwhile_is_decided_anew() {
    let held = Held::new().await;
    let key = Uuid::new_v4();
    held.log.append(key, 1).await;
    held.until_decisions(1).await;
    let mut other = held.log.journal.begin().await.unwrap();
    sqlx::query("INSERT INTO recorded VALUES ($1, 1, '[]')").bind(key).execute(&mut *other).await.unwrap();
    held.let_go(1);
    held.log.until_waiting_for_locks(1).await;
    other.commit().await.unwrap();
    held.until_decisions(2).await;
    held.let_go(100);
    held.stop_with_one_effect(key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_no_interest_is_passed_over_undecided_and_the_offset_follows_and_what_is_broken_is_put_aside()
 {
    let log = Log::new().await;
    let limit = FloodLimit { share_max: 1.0, ..FloodLimit::default() };
    let (relay, consumer) = (log.relay(), log.consumer_of(Arc::new(Bystander), limit));
    let done = async || log.count("SELECT coalesce(sum(next_offset), 0)::bigint FROM consumer_offset").await;
    let key = Uuid::new_v4();
    for available in 1..=3 {
        log.append(key, available).await;
    }
    until("the offset follows", async || done().await == 3).await;
    assert_eq!(log.count("SELECT count(*) FROM dead_letter").await, 0);
    log.append_spoilt(key, |entry| entry.data = b"{not JSON".to_vec()).await;
    log.append(key, 5).await;
    until("the broken one is put aside and the one behind it waits", async || {
        log.count("SELECT count(*) FROM dead_letter").await == 2
    })
    .await;
    assert_eq!(done().await, 5);
    assert_eq!(log.count("SELECT count(*) FROM dead_letter WHERE state = 'WAITING'").await, 1);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_with_a_wrong_version_nothing_is_committed_and_it_is_never_a_dead_letter() {
    let log = Log::new().await;
    let recorder = Arc::new(Recorder { answers: true, ..Recorder::default() });
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    let key = Uuid::new_v4();
    log.append(key, 1).await;
    log.until_applied(2).await;
    log.until_published().await;
    let stands = async || {
        let stands = "SELECT jsonb_build_array(
            (SELECT jsonb_agg(r ORDER BY key) FROM recorded r), (SELECT jsonb_agg(a ORDER BY ordinal) FROM applied a),
            (SELECT jsonb_agg(o ORDER BY partition) FROM consumer_offset o),
            (SELECT count(*) FROM event_log WHERE cause_id IS NOT NULL), (SELECT count(*) FROM dead_letter))";
        sqlx::query_scalar::<_, serde_json::Value>(stands).fetch_one(&log.pool).await.unwrap()
    };
    let before = stands().await;
    recorder.lies.store(usize::MAX, Ordering::SeqCst);
    log.append(key, 2).await;
    let retries = log.metrics.retries.get_or_create(&GroupLabel { group: "recorder".to_owned() }).clone();
    until("it is put off", async || retries.get() > 1).await;
    // Each time the batch was put off, it had been decided anew at once before, often.
    assert!(recorder.decisions.load(Ordering::SeqCst) > 40);
    assert_eq!(stands().await, before);
    recorder.lies.store(0, Ordering::SeqCst);
    log.until_applied_of(key, &[1, 2]).await;
    log.until_applied_of(answering_key(key), &[101, 102]).await;
    assert_eq!(log.count("SELECT count(*) FROM dead_letter").await, 0);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_whose_epoch_passes_after_its_load_nothing_is_committed() {
    let held = Held::new().await;
    let key = Uuid::new_v4();
    held.log.append(key, 1).await;
    held.until_decisions(1).await;
    sqlx::query(RAISE_EPOCHS).execute(&held.log.pool).await.unwrap();
    held.let_go(1);
    held.until_decisions(2).await;
    assert_nothing_committed(&held.log).await;
    held.let_go(100);
    held.stop_with_one_effect(key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_whose_epoch_passes_while_its_write_waits_for_the_offset_nothing_is_committed() {
    let held = Held::new().await;
    let key = Uuid::new_v4();
    held.log.append(key, 1).await;
    held.until_decisions(1).await;
    let mut other = held.log.journal.begin().await.unwrap();
    sqlx::query("SELECT FROM consumer_offset FOR UPDATE").fetch_all(&mut *other).await.unwrap();
    held.let_go(1);
    held.log.until_waiting_for_locks(1).await;
    sqlx::query(RAISE_EPOCHS).execute(&mut *other).await.unwrap();
    other.commit().await.unwrap();
    held.until_decisions(2).await;
    assert_nothing_committed(&held.log).await;
    held.let_go(100);
    held.stop_with_one_effect(key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_whose_epoch_passes_while_its_load_waits_nothing_is_committed() {
    let held = Held::new().await;
    let (earlier, key) = (Uuid::new_v4(), Uuid::new_v4());
    sqlx::query("INSERT INTO recorded VALUES ($1, 1, '[]')").bind(key).execute(&held.log.pool).await.unwrap();
    // While a batch is being decided, the next one comes to lie in Kafka: no relay publishes past an open transaction.
    held.log.append(earlier, 100).await;
    held.until_decisions(1).await;
    held.log.append(key, 1).await;
    held.log.until_published().await;
    let mut other = held.log.journal.begin().await.unwrap();
    sqlx::query("SELECT FROM recorded FOR UPDATE").fetch_all(&mut *other).await.unwrap();
    held.let_go(1);
    held.log.until_waiting_for_locks(1).await;
    assert_eq!(held.log.applied_of(earlier).await, [100]);
    sqlx::query(RAISE_EPOCHS).execute(&held.log.pool).await.unwrap();
    other.rollback().await.unwrap();
    held.let_go(1);
    held.until_decisions(3).await;
    let untouched = "SELECT count(*) FROM recorded WHERE state = '[]' AND version = 1";
    assert_eq!(held.log.count(untouched).await, 1);
    assert_eq!(held.log.count("SELECT count(*) FROM applied").await, 1);
    assert_eq!(held.log.count("SELECT count(*) FROM event_log").await, 2);
    assert_eq!(held.log.count("SELECT sum(next_offset)::bigint FROM consumer_offset").await, 1);
    held.let_go(100);
    held.log.until_applied_of(key, &[1]).await;
    held.log.until_applied_of(answering_key(key), &[101]).await;
    held.consumer.stop().await;
    held.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_round_trip_and_where_rows_must_be_loaded_four_begin_load_write_and_commit() {
    let log = Log::new().await;
    let counting = Counting::before(&log.url).await;
    let counted = Log::on(&counting.url, log.kafka.clone()).await;
    let (relay, consumer) = (log.relay(), counted.consumer(Arc::default()));
    // Each connection prepares each statement once; from then on a transaction is counted as it is.
    let prepared = async || {
        let connections = counting.transactions();
        connections.iter().flat_map(|connection| connection.iter().skip(2)).copied().collect::<Vec<_>>()
    };
    let mut key = Uuid::new_v4();
    while prepared().await.len() < 6 {
        key = Uuid::new_v4();
        log.append(key, 1).await;
        log.until_applied_of(key, &[1]).await;
    }
    let round_trips = prepared().await;
    assert!(round_trips.iter().all(|count| *count == 4), "{:?}", counting.transactions());
    // What this process has written it need not load.
    for available in 2..=10 {
        log.append(key, available).await;
        log.until_applied_of(key, &(1..=available).collect::<Vec<_>>()).await;
    }
    assert_eq!(prepared().await, round_trips, "a transaction was begun");
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_has_written_since_is_loaded() {
    let log = Log::new().await;
    let recorder = Arc::new(Recorder { answers: true, ..Recorder::default() });
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    let key = Uuid::new_v4();
    log.append(key, 1).await;
    log.until_applied_of(answering_key(key), &[101]).await;
    let (event, mut answered) = (Uuid::new_v4(), vec![101]);
    for (change, version) in [("version = version + 1, ", 3), ("", 4)] {
        // The one writes as we do; the other, a hand, forgets the version, but the row lies elsewhere then.
        let state = serde_json::json!([event]);
        let update = format!("UPDATE recorded SET {change}state = $2 WHERE key = $1");
        sqlx::query(AssertSqlSafe(update)).bind(key).bind(&state).execute(&log.pool).await.unwrap();
        log.append(key, i64::from(version)).await;
        answered.push(100 + i64::from(version));
        log.until_applied_of(answering_key(key), &answered).await;
        let row: (i32, serde_json::Value) =
            sqlx::query_as("SELECT version, state FROM recorded WHERE key = $1")
                .bind(key)
                .fetch_one(&log.pool)
                .await
                .unwrap();
        assert_eq!((row.0, &row.1[0], row.1.as_array().unwrap().len()), (version, &state[0], 2));
    }
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_from_memory_writes_nothing_once_its_group_has_stopped_or_a_key_is_parked() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let key = Uuid::new_v4();
    log.append(key, 1).await;
    log.append(key, 2).await;
    log.until_applied_of(key, &[1, 2]).await;
    let halt =
        "INSERT INTO halted_group (group_name, halted_at, reason) VALUES ('recorder', now(), 'a test')";
    sqlx::query(halt).execute(&log.pool).await.unwrap();
    log.append(key, 3).await;
    log.until_published().await;
    let offsets = async || log.count("SELECT sum(next_offset)::bigint FROM consumer_offset").await;
    // The halt is looked at again and again; nothing is applied meanwhile.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!((offsets().await, log.applied_of(key).await), (2, vec![1, 2]));
    sqlx::query("UPDATE halted_group SET resumed_at = now()").execute(&log.pool).await.unwrap();
    log.until_applied_of(key, &[1, 2, 3]).await;
    // A key that is parked by hand, as a replayer in another process leaves it.
    log.append_spoilt(key, |entry| entry.data = b"{not JSON".to_vec()).await;
    log.append(key, 5).await;
    until("what comes behind it waits", async || {
        log.count("SELECT count(*) FROM dead_letter WHERE state = 'WAITING'").await == 1
    })
    .await;
    assert_eq!(log.applied_of(key).await, [1, 2, 3]);
    consumer.stop().await;
    relay.stop().await;
}
