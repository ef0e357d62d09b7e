//! Who asks the gateway for what the golden payments ask it for: one process alone, for as long as it renews its leases.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use ordermill_store::payments::{self, Intent};
use sqlx::PgPool;
use uuid::Uuid;

use crate::golden::Golden;
use crate::tables::database;

const FIRST: Uuid = Uuid::from_u128(1);
const SECOND: Uuid = Uuid::from_u128(2);

/// A database with the golden payments. Times are seconds since the last of them asked for something; the first did 12 before.
struct Asked {
    pool: PgPool,
    last_at: Timestamp,
    /// The orders, each with the ordinal of what is asked for it.
    all: Vec<(Uuid, i32)>,
}

impl Asked {
    async fn read() -> Asked {
        let pool = database(&Golden::read()).await;
        let last = "SELECT max((state #>> '{asked,at}')::bigint) FROM payments";
        let last: i64 = sqlx::query_scalar(last).fetch_one(&pool).await.unwrap();
        let all = "SELECT key, (state #>> '{asked,sequence}')::int FROM payments WHERE state ? 'asked' ORDER BY key";
        let all: Vec<(Uuid, i32)> = sqlx::query_as(all).fetch_all(&pool).await.unwrap();
        assert_eq!(all.len(), 3);
        Asked { pool, last_at: Timestamp::from_microsecond(last).unwrap(), all }
    }

    fn at(&self, seconds: i64) -> Timestamp {
        self.last_at + SignedDuration::from_secs(seconds)
    }

    /// What a process takes over then.
    async fn taken_over(&self, holder: Uuid, seconds: i64) -> Vec<(Uuid, i32)> {
        let taken = payments::take_over(&self.pool, holder, self.at(seconds), 100).await.unwrap();
        let mut taken: Vec<_> =
            taken.iter().map(|Intent { order_id, sequence, .. }| (*order_id, *sequence)).collect();
        taken.sort_unstable();
        taken
    }

    /// How many of those a process leases anew then.
    async fn renewed(&self, holder: Uuid, asked: &[(Uuid, i32)], seconds: i64) -> usize {
        let kept: HashSet<Uuid> = payments::renew(&self.pool, holder, self.at(seconds), asked).await.unwrap();
        kept.len()
    }
}

#[tokio::test]
async fn whoever_renews_its_lease_asks_alone_and_another_takes_over_once_it_has_run_out() {
    let asked = Asked::read().await;
    assert!(asked.taken_over(SECOND, 0).await.is_empty(), "who was to ask has time for it");
    assert_eq!(asked.taken_over(FIRST, 16).await, asked.all);
    assert!(asked.taken_over(SECOND, 17).await.is_empty());
    assert_eq!(asked.renewed(FIRST, &asked.all, 26).await, 3);
    assert!(asked.taken_over(SECOND, 40).await.is_empty());
    assert_eq!(asked.renewed(SECOND, &asked.all, 40).await, 0);
    assert_eq!(asked.taken_over(SECOND, 42).await, asked.all);
    assert_eq!(asked.renewed(FIRST, &asked.all, 43).await, 0, "it hears that it has lost it");
    assert_eq!(asked.renewed(SECOND, &asked.all, 43).await, 3);
}

#[tokio::test]
async fn whoever_was_to_ask_first_can_renew_what_it_never_took_over() {
    let asked = Asked::read().await;
    assert_eq!(asked.renewed(FIRST, &asked.all, 2).await, 3);
    assert!(asked.taken_over(SECOND, 16).await.is_empty());
    assert_eq!(asked.taken_over(SECOND, 18).await, asked.all);
}

#[tokio::test]
async fn the_lease_of_what_was_asked_before_is_none_of_what_is_asked_now() {
    let asked = Asked::read().await;
    assert_eq!(asked.renewed(FIRST, &asked.all, 2).await, 3);
    let change =
        "UPDATE payments SET state = jsonb_set(state, '{asked,sequence}', '99') WHERE state ? 'asked'";
    sqlx::query(change).execute(&asked.pool).await.unwrap();
    assert_eq!(asked.renewed(FIRST, &asked.all, 3).await, 0, "nobody wants it any more");
    let now: Vec<(Uuid, i32)> = asked.all.iter().map(|(order_id, _)| (*order_id, 99)).collect();
    assert_eq!(asked.renewed(SECOND, &now, 3).await, 3);
    assert_eq!(asked.renewed(FIRST, &now, 4).await, 0);
}

#[tokio::test]
async fn what_a_process_had_leased_is_anybodys_once_it_has_ended() {
    let asked = Asked::read().await;
    assert_eq!(asked.taken_over(FIRST, 16).await, asked.all);
    payments::release(&asked.pool, SECOND).await.unwrap();
    assert!(asked.taken_over(SECOND, 17).await.is_empty(), "it was not its own");
    payments::release(&asked.pool, FIRST).await.unwrap();
    assert_eq!(asked.taken_over(SECOND, 17).await, asked.all);
}
