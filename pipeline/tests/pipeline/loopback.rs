//! Records that loop back from the relay to the workers of its process.

use std::sync::Arc;

use ordermill_pipeline::metrics::GroupLabel;
use ordermill_pipeline::partition::partition_of;
use ordermill_schemas::headers;
use uuid::Uuid;

use crate::attacker::{Attacker, Captured};
use crate::consumer::assert_applied;
use crate::handlers::Recorder;
use crate::support::{Log, PARTITIONS, Running, until};

/// A relay and a worker of one process, and one partition of their topic.
struct Process {
    log: Log,
    relay: Running,
    consumer: Running,
    appended: i64,
}

const PARTITION: i16 = 1;

/// A key whose events go to the partition.
fn key() -> Uuid {
    let all = std::iter::repeat_with(Uuid::new_v4);
    all.into_iter().find(|key| partition_of(*key, PARTITIONS) == PARTITION).unwrap()
}

impl Process {
    /// Whose worker is handed what the relay publishes.
    async fn new() -> Process {
        let log = Log::new().await;
        log.make_topics().await;
        let (relay, consumer) = (log.relay(), log.consumer(Arc::<Recorder>::default()));
        let mut process = Process { log, relay, consumer, appended: 0 };
        // The first ones are fetched.
        until("a record loops back", async || {
            process.append().await;
            process.looped_back() > 0
        })
        .await;
        process
    }

    /// Appends an event, and waits until it is applied.
    async fn append(&mut self) {
        self.appended += 1;
        self.log.append(key(), 1).await;
        self.log.until_applied(self.appended).await;
    }

    /// Appends events of one key.
    async fn append_some(&mut self) {
        let key = key();
        for ordinal in 1..=9 {
            self.log.append(key, ordinal).await;
        }
        self.appended += 9;
    }

    fn looped_back(&self) -> u64 {
        let group = GroupLabel { group: "recorder".to_owned() };
        self.log.metrics.looped_back.get_or_create(&group).get()
    }

    fn retries(&self) -> u64 {
        let group = GroupLabel { group: "recorder".to_owned() };
        self.log.metrics.retries.get_or_create(&group).get()
    }

    async fn letters(&self) -> i64 {
        self.log.count("SELECT count(*) FROM dead_letter").await
    }

    async fn stop(self) {
        self.consumer.stop().await;
        self.relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_beside_the_relay_is_handed_what_it_publishes() {
    let mut process = Process::new().await;
    let before = process.looped_back();
    process.append_some().await;
    assert_applied(&process.log, process.appended).await;
    assert!(process.looped_back() > before);
    // What Kafka holds is no other than what was applied, and each offset is stored.
    let records = process.log.records().await;
    assert_eq!(i64::try_from(records.len()).unwrap(), process.appended);
    until("the offset is stored", async || {
        let next = "SELECT max(next_offset) FROM consumer_offset WHERE group_name = 'recorder'";
        process.log.count(next).await == process.appended
    })
    .await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_between_what_loops_back_is_put_aside_in_its_turn() {
    let mut process = Process::new().await;
    let attacker = Attacker::of(&process.log);
    attacker.send("balances", &[Captured::junk(PARTITION.into())]);
    process.append().await;
    until("it is a dead letter", async || process.letters().await == 1).await;
    // And what lies at the end, with nothing of the relay's behind it.
    attacker.send("balances", &[Captured::junk(PARTITION.into())]);
    until("it is a dead letter", async || process.letters().await == 2).await;
    until("records loop back again", async || {
        let before = process.looped_back();
        process.append().await;
        process.looped_back() > before
    })
    .await;
    assert_applied(&process.log, process.appended).await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_looped_back_and_can_not_be_applied_becomes_a_dead_letter_as_it_lies_in_kafka() {
    let mut process = Process::new().await;
    // Breaks a rule of the database.
    let key = key();
    process.log.append(key, 13).await;
    until("it is a dead letter", async || process.letters().await == 1).await;
    let signed = format!(
        "SELECT count(*) FROM dead_letter, jsonb_array_elements(headers) AS h
         WHERE h->>'name' = '{}' AND code = 'RULE' AND payload IS NOT NULL",
        headers::MAC
    );
    assert_eq!(process.log.count(&signed).await, 1);
    // What comes behind it waits, and other keys do not.
    process.log.append(key, 14).await;
    until("it waits", async || process.letters().await == 2).await;
    process.append().await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fails_for_a_while_is_fetched_and_applied_in_its_place() {
    let mut process = Process::new().await;
    sqlx::query("ALTER TABLE applied RENAME TO applied_elsewhere").execute(&process.log.pool).await.unwrap();
    process.append_some().await;
    process.log.until_published().await;
    until("it was tried", async || process.retries() > 0).await;
    sqlx::query("ALTER TABLE applied_elsewhere RENAME TO applied").execute(&process.log.pool).await.unwrap();
    assert_applied(&process.log, process.appended).await;
    process.append().await;
    assert_eq!(process.letters().await, 0);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_another_process_leads_its_records_are_fetched() {
    let process = Process::new().await;
    let Process { log, relay, consumer, appended } = process;
    relay.stop().await;
    let elsewhere = Log::on(&log.url, log.kafka.clone()).await;
    elsewhere.kafka.keyring.open(&elsewhere.pool).await.unwrap();
    let relay = elsewhere.relay();
    log.append(key(), 1).await;
    assert_applied(&log, appended + 1).await;
    consumer.stop().await;
    relay.stop().await;
}
