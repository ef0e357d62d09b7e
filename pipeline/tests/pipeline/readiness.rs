//! What of relay and workers is told not to be ready, and that it is told to be ready again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ordermill_pipeline::readiness::{self, Expected, Judge, RELAY, Trouble, worker_role};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::handlers::Recorder;
use crate::support::{Log, until};

/// Looks at a log's relay and recorders again and again, as an API does.
pub(crate) struct Lookout<'a> {
    log: &'a Log,
    expected: Expected,
    judge: Judge,
}

impl<'a> Lookout<'a> {
    pub(crate) fn new(log: &'a Log) -> Lookout<'a> {
        let roles = vec![RELAY.to_owned(), worker_role("recorder")];
        let groups = vec![("recorder".to_owned(), vec!["balances".to_owned()])];
        Lookout { log, expected: Expected { roles, groups }, judge: Judge::default() }
    }

    pub(crate) async fn look(&mut self) -> Vec<Trouble> {
        let sight = readiness::look(&self.log.pool, &self.expected).await.unwrap();
        self.judge.judge(&sight, &self.expected, Instant::now())
    }

    /// Waits until a role is told to be in that trouble. Answers what is told of it.
    pub(crate) async fn until_told(&mut self, role: &str, code: &str) -> String {
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

    pub(crate) async fn until_ready(&mut self) {
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
    assert!(detail.starts_with("a batch fails and is tried again, for 1"), "{detail}");
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
