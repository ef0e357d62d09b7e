//! The journal: rows that are loaded together, and conflicts that are decided anew.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use ordermill_pipeline::database::Next;
use ordermill_pipeline::journal::{
    Follows, Journal, JournalError, Keys, KeysOf, Loaded, Lock, Statement, StoredDocument, Table, Writes,
    load,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::handlers::applied_rows;
use crate::support::{Log, entry};

const SHELVES: &str = "shelves";
const BOXES: &str = "boxes";
const CUPS: &str = "cups";

/// Shelves name their boxes, and a box its cup.
static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let follows = |of, select: &'static str, keys: fn(&Value) -> Vec<Uuid>| {
        let keys = move |document: &StoredDocument| keys(&serde_json::from_str(&document.state).unwrap());
        Some(Follows { of, select: select.into(), keys: KeysOf(Box::new(keys)) })
    };
    let boxes = "SELECT jsonb_array_elements_text(state -> 'boxes')::uuid FROM {rows}";
    let cups = "SELECT (state ->> 'cup')::uuid FROM {rows}";
    vec![
        Table::new(SHELVES),
        Table {
            follows: follows(SHELVES, boxes, |shelf| {
                serde_json::from_value(shelf["boxes"].clone()).unwrap_or_default()
            }),
            ..Table::new(BOXES)
        },
        Table {
            follows: follows(BOXES, cups, |a_box| {
                serde_json::from_value(a_box["cup"].clone()).into_iter().collect()
            }),
            ..Table::new(CUPS)
        },
    ]
});

async fn log_with_tables() -> Log {
    let log = Log::new().await;
    for table in TABLES.iter() {
        let create = format!(
            "CREATE TABLE {} (key uuid PRIMARY KEY, version int NOT NULL, state jsonb NOT NULL, bulk json)",
            table.name
        );
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&log.pool).await.unwrap();
    }
    log
}

async fn put(log: &Log, table: &'static str, key: Uuid, state: Value) {
    let insert = format!("INSERT INTO {table} VALUES ($1, 1, $2)");
    sqlx::query(AssertSqlSafe(insert)).bind(key).bind(state).execute(&log.pool).await.unwrap();
}

fn shelf(boxes: &[Uuid]) -> Value {
    json!({"boxes": boxes})
}

fn a_box(cup: Uuid) -> Value {
    json!({"cup": cup})
}

/// So many keys in ascending order.
fn keys<const N: usize>() -> [Uuid; N] {
    let mut keys = [(); N].map(|()| Uuid::new_v4());
    keys.sort_unstable();
    keys
}

/// What was loaded, as (table, key).
fn places(loaded: &Loaded) -> Vec<(&'static str, Uuid)> {
    loaded.documents.iter().map(|document| (document.table, document.key)).collect()
}

/// Loads in a transaction that stays open.
fn load_in_background(
    log: &Log,
    keys: Keys,
) -> JoinHandle<(sqlx::Transaction<'static, sqlx::Postgres>, Loaded)> {
    let journal = log.journal.clone();
    tokio::spawn(async move {
        let mut transaction = journal.begin().await.unwrap();
        let loaded = load(&mut transaction, &TABLES, &keys, Lock::ForUpdate).await.unwrap();
        (transaction, loaded)
    })
}

async fn lock(connection: &mut PgConnection, table: &str, key: Uuid) {
    let lock = format!("SELECT FROM {table} WHERE key = $1 FOR UPDATE");
    sqlx::query(AssertSqlSafe(lock)).bind(key).fetch_one(connection).await.unwrap();
}

async fn is_locked(log: &Log, table: &str, key: Uuid) -> bool {
    let look = format!("SELECT FROM {table} WHERE key = $1 FOR NO KEY UPDATE SKIP LOCKED");
    let found = sqlx::query(AssertSqlSafe(look)).bind(key).fetch_optional(&log.pool).await;
    found.unwrap().is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_follows_keys_from_keys_and_of_what_is_absent_there_is_nothing() {
    let log = log_with_tables().await;
    let ([first, second, absent], [filled, empty, lone], cups) = (keys::<3>(), keys::<3>(), keys::<3>());
    put(&log, SHELVES, first, shelf(&[filled, absent])).await;
    put(&log, SHELVES, second, shelf(&[empty])).await;
    put(&log, BOXES, filled, a_box(cups[0])).await;
    put(&log, BOXES, empty, json!({})).await;
    put(&log, BOXES, lone, a_box(cups[1])).await;
    for (cup, count) in cups.iter().zip(1..) {
        put(&log, CUPS, *cup, json!(count)).await;
    }
    let load = async |keys: &Keys| {
        let mut transaction = log.journal.begin().await.unwrap();
        load(&mut transaction, &TABLES, keys, Lock::ForUpdate).await.unwrap()
    };

    let loaded = load(&Keys::of(SHELVES, first)).await;
    assert_eq!(places(&loaded), [(SHELVES, first), (BOXES, filled), (CUPS, cups[0])]);
    assert_eq!(&*loaded.documents[2].state, "1");
    assert_eq!(loaded.version(CUPS, cups[0]), Some(1));
    assert_eq!(loaded.version(BOXES, absent), None, "a key that follows and is not there");

    let mut keys = Keys::of(SHELVES, second);
    keys.extend(SHELVES, [absent, first]);
    keys.add(BOXES, lone);
    keys.add(CUPS, cups[2]);
    let loaded: BTreeSet<_> = places(&load(&keys).await).into_iter().collect();
    let all = [(SHELVES, first), (SHELVES, second), (BOXES, filled), (BOXES, empty), (BOXES, lone)];
    assert_eq!(loaded, all.into_iter().chain(cups.map(|cup| (CUPS, cup))).collect());

    let nothing = load(&Keys::of(SHELVES, absent)).await;
    assert_eq!((nothing.documents.len(), nothing.version(SHELVES, absent)), (0, None));
    assert_eq!(places(&load(&Keys::default()).await), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_locked_in_the_order_of_the_tables_and_of_their_keys() {
    let log = log_with_tables().await;
    let ([shelf_key], boxes, [cup]) = (keys(), keys::<3>(), keys());
    put(&log, SHELVES, shelf_key, shelf(&boxes)).await;
    for key in boxes.iter().rev() {
        put(&log, BOXES, *key, a_box(cup)).await;
    }
    put(&log, CUPS, cup, json!(1)).await;
    let mut other = log.journal.begin().await.unwrap();
    lock(&mut other, BOXES, boxes[1]).await;
    let loading = load_in_background(&log, Keys::of(SHELVES, shelf_key));
    log.until_waiting_for_locks(1).await;
    let locked = async || {
        let mut locked = Vec::new();
        for (table, key) in [(SHELVES, shelf_key), (BOXES, boxes[0]), (BOXES, boxes[2]), (CUPS, cup)] {
            locked.push(is_locked(&log, table, key).await);
        }
        locked
    };
    assert_eq!(locked().await, [true, true, false, false], "what comes later is locked later");

    let mut looking = log.journal.begin().await.unwrap();
    let looked = load(&mut looking, &TABLES, &Keys::of(SHELVES, shelf_key), Lock::None).await.unwrap();
    assert_eq!(looked.documents.len(), 5, "who only looks waits for nobody");
    looking.rollback().await.unwrap();

    other.rollback().await.unwrap();
    let (transaction, loaded) = loading.await.unwrap();
    assert_eq!(loaded.documents.len(), 5);
    assert_eq!(locked().await, [true; 4]);
    transaction.rollback().await.unwrap();
    assert_eq!(locked().await, [false; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_loaded_as_the_former_holder_of_its_lock_has_left_it_and_so_is_what_follows() {
    let log = log_with_tables().await;
    let ([shelf_key], [former, new], cups) = (keys(), keys(), keys::<2>());
    put(&log, SHELVES, shelf_key, shelf(&[former])).await;
    put(&log, BOXES, former, a_box(cups[0])).await;
    put(&log, BOXES, new, a_box(cups[0])).await;
    put(&log, CUPS, cups[0], json!(1)).await;
    put(&log, CUPS, cups[1], json!(1)).await;
    let mut other = log.journal.begin().await.unwrap();
    for (table, key, state) in [(SHELVES, shelf_key, shelf(&[new])), (BOXES, new, a_box(cups[1]))] {
        let update = format!("UPDATE {table} SET version = 2, state = $2 WHERE key = $1");
        sqlx::query(AssertSqlSafe(update)).bind(key).bind(state).execute(&mut *other).await.unwrap();
    }
    let loading = load_in_background(&log, Keys::of(SHELVES, shelf_key));
    log.until_waiting_for_locks(1).await;
    other.commit().await.unwrap();
    let (_transaction, loaded) = loading.await.unwrap();
    assert_eq!(places(&loaded), [(SHELVES, shelf_key), (BOXES, new), (CUPS, cups[1])]);
    assert_eq!(loaded.version(SHELVES, shelf_key), Some(2));
    assert_eq!(serde_json::from_str::<Value>(&loaded.documents[0].state).unwrap(), shelf(&[new]));
}

/// What of a table is stored out of line: chunks, and who wrote them.
async fn stored_apart(log: &Log, table: &str) -> BTreeSet<(i64, i32, String)> {
    let apart = "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = $1::regclass";
    let apart: String = sqlx::query_scalar(apart).bind(table.to_owned()).fetch_one(&log.pool).await.unwrap();
    let chunks = format!("SELECT chunk_id::bigint, chunk_seq, xmin::text FROM {apart}");
    let chunks = sqlx::query_as(AssertSqlSafe(chunks)).fetch_all(&log.pool).await.unwrap();
    chunks.into_iter().collect()
}

/// So large that no compression brings it into a row.
fn large() -> Value {
    (0..2_000).map(|_| Value::from(Uuid::new_v4().to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_that_is_not_written_stays_where_it_is_stored() {
    let log = log_with_tables().await;
    let (all, large_one, another) = (keys::<3>(), large(), large());
    let mut those = Keys::default();
    those.extend(BOXES, all);
    // For each of the three its state, and its bulk where that is written.
    let write = async |state: i64, bulks: [Option<&Value>; 3]| {
        let decide = |loaded: &Loaded, _| {
            let changes = all
                .iter()
                .zip(bulks)
                .map(|(key, bulk)| loaded.change(BOXES, *key, state.to_string(), bulk.map(Value::to_string)));
            Ok::<_, JournalError>((Writes { changes: changes.collect(), ..Writes::default() }, ()))
        };
        log.journal.decide(&TABLES, &those, decide).await.unwrap();
    };
    let read = async || {
        let mut transaction = log.journal.begin().await.unwrap();
        let loaded = load(&mut transaction, &TABLES, &those, Lock::None).await.unwrap();
        let bulk = |bulk: Option<Arc<str>>| bulk.map(|bulk| serde_json::from_str::<Value>(&bulk).unwrap());
        let row = |document: StoredDocument| (document.state.to_string(), bulk(document.bulk));
        loaded.documents.into_iter().map(row).collect::<Vec<(String, _)>>()
    };
    let state = |number: i64| number.to_string();

    write(1, [Some(&large_one), None, None]).await;
    let before = stored_apart(&log, BOXES).await;
    assert!(before.len() > 10, "{} chunks are not much", before.len());
    assert_eq!(read().await, [(state(1), Some(large_one.clone())), (state(1), None), (state(1), None)]);
    // One that stays, one that comes, and one that is not there, in one statement.
    write(2, [None, Some(&another), None]).await;
    let after = stored_apart(&log, BOXES).await;
    assert!(before.is_subset(&after), "what stays was written anew");
    let expected = [(state(2), Some(large_one)), (state(2), Some(another.clone())), (state(2), None)];
    assert_eq!(read().await, expected);

    write(3, [Some(&another), None, None]).await;
    assert!(before.is_disjoint(&stored_apart(&log, BOXES).await));
    assert_eq!(read().await[0], (state(3), Some(another)));
    assert_eq!(log.count("SELECT count(*) FROM boxes WHERE version = 3").await, 3);
}

/// Counts a cup up, and tells the log.
fn count_up(loaded: &Loaded, cup: Uuid) -> Writes {
    let mut documents = loaded.documents.iter();
    let known = documents.find(|document| (document.table, document.key) == (CUPS, cup));
    let count = known.map_or(0, |document| document.state.parse::<i32>().unwrap()) + 1;
    let change = loaded.change(CUPS, cup, count.to_string(), None);
    let entry = entry(cup, count, i64::from(count));
    Writes {
        projections: vec![applied_rows(entry.event_id, cup, i64::from(count))],
        changes: vec![change],
        entries: vec![entry],
    }
}

/// Counts a cup up in a transaction that stays open, as another process does.
async fn count_up_in(journal: &Journal, connection: &mut PgConnection, cup: Uuid) {
    let loaded = load(connection, &TABLES, &Keys::of(CUPS, cup), Lock::ForUpdate).await.unwrap();
    let writes = count_up(&loaded, cup);
    let _untold =
        journal.write(Statement::default(), loaded, writes, journal.now(), connection).await.unwrap();
}

/// Counts a cup up. Answers the versions of it that were decided from, one for each decision.
fn count_up_in_background(log: &Log, keys: Keys, cup: Uuid) -> JoinHandle<Vec<Option<i32>>> {
    let journal = log.journal.clone();
    tokio::spawn(async move {
        let mut seen = Vec::new();
        let decide = |loaded: &Loaded, _| {
            seen.push(loaded.version(CUPS, cup));
            Ok::<_, JournalError>((count_up(loaded, cup), ()))
        };
        journal.decide(&TABLES, &keys, decide).await.unwrap();
        seen
    })
}

/// A cup was counted up so often: document, log and projection say the same.
async fn assert_counted(log: &Log, cup: Uuid, count: i32) {
    let stored: (i32, Value) = sqlx::query_as("SELECT version, state FROM cups WHERE key = $1")
        .bind(cup)
        .fetch_one(&log.pool)
        .await
        .unwrap();
    assert_eq!(stored, (count, json!(count)));
    let sequences = "SELECT sequence FROM event_log WHERE aggregate_id = $1 ORDER BY position";
    let sequences: Vec<i32> = sqlx::query_scalar(sequences).bind(cup).fetch_all(&log.pool).await.unwrap();
    assert_eq!(sequences, (1..=count).collect::<Vec<_>>());
    assert_eq!(log.applied_of(cup).await, (1..=i64::from(count)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_from_a_version_that_is_passed_is_decided_anew() {
    let log = log_with_tables().await;
    let [cup] = keys();
    let those = Keys::of(CUPS, cup);
    count_up_in_background(&log, those.clone(), cup).await.unwrap();
    // Whoever looks without a lock may be overtaken.
    let looked = load(&mut log.pool.acquire().await.unwrap(), &TABLES, &those, Lock::None).await.unwrap();
    count_up_in_background(&log, those.clone(), cup).await.unwrap();
    let mut seen = Vec::new();
    let decide = |loaded: &Loaded, _| {
        let basis = if seen.is_empty() { &looked } else { loaded };
        seen.push(basis.version(CUPS, cup));
        Ok::<_, JournalError>((count_up(basis, cup), ()))
    };
    log.journal.decide(&TABLES, &those, decide).await.unwrap();
    assert_eq!(seen, [Some(1), Some(2)]);
    assert_counted(&log, cup, 3).await;
}

/// Counts a cup up; the first decision is in vain, as if somebody else had been faster.
async fn count_up_after_a_conflict(log: &Log, those: &Keys, cup: Uuid) {
    let mut decisions = 0;
    let decide = |loaded: &Loaded, _| {
        decisions += 1;
        let mut writes = count_up(loaded, cup);
        writes.changes[0].version = writes.changes[0].version.filter(|_| decisions > 1);
        Ok::<_, JournalError>((writes, ()))
    };
    log.journal.decide(&TABLES, those, decide).await.unwrap();
    assert_eq!(decisions, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_two_of_a_process_were_after_the_same_rows_the_later_one_waits_for_its_turn() {
    let log = log_with_tables().await;
    let [cup] = keys();
    let those = Keys::of(CUPS, cup);
    count_up_in_background(&log, those.clone(), cup).await.unwrap();
    // As the API has connections of its own beside workers.
    let over_others = log.journal.over(log.pool.clone(), &log.pool);
    let (mut count, mut is_shown) = (1, false);
    while !is_shown {
        assert!(count < 60, "a conflict is always forgotten before the next decision");
        let began = Instant::now();
        count_up_after_a_conflict(&log, &those, cup).await;
        let (first_seen, second_seen) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let counting = |seen: &Mutex<Vec<Option<i32>>>, loaded: &Loaded| {
            seen.lock().unwrap().push(loaded.version(CUPS, cup));
            Ok::<_, JournalError>((count_up(loaded, cup), ()))
        };
        let decide = async |seen| {
            log.journal.decide(&TABLES, &those, |loaded, _| counting(seen, loaded)).await.unwrap();
        };
        let decide_over_others = async |seen| {
            over_others.decide(&TABLES, &those, |loaded, _| counting(seen, loaded)).await.unwrap();
        };
        let (mut first, mut second) =
            (Box::pin(decide(&first_seen)), Box::pin(decide_over_others(&second_seen)));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        let has_waited = second_seen.lock().unwrap().is_empty();
        // It is remembered for a second; on a slow machine that may be over.
        is_shown = began.elapsed() < Duration::from_millis(900);
        first.await;
        second.await;
        if is_shown {
            assert!(has_waited, "it was not its turn");
            let seen = (first_seen.into_inner().unwrap(), second_seen.into_inner().unwrap());
            assert_eq!(seen, (vec![Some(count + 1)], vec![Some(count + 2)]));
        }
        count += 3;
    }
    assert_counted(&log, cup, count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_from_a_row_that_is_gone_is_decided_anew() {
    let log = log_with_tables().await;
    let [cup] = keys();
    let those = Keys::of(CUPS, cup);
    put(&log, CUPS, cup, json!(7)).await;
    let looked = load(&mut log.pool.acquire().await.unwrap(), &TABLES, &those, Lock::None).await.unwrap();
    sqlx::query("DELETE FROM cups").execute(&log.pool).await.unwrap();
    let mut seen = Vec::new();
    let decide = |loaded: &Loaded, _| {
        let basis = if seen.is_empty() { &looked } else { loaded };
        seen.push(basis.version(CUPS, cup));
        Ok::<_, JournalError>((count_up(basis, cup), ()))
    };
    log.journal.decide(&TABLES, &those, decide).await.unwrap();
    assert_eq!(seen, [Some(1), None]);
    assert_counted(&log, cup, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_inserted_while_the_load_waited_is_found_when_it_is_decided_anew() {
    let log = log_with_tables().await;
    let [shelf_key, cup] = keys();
    put(&log, SHELVES, shelf_key, shelf(&[])).await;
    let mut other = log.journal.begin().await.unwrap();
    lock(&mut other, SHELVES, shelf_key).await;
    let mut those = Keys::of(SHELVES, shelf_key);
    those.add(CUPS, cup);
    let counting = count_up_in_background(&log, those, cup);
    log.until_waiting_for_locks(1).await;
    // The load's snapshot is older than this row.
    count_up_in(&log.journal, &mut other, cup).await;
    other.commit().await.unwrap();
    assert_eq!(counting.await.unwrap(), [None, Some(1)]);
    assert_counted(&log, cup, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_another_takes_meanwhile_is_decided_about_anew_unless_the_other_gives_it_up() {
    let log = log_with_tables().await;
    let [taken, given_up] = keys();
    let mut other = log.journal.begin().await.unwrap();
    count_up_in(&log.journal, &mut other, taken).await;
    let counting = count_up_in_background(&log, Keys::of(CUPS, taken), taken);
    log.until_waiting_for_locks(1).await;
    other.commit().await.unwrap();
    assert_eq!(counting.await.unwrap(), [None, Some(1)]);
    assert_counted(&log, taken, 2).await;

    let mut other = log.journal.begin().await.unwrap();
    count_up_in(&log.journal, &mut other, given_up).await;
    let counting = count_up_in_background(&log, Keys::of(CUPS, given_up), given_up);
    log.until_waiting_for_locks(1).await;
    other.rollback().await.unwrap();
    assert_eq!(counting.await.unwrap(), [None]);
    assert_counted(&log, given_up, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_decision_with_a_wrong_version_nothing_is_committed_and_the_conflict_is_told_in_the_end() {
    let log = log_with_tables().await;
    let [cup, other] = keys();
    let mut those = Keys::of(CUPS, cup);
    those.add(CUPS, other);
    count_up_in_background(&log, those.clone(), cup).await.unwrap();
    for lie in [-1, 1] {
        let mut decisions = 0;
        let decide = |loaded: &Loaded, _| {
            decisions += 1;
            let mut writes = count_up(loaded, cup);
            writes.changes[0].version = writes.changes[0].version.map(|version| version + lie);
            // What is right is not written, either.
            let right = count_up(loaded, other);
            writes.changes.extend(right.changes);
            writes.entries.extend(right.entries);
            writes.projections = right.projections;
            Ok((writes, ()))
        };
        let outcome: Result<(), JournalError> = log.journal.decide(&TABLES, &those, decide).await;
        let error = outcome.unwrap_err();
        assert_eq!((error.next(), decisions), (Next::Retry, 21), "{error}");
        assert!(error.to_string().contains("updated_cups"), "{error}");
        assert_counted(&log, cup, 1).await;
        assert_eq!(log.count("SELECT count(*) FROM cups").await, 1);
        assert_eq!(log.count("SELECT count(*) FROM event_log").await, 1);
        assert_eq!(log.count("SELECT count(*) FROM applied").await, 1);
    }
    // It has left no lock behind.
    count_up_in_background(&log, those, cup).await.unwrap();
    assert_counted(&log, cup, 2).await;
}
