//! What of relay and workers is told not to be ready, and that it is told to be ready again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ordermill_pipeline::audit;
use ordermill_pipeline::metrics::GroupLabel;
use ordermill_pipeline::readiness::{self, Expected, Judge, RELAY, Trouble, Waiting, worker_role};
use ordermill_schemas::{Topic, headers};
use ordermill_stack::{Private, TestStack};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::attacker::Captured;
use crate::handlers::Recorder;
use crate::support::{Log, until};
use crate::victim::Victim;

/// The topic of the canaries.
const CANARY: &str = "canary";

/// Looks at a log's relay and recorders again and again, as an API does.
struct Lookout<'a> {
    log: &'a Log,
    expected: Expected,
    judge: Judge,
}

impl<'a> Lookout<'a> {
    fn new(log: &'a Log) -> Lookout<'a> {
        let roles = vec![RELAY.to_owned(), worker_role("recorder")];
        let groups = vec![("recorder".to_owned(), vec!["balances".to_owned()])];
        Lookout { log, expected: Expected { roles, groups }, judge: Judge::default() }
    }

    /// Where something waits.
    async fn waiting(&self) -> Vec<Waiting> {
        readiness::look(&self.log.pool, &self.expected).await.unwrap().waiting
    }

    async fn look(&mut self) -> Vec<Trouble> {
        let sight = readiness::look(&self.log.pool, &self.expected).await.unwrap();
        self.judge.judge(&sight, &self.expected, Instant::now())
    }

    /// Waits until a role is told to be in that trouble. Answers what is told of it.
    async fn until_told(&mut self, role: &str, code: &str) -> String {
        let mut detail = String::new();
        until(&format!("{role} is told to be {code}"), async || {
            let troubles = self.look().await;
            let told = troubles.into_iter().find(|trouble| trouble.role == role && trouble.code == code);
            told.is_some_and(|trouble| {
                detail = trouble.detail;
                true
            })
        })
        .await;
        detail
    }

    async fn until_ready(&mut self) {
        until("all is ready", async || self.look().await.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_batches_fail_is_told_of_until_they_do_not() {
    let log = Log::new().await;
    let recorder = Arc::new(Recorder { failures: usize::MAX.into(), ..Recorder::default() });
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    let mut lookout = Lookout::new(&log);
    lookout.until_ready().await;
    log.append(Uuid::new_v4(), 1).await;
    let detail = lookout.until_told("worker:recorder", "FAILING").await;
    assert!(detail.starts_with("a batch fails and is tried again, for "), "{detail}");
    recorder.failures.store(0, Ordering::SeqCst);
    log.until_applied(1).await;
    lookout.until_ready().await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_hangs_in_a_batch_is_told_to_stand_still_until_it_goes_on() {
    let log = Log::new().await;
    let recorder = Arc::new(Recorder { gate: Some(Semaphore::new(0)), ..Recorder::default() });
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    let mut lookout = Lookout::new(&log);
    lookout.until_ready().await;
    log.append(Uuid::new_v4(), 1).await;
    lookout.until_told("worker:recorder", "STANDS_STILL").await;
    recorder.gate.as_ref().unwrap().add_permits(100);
    log.until_applied(1).await;
    lookout.until_ready().await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_in_a_batch_for_what_cannot_be_applied_comes_round_meanwhile() {
    const LETTERS: usize = 8;
    let log = Log::new().await;
    let recorder = Arc::new(Recorder { gate: Some(Semaphore::new(0)), ..Recorder::default() });
    let (relay, consumer) = (log.relay(), log.consumer(recorder.clone()));
    Lookout::new(&log).until_ready().await;
    for _ in 0..LETTERS {
        log.append(Uuid::new_v4(), 13).await;
    }
    let turned =
        "SELECT (extract(epoch FROM turned_at) * 1000)::bigint FROM heartbeat WHERE role = 'worker:recorder'";
    let waits = "SELECT count(*) FROM heartbeat WHERE role = 'worker:recorder' AND at - turned_at > interval '1 second'";
    for _ in 0..4 {
        until("it waits in a decision", async || log.count(waits).await == 1).await;
        let before = log.count(turned).await;
        // Whatever is tried is decided twice at most: by what is remembered, and by what is loaded.
        recorder.gate.as_ref().unwrap().add_permits(2);
        until("it has come round", async || log.count(turned).await > before + 500).await;
    }
    recorder.gate.as_ref().unwrap().add_permits(100);
    let letters = i64::try_from(LETTERS).unwrap();
    until("all are put aside", async || log.count("SELECT count(*) FROM dead_letter").await == letters).await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_applies_is_seen_although_a_member_says_that_all_is_well() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let mut lookout = Lookout::new(&log);
    lookout.until_ready().await;
    // As if more had been published to a partition than the relay has: nothing of it comes.
    relay.stop().await;
    let ahead = "UPDATE relay_cursor SET tails = jsonb_build_object('balances', '[[900001, null]]'::jsonb)";
    sqlx::query(ahead).execute(&log.pool).await.unwrap();
    lookout.until_told("worker:recorder", "STANDS_STILL").await;
    sqlx::query("UPDATE relay_cursor SET tails = '{}'").execute(&log.pool).await.unwrap();
    let relay = log.relay();
    lookout.until_ready().await;
    consumer.stop().await;
    relay.stop().await;
}

/// Has the cursor say that the last record of the only partition is that one, of an era that has published nothing up to `after`.
async fn publish(log: &Log, last: i64, after: i64) {
    let says = "UPDATE relay_cursor SET published_after = $2,
        tails = jsonb_build_object('balances', jsonb_build_array(jsonb_build_array($1::bigint, null)))";
    sqlx::query(says).bind(last).bind(after).execute(&log.pool).await.unwrap();
}

#[tokio::test]
async fn what_this_era_has_not_published_waits_for_nobody() {
    let log = Log::new().await;
    let lookout = Lookout::new(&log);
    publish(&log, 900_001, 900_000).await;
    assert_eq!(lookout.waiting().await.len(), 1);
    publish(&log, 900_001, 900_001).await;
    assert_eq!(lookout.waiting().await, []);
}

#[tokio::test]
async fn a_group_that_passes_over_what_it_need_not_apply_moves() {
    let log = Log::new().await;
    let lookout = Lookout::new(&log);
    publish(&log, 900_001, 0).await;
    let mut before = lookout.waiting().await;
    for (label, offset) in [(100_001_i64, 1_i64), (100_001, 2), (200_001, 2)] {
        let moves = "INSERT INTO consumer_offset (group_name, topic, partition, label_position, next_offset)
            VALUES ('recorder', 'balances', 0, $1, $2) ON CONFLICT (group_name, topic, partition)
            DO UPDATE SET label_position = excluded.label_position, next_offset = excluded.next_offset";
        sqlx::query(moves).bind(label).bind(offset).execute(&log.pool).await.unwrap();
        let now = lookout.waiting().await;
        assert!(now.len() == 1 && now[0].progress > before[0].progress, "{before:?} {now:?}");
        before = now;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_cannot_have_the_lead_is_told_of_until_it_has_it() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let mut lookout = Lookout::new(&log);
    lookout.until_ready().await;
    let held = "UPDATE relay_cursor SET leader = 'somebody who hangs', epoch = epoch + 1, lease_until = now() + interval '1 hour'";
    sqlx::query(held).execute(&log.pool).await.unwrap();
    let detail = lookout.until_told(RELAY, "NOT_LEADING").await;
    assert!(detail.contains("no relay has led for 1") && detail.contains("relay status"), "{detail}");
    sqlx::query("UPDATE relay_cursor SET lease_until = '-infinity'").execute(&log.pool).await.unwrap();
    lookout.until_ready().await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_refuses_to_lead_is_told_of_with_why() {
    let log = Log::new().await;
    sqlx::query("UPDATE relay_cursor SET adopting = true").execute(&log.pool).await.unwrap();
    let relay = log.relay();
    let mut lookout = Lookout::new(&log);
    until("it says why", async || {
        lookout.until_told(RELAY, "NOT_LEADING").await.contains("run `ordermill relay adopt` again")
    })
    .await;
    sqlx::query("UPDATE relay_cursor SET adopting = false").execute(&log.pool).await.unwrap();
    let consumer = log.consumer(Arc::default());
    lookout.until_ready().await;
    consumer.stop().await;
    relay.stop().await;
}

/// When the recorders have met a canary last, in milliseconds; 0 where they have not.
async fn met_at(log: &Log) -> i64 {
    log.count(
        "SELECT coalesce((extract(epoch FROM max(canary_at)) * 1000)::bigint, 0) FROM heartbeat
         WHERE role = 'worker:recorder'",
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_moves_canaries_are_met_and_they_change_nothing() {
    const HOW_FAR: &str =
        "SELECT coalesce(sum(next_offset * 1000000000 + label_position), 0)::bigint FROM consumer_offset";
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let mut lookout = Lookout::new(&log);
    lookout.until_ready().await;
    log.append(Uuid::new_v4(), 1).await;
    log.until_applied(1).await;
    log.until_published().await;
    // The offset follows within a second.
    until("the offset has followed", async || log.count(HOW_FAR).await > 1_000_000_000).await;
    let (how_far, begin) = (log.count(HOW_FAR).await, met_at(&log).await);
    until("two canaries are met", async || met_at(&log).await > begin + 9_000).await;
    let quiet = "SELECT count(*) FROM heartbeat WHERE role = 'relay' AND quiet_since IS NOT NULL";
    assert_eq!(log.count(quiet).await, 1, "the relay says that it sends them");
    lookout.until_ready().await;
    assert_eq!(log.count(HOW_FAR).await, how_far);
    let label = GroupLabel { group: "recorder".to_owned() };
    assert_eq!(log.metrics.foreign.get_or_create(&label).get(), 0);
    assert_eq!(log.metrics.skipped.get_or_create(&label).get(), 0);
    assert_eq!(log.metrics.relay_records.get(), 1, "canaries are not counted as records");
    let audited = audit::log_against_kafka::<Topic>(&log.pool, &log.kafka).await.unwrap();
    assert!(audited.ok, "{audited:?}");
    until("the relay sends none while something moves", async || {
        log.append(Uuid::new_v4(), 1).await;
        log.count(quiet).await == 0
    })
    .await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_takes_nothing_is_told_of_although_there_is_nothing_to_publish() {
    let kafka = tokio::task::spawn_blocking(Private::kafka).await.unwrap().unwrap();
    let url = TestStack::shared().await.fresh_database().await;
    let log = Log::at(&url, &kafka.brokers(), "quiet.").await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let mut lookout = Lookout::new(&log);
    lookout.until_ready().await;
    kafka.pause();
    // A canary waits in vain, so the relay takes another client, which can't lead.
    let detail = lookout.until_told(RELAY, "NOT_LEADING").await;
    kafka.resume();
    assert!(detail.contains("Kafka"), "{detail}");
    lookout.until_ready().await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_beside_the_canaries_harms_nobody() {
    let victim = Victim::new().await;
    victim.go_on(1).await;
    let met = victim.attacker.capture_of(CANARY, 1).await;
    let far_ahead = met[0].clone().with(headers::LABEL, "1-9000000000000000000");
    let forged = [Captured::junk(0), far_ahead, met[0].clone().without(headers::MAC)];
    let all: Vec<Captured> = (0..50).flat_map(|_| met.iter().chain(&forged).cloned()).collect();
    victim.attacker.send(CANARY, &all);
    let before = met_at(&victim.log).await;
    until("canaries are met all the same", async || met_at(&victim.log).await > before + 9_000).await;
    let label = GroupLabel { group: "recorder".to_owned() };
    assert_eq!(victim.log.metrics.foreign.get_or_create(&label).get(), 0);
    assert_eq!(victim.log.count("SELECT count(*) FROM dead_letter").await, 0);
    victim.go_on(2).await;
    victim.stop_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_canaries_that_is_gone_is_made_again() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let mut lookout = Lookout::new(&log);
    lookout.until_ready().await;
    let topic = log.kafka.full_name(CANARY);
    let admin: AdminClient<DefaultClientContext> = log.kafka.client().create().unwrap();
    let deleted = admin.delete_topics(&[&topic], &AdminOptions::new()).await.unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let deleted_at = met_at(&log).await;
    until("the topic is waited for again", async || met_at(&log).await > deleted_at + 15_000).await;
    let begin = met_at(&log).await;
    until("canaries are met again", async || met_at(&log).await > begin + 9_000).await;
    lookout.until_ready().await;
    log.append(Uuid::new_v4(), 1).await;
    log.until_applied(1).await;
    consumer.stop().await;
    relay.stop().await;
}
