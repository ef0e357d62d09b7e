//! Journals over connections of their own, of which readers have others than whoever decides.

use ordermill_pipeline::database;
use ordermill_pipeline::journal::{Journal, JournalError, Keys, Loaded, Table, Writes};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{Log, entry};

/// What is told here is about no row.
const NO_TABLES: &[Table] = &[];

async fn pool(log: &Log, connections_max: u32) -> PgPool {
    database::connect(&log.url, "share", connections_max).await.unwrap()
}

/// Tells the log of something new.
async fn decide(journal: &Journal) {
    let entry = entry(Uuid::new_v4(), 1, 1);
    let decide = |_: &Loaded, _| {
        Ok::<_, JournalError>((Writes { entries: vec![entry.clone()], ..Writes::default() }, ()))
    };
    journal.decide(NO_TABLES, &Keys::default(), decide).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_decides_waits_for_nobody_who_reads() {
    let log = Log::new().await;
    let (reading, deciding) = (pool(&log, 1).await, pool(&log, 1).await);
    let journal = log.journal.over(reading.clone(), &deciding);
    let reader = reading.acquire().await.unwrap();
    decide(&journal).await;
    journal.begin().await.unwrap().rollback().await.unwrap();
    decide(&journal).await;
    drop(reader);
    assert_eq!(log.count("SELECT count(*) FROM event_log").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_rests_at_hand_is_there_for_a_transaction_that_finds_no_other() {
    let log = Log::new().await;
    let (reading, deciding) = (pool(&log, 1).await, pool(&log, 2).await);
    let journal = log.journal.over(reading, &deciding);
    decide(&journal).await;
    // The one that has served rests; another is opened, and then there is no third.
    let first = journal.begin().await.unwrap();
    assert!(database::is_spent(&deciding));
    let second = journal.begin().await.unwrap();
    for transaction in [first, second] {
        transaction.rollback().await.unwrap();
    }
}
