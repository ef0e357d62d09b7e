//! Records of no interest: passed over without a transaction, and no harm is done where a member dies, or gives its
//! partitions up, before the offset has followed.

use std::sync::Arc;
use std::time::Duration;

use ordermill_pipeline::consumer::Handler as _;
use ordermill_pipeline::database;
use uuid::Uuid;

use crate::consumer::keys;
use crate::handlers::Recorder;
use crate::support::{Log, PARTITIONS, until};

/// A recorder to which events below this are nothing.
const INTERESTING: i64 = 1_000;

fn picky() -> Arc<Recorder> {
    Arc::new(Recorder { ignores_below: Some(INTERESTING), ..Recorder::default() })
}

const OFFSETS: &str = "SELECT coalesce(sum(next_offset), 0)::bigint FROM consumer_offset";

/// What was applied of each key is these, in order, and once.
async fn assert_applied_of_each(log: &Log, keys: &[Uuid], availables: &[i64]) {
    for key in keys {
        log.until_applied_of(*key, availables).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_dies_before_the_offset_has_followed_loses_nothing_and_applies_nothing_twice() {
    let log = Log::new().await;
    let relay = log.relay();
    let consumer = log.consumer(picky());
    let keys = keys(12);
    for key in &keys {
        log.append(*key, INTERESTING).await;
    }
    assert_applied_of_each(&log, &keys, &[INTERESTING]).await;
    let offsets = log.count(OFFSETS).await;
    // While somebody holds the rows, no offset can follow, neither after a second nor when the member goes.
    let mut holder = database::begin(&log.pool).await.unwrap();
    sqlx::query("SELECT FROM consumer_offset FOR UPDATE").fetch_all(&mut *holder).await.unwrap();
    for available in 1..=3 {
        for key in &keys {
            log.append(*key, available).await;
        }
    }
    log.until_published().await;
    tokio::time::timeout(Duration::from_secs(30), consumer.stop()).await.unwrap();
    // The server would carry out what a member asked for that is gone.
    log.count(
        "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .await;
    log.until_waiting_for_locks(0).await;
    holder.rollback().await.unwrap();
    assert_eq!(log.count(OFFSETS).await, offsets, "an offset has followed all the same");

    let consumer = log.consumer(picky());
    for key in &keys {
        log.append(*key, INTERESTING + 1).await;
    }
    assert_applied_of_each(&log, &keys, &[INTERESTING, INTERESTING + 1]).await;
    until("the offsets follow", async || log.count(OFFSETS).await == 12 * 5).await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_give_partitions_up_store_what_they_have_passed_over_and_none_is_applied_twice() {
    let log = Log::new().await;
    let relay = log.relay();
    let first = log.consumer(picky());
    let keys = keys(12);
    let mut expected = Vec::new();
    let mut next = async |interesting: bool| {
        let available = i64::try_from(expected.len()).unwrap() + 1;
        let available = if interesting { INTERESTING + available } else { 1 };
        for key in &keys {
            log.append(*key, available).await;
        }
        expected.extend(interesting.then_some(available));
        expected.clone()
    };
    next(true).await;
    log.until_settled(1).await;
    let mut second = None;
    for round in 0..12 {
        next(round % 3 == 0).await;
        match round {
            3 => second = Some(log.consumer(picky())),
            8 => second.take().unwrap().stop().await,
            _ => {}
        }
        if round == 5 {
            log.until_settled(2).await;
        }
    }
    let expected = next(true).await;
    assert_applied_of_each(&log, &keys, &expected).await;
    // Nothing but what is of no interest lies behind: it is stored when the last member goes.
    next(false).await;
    log.until_published().await;
    let records = i64::try_from(log.records().await.len()).unwrap();
    until("the offsets follow", async || log.count(OFFSETS).await == records).await;
    first.stop().await;
    assert_applied_of_each(&log, &keys, &expected).await;
    assert_eq!(log.count("SELECT count(*) FROM consumer_offset").await, i64::from(PARTITIONS));
    assert_eq!(log.count("SELECT count(*) FROM dead_letter").await, 0);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_has_stopped_stores_nothing_of_what_it_passes_over_until_it_goes_on() {
    let log = Log::new().await;
    let relay = log.relay();
    let consumer = log.consumer(picky());
    let key = Uuid::new_v4();
    log.append(key, 1).await;
    until("the offset follows", async || log.count(OFFSETS).await == 1).await;
    sqlx::query("INSERT INTO halted_group (group_name, halted_at, reason) VALUES ($1, now(), 'a test')")
        .bind(Recorder::GROUP)
        .execute(&log.pool)
        .await
        .unwrap();
    log.append(key, 2).await;
    log.until_published().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(log.count(OFFSETS).await, 1);
    sqlx::query("UPDATE halted_group SET resumed_at = now()").execute(&log.pool).await.unwrap();
    until("the offset follows", async || log.count(OFFSETS).await == 2).await;
    consumer.stop().await;
    relay.stop().await;
}
