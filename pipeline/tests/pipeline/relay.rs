//! What the relay publishes, and in which order.

use std::collections::{BTreeMap, HashMap, HashSet};

use ordermill_pipeline::database;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{Log, Published, append_next, first_of, store_next, until};

/// Per key the sequences are 1, 2, 3 …; per partition the labels rise, and each record names the one before it.
fn assert_in_order(records: &[Published]) {
    let mut sequences: HashMap<&str, i32> = HashMap::new();
    let mut labels = HashMap::new();
    for record in records {
        let sequence = sequences.entry(&record.key).or_default();
        assert_eq!(record.sequence, *sequence + 1, "key {} lost its order", record.key);
        *sequence = record.sequence;
        let before = labels.insert(record.partition, record.label);
        assert_eq!(record.previous, before, "{record:?}");
        assert!(before < Some(record.label), "{record:?} after {before:?}");
    }
}

/// The deterministic part of the story: pseudo-random numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_keeps_its_order_and_nothing_is_skipped_while_transactions_commit_out_of_order() {
    let log = Log::new().await;
    let relay = log.relay();
    let mut keys: Vec<Uuid> = (0..12).map(|_| Uuid::new_v4()).collect();
    keys.sort_unstable();
    let writers = (0..8_u64).map(|writer| {
        let (journal, keys) = (log.journal.clone(), keys.clone());
        tokio::spawn(async move {
            let mut dice = Dice(writer * 7_919 + 17);
            for _ in 0..60 {
                let mut transaction = journal.begin().await.unwrap();
                let mut stored = Vec::new();
                // A transaction id early, a position late, and other writers' commits in between.
                if dice.roll(2) == 0 {
                    sqlx::query("SELECT pg_current_xact_id()").execute(&mut *transaction).await.unwrap();
                }
                let (first, count) = (dice.roll(12), 1 + dice.roll(3));
                for key in
                    keys.iter().skip(usize::try_from(first).unwrap()).take(usize::try_from(count).unwrap())
                {
                    stored.push(store_next(&journal, &mut transaction, *key, 0).await);
                    if dice.roll(3) == 0 {
                        sqlx::query("SELECT pg_sleep(0.003)").execute(&mut *transaction).await.unwrap();
                    }
                }
                if dice.roll(5) == 0 {
                    transaction.rollback().await.unwrap();
                } else {
                    transaction.commit().await.unwrap();
                    // Half of the writers are other processes.
                    if writer % 2 == 0 {
                        stored.into_iter().for_each(|stored| journal.committed(stored));
                    }
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    log.until_published().await;
    relay.stop().await;
    let records = log.records().await;
    assert_in_order(&records);
    assert_eq!(log.count("SELECT count(*) FROM event_log").await, i64::try_from(records.len()).unwrap());
}

/// The order of ids is B, C, A; the order of changes of the key is A, B; C stays open, with a number below theirs. A cut by transaction id
/// would take B alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_an_older_transaction_does_not_overtake_while_a_third_is_open() {
    let log = Log::new().await;
    let relay = log.relay();
    let key = Uuid::new_v4();
    let mut b = database::begin(&log.pool).await.unwrap();
    sqlx::query("SELECT pg_current_xact_id()").execute(&mut *b).await.unwrap();
    let mut c = database::begin(&log.pool).await.unwrap();
    append_next(&log.journal, &mut c, Uuid::new_v4(), 0).await;
    let mut a = database::begin(&log.pool).await.unwrap();
    append_next(&log.journal, &mut a, key, 0).await;
    a.commit().await.unwrap();
    append_next(&log.journal, &mut b, key, 0).await;
    b.commit().await.unwrap();
    until("the relay waits for the open transaction", async || log.metrics.relay_fence_wait_ms.get() > 0)
        .await;
    assert_eq!(log.count("SELECT position FROM relay_cursor").await, 0, "published what was not final");
    c.rollback().await.unwrap();
    log.until_published().await;
    relay.stop().await;
    let records = log.records().await;
    assert_eq!(records.len(), 2);
    assert_in_order(&records);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_that_has_drawn_no_number_stops_nothing() {
    let log = Log::new().await;
    let relay = log.relay();
    let mut open = database::begin(&log.pool).await.unwrap();
    sqlx::query("SELECT pg_current_xact_id()").execute(&mut *open).await.unwrap();
    log.append(Uuid::new_v4(), 0).await;
    log.until_published().await;
    open.rollback().await.unwrap();
    relay.stop().await;
}

/// Of what others commit, and of what is not told, nobody says anything.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_tells_of_is_found_by_a_look() {
    let log = Log::new().await;
    let relay = log.relay();
    let key = Uuid::new_v4();
    log.append(key, 0).await;
    log.until_published().await;
    // From now on it is told of everything, but for this.
    log.append_all(key, &[0, 0]).await;
    log.until_published().await;
    relay.stop().await;
    let records = log.records().await;
    assert_eq!(records.len(), 3);
    assert_in_order(&records);
}

/// If it were, the relay would pass over what is written to those positions later.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_log_is_never_told_ahead_of_what_was_drawn() {
    let log = Log::new().await;
    let drawing = CancellationToken::new();
    let draw = "SELECT count(nextval('log_segment_number_seq')) FROM generate_series(1, 50000)";
    let drawers = (0..2).map(|_| {
        let (pool, drawing) = (log.pool.clone(), drawing.clone());
        tokio::spawn(async move {
            while !drawing.is_cancelled() {
                sqlx::query(draw).execute(&pool).await.unwrap();
            }
        })
    });
    let drawers: Vec<_> = drawers.collect();
    // Asked so often that a plain read of the sequence would be ahead some ten times.
    for _ in 0..40 {
        let told_ahead = log
            .count(
                "WITH told AS MATERIALIZED (
                     SELECT event_log_end() AS position, nextval('log_segment_number_seq') AS next
                     FROM generate_series(1, 500))
                 SELECT count(*) FROM told WHERE next <= position / 100000",
            )
            .await;
        assert_eq!(told_ahead, 0);
    }
    drawing.cancel();
    for drawer in drawers {
        drawer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_position_does_not_stop_the_relay() {
    let log = Log::new().await;
    let relay = log.relay();
    let key = Uuid::new_v4();
    log.append(key, 0).await;
    let mut transaction = database::begin(&log.pool).await.unwrap();
    append_next(&log.journal, &mut transaction, key, 0).await;
    transaction.rollback().await.unwrap();
    log.append(key, 0).await;
    log.until_published().await;
    relay.stop().await;
    let positions: HashSet<i64> = log.records().await.iter().map(|record| record.label.position).collect();
    assert_eq!(positions, HashSet::from([first_of(1), first_of(3)]));
}

/// Where Kafka holds an event for the last time, that place is written down.
async fn assert_places(log: &Log) {
    let (mut places, mut counts) = (BTreeMap::new(), HashMap::new());
    for record in log.records().await {
        let offset: &mut i64 = counts.entry(record.partition).or_default();
        places.insert(record.label.position, *offset);
        *offset += 1;
    }
    let written = sqlx::query_as::<_, (i64, i64)>(
        "SELECT number * 100000 + ordinal, lies FROM log_place, unnest(offsets) WITH ORDINALITY AS place (lies, ordinal)",
    );
    assert_eq!(written.fetch_all(&log.pool).await.unwrap().into_iter().collect::<BTreeMap<_, _>>(), places);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_again_has_the_same_labels_and_its_new_place() {
    let log = Log::new().await;
    let relay = log.relay();
    let keys: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    for key in &keys {
        log.append(*key, 0).await;
    }
    log.until_published().await;
    relay.stop().await;
    assert_places(&log).await;
    let once = log.records().await;
    // As if the relay had died after publishing and before it moved its cursor.
    sqlx::query("UPDATE relay_cursor SET position = 0, tails = '{}'").execute(&log.pool).await.unwrap();
    let relay = log.relay();
    log.until_published().await;
    log.append(keys[0], 0).await;
    log.until_published().await;
    relay.stop().await;
    assert_places(&log).await;
    let mut by_partition: BTreeMap<i32, Vec<Published>> = BTreeMap::new();
    for record in log.records().await {
        by_partition.entry(record.partition).or_default().push(record);
    }
    let mut once_by_partition: BTreeMap<i32, Vec<Published>> = BTreeMap::new();
    for record in once {
        once_by_partition.entry(record.partition).or_default().push(record);
    }
    for (partition, first) in once_by_partition {
        let all = &by_partition[&partition];
        assert_eq!(all[..first.len()], first[..]);
        assert_eq!(all[first.len()..first.len() * 2], first[..], "the repetition differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_relays_one_publishes_and_the_other_takes_over_when_it_stops() {
    let log = Log::new().await;
    let (first, second) = (log.relay(), log.relay());
    let key = Uuid::new_v4();
    for _ in 0..10 {
        log.append(key, 0).await;
    }
    log.until_published().await;
    first.stop().await;
    for _ in 0..10 {
        log.append(key, 0).await;
    }
    log.until_published().await;
    second.stop().await;
    let records = log.records().await;
    assert_eq!(records.len(), 20);
    assert_in_order(&records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_a_copy_is_refused() {
    let log = Log::new().await;
    sqlx::query("UPDATE relay_cursor SET system_identifier = 1").execute(&log.pool).await.unwrap();
    log.append(Uuid::new_v4(), 0).await;
    let relay = log.relay();
    until("the relay has tried to lead", async || log.count("SELECT epoch FROM relay_cursor").await > 1)
        .await;
    relay.stop().await;
    assert_eq!(log.count("SELECT position FROM relay_cursor").await, 0);
}
