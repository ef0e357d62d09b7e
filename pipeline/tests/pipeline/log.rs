//! The narrow log: what it shows is what it was given, and its words have one code each.

use ordermill_pipeline::audit::Histories;
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::database;
use ordermill_pipeline::journal::{Journal, JournalError, Keys, Loaded, Writes};
use ordermill_pipeline::log::{Entry, stretches};
use ordermill_pipeline::wake::Wake;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{self, Log, entry};

/// What the log shows of the entry of an aggregate, but for the time.
async fn shown(log: &Log, aggregate_id: Uuid) -> Value {
    let shown = "SELECT to_jsonb(l) - '{at,segment,about,topic_code}'::text[] FROM event_log l WHERE aggregate_id = $1";
    sqlx::query_scalar(shown).bind(aggregate_id).fetch_one(&log.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_shows_everything_as_it_was_given() {
    let log = Log::new().await;
    let trace = "00-0000000000000000000000000000000a-00000000000000b0-00";
    let [key, aggregate_id, correlation_id, cause_id, user, request_id] = [(); 6].map(|()| Uuid::new_v4());
    let plain = Entry { trace: trace.parse().unwrap(), ..entry(key, 1, 1) };
    let rich = Entry {
        topic: "cups.drinkers.dlt".to_owned(),
        partition: 3,
        record_key: Some(b"\xff\0".to_vec()),
        aggregate_id,
        sequence: 12,
        event_type: "cup.filled".to_owned(),
        version: 7,
        correlation_id: Some(correlation_id),
        cause_id: Some(cause_id),
        actor: format!("user:{user}"),
        request: Some(request_id),
        data: b"\0\xfe".to_vec(),
        headers: Some(json!([{"name": "n", "value": "v"}])),
        ..plain.clone()
    };
    let data = String::from_utf8(plain.data.clone()).unwrap();
    support::append(&log.journal, &mut log.pool.acquire().await.unwrap(), vec![plain.clone(), rich.clone()])
        .await;
    let hex = |bytes: &str| {
        let digits: String = bytes.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("\\x{digits}")
    };
    let expected = json!({
        "position": 100_001, "event_id": plain.event_id, "topic": "balances", "partition": plain.partition, "key": key,
        "record_key": null, "aggregate_id": key, "sequence": 1, "type": "balance.charged", "version": 1,
        "correlation_id": null, "cause_id": null, "actor": "test", "request_id": null, "traceparent": trace,
        "data": hex(&data), "headers": null,
    });
    assert_eq!(shown(&log, key).await, expected);
    let expected = json!({
        "position": 100_002, "event_id": rich.event_id, "topic": "cups.drinkers.dlt", "partition": 3, "key": key,
        "record_key": "\\xff00", "aggregate_id": aggregate_id, "sequence": 12, "type": "cup.filled", "version": 7,
        "correlation_id": correlation_id, "cause_id": cause_id, "actor": format!("user:{user}"), "request_id": request_id,
        "traceparent": trace, "data": "\\x00fe", "headers": [{"name": "n", "value": "v"}],
    });
    assert_eq!(shown(&log, aggregate_id).await, expected);
}

/// The positions of a page, as segment and ordinal.
async fn page(log: &Log, after: i64, upto: i64, limit: i64) -> Vec<(i64, i64)> {
    sqlx::query_as("SELECT position / 100000, position % 100000 FROM log_page($1, $2, $3)")
        .bind(after)
        .bind(upto)
        .bind(limit)
        .fetch_all(&log.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_the_next_events_however_they_were_written_together() {
    let log = Log::new().await;
    let mut all = Vec::new();
    for (segment, events) in (1..).zip([3, 1, 4, 1]) {
        let entries = (0..events).map(|_| entry(Uuid::new_v4(), 1, 1)).collect();
        support::append(&log.journal, &mut log.pool.acquire().await.unwrap(), entries).await;
        all.extend((1..=events).map(|ordinal| (segment, ordinal)));
    }
    let position = |(segment, ordinal): (i64, i64)| segment * 100_000 + ordinal;
    assert_eq!(page(&log, 0, i64::MAX, 100).await, all);
    for limit in 1..=10 {
        let (mut paged, mut after) = (Vec::new(), 0);
        loop {
            let page = page(&log, after, i64::MAX, limit as i64).await;
            let Some(last) = page.last() else { break };
            after = position(*last);
            assert!(page.len() == limit || after == position(all[all.len() - 1]), "{page:?}");
            paged.extend(page);
        }
        assert_eq!(paged, all);
    }
    for last in 0..all.len() {
        assert_eq!(page(&log, 0, position(all[last]), 100).await, all[..=last]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_history_and_of_a_timeline_are_found_by_what_their_segments_are_about() {
    let log = Log::new().await;
    let (id, other, order) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let entries: Vec<Entry> = (1..=40)
        .flat_map(|sequence| {
            [entry(id, sequence, 1), Entry { correlation_id: Some(order), ..entry(other, sequence, 1) }]
        })
        .collect();
    for written_together in entries.chunks(3) {
        let mut connection = log.pool.acquire().await.unwrap();
        support::append(&log.journal, &mut connection, written_together.to_vec()).await;
    }
    let found = "SELECT count(*) FROM event_log WHERE about && $1 AND aggregate_id = $2 AND sequence BETWEEN $3 AND $4";
    for (first, last) in [(1, 1), (1, 15), (15, 16), (16, 16), (30, 40), (1, 40)] {
        let found: i64 = sqlx::query_scalar(found)
            .bind(stretches(id, first..=last))
            .bind(id)
            .bind(first)
            .bind(last)
            .fetch_one(&log.pool)
            .await
            .unwrap();
        assert_eq!(found, i64::from(last - first + 1), "{first} to {last}");
    }
    let of_order =
        format!("SELECT count(*) FROM event_log WHERE about @> '{{{order}}}' AND correlation_id = '{order}'");
    assert_eq!(log.count(&of_order).await, 40);
    let whole = async |id| {
        let mut connection = database::begin(&log.pool).await.unwrap();
        let mut histories = Histories::of_aggregate(&mut connection, id).await.unwrap();
        histories.next(&mut connection).await.unwrap().len()
    };
    assert_eq!((whole(id).await, whole(other).await, whole(order).await), (40, 40, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_is_shown_as_it_was_given_whatever_it_is() {
    let log = Log::new().await;
    let id = Uuid::new_v4();
    for actor in [
        "admin".to_owned(),
        "admin:minji".to_owned(),
        "worker:orders".to_owned(),
        format!("user:{id}"),
        format!("user:{}", id.simple()),
        format!("user:{}", id.to_string().to_uppercase()),
        format!("user:{}", id.braced()),
        format!("admin:token:{id}"),
        "user:".to_owned(),
        format!(":{id}"),
    ] {
        let entry = Entry { actor: actor.clone(), ..entry(Uuid::new_v4(), 1, 1) };
        let aggregate_id = entry.aggregate_id;
        let mut connection = log.pool.acquire().await.unwrap();
        support::append(&log.journal, &mut connection, vec![entry]).await;
        assert_eq!(shown(&log, aggregate_id).await["actor"], actor);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_two_processes_meet_at_the_same_time_is_learnt_once() {
    let log = Log::new().await;
    let mut other = log.journal.begin().await.unwrap();
    sqlx::query("INSERT INTO log_word (word) VALUES ('cup.filled')").execute(&mut *other).await.unwrap();
    let appending = [(); 2].map(|()| {
        let journal = log.fresh_journal();
        tokio::spawn(async move {
            let entry = Entry { event_type: "cup.filled".to_owned(), ..entry(Uuid::new_v4(), 1, 1) };
            let decide = |_: &Loaded, _| {
                let entries = vec![entry.clone()];
                Ok::<_, JournalError>((Writes { entries, ..Writes::default() }, ()))
            };
            journal.decide(&[], &Keys::default(), decide).await.unwrap();
        })
    });
    log.until_waiting_for_locks(2).await;
    // Nobody has learnt it so far: the first who goes on does.
    other.rollback().await.unwrap();
    for appending in appending {
        appending.await.unwrap();
    }
    assert_eq!(log.count("SELECT count(*) FROM log_word WHERE word = 'cup.filled'").await, 1);
    assert_eq!(log.count("SELECT count(DISTINCT type) FROM log_segment").await, 1);
    assert_eq!(log.count("SELECT count(*) FROM event_log WHERE type = 'cup.filled'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_with_a_word_that_nobody_has_told_of_needs_one_connection() {
    let log = Log::new().await;
    let pool = database::connect(&log.url, "one", 1).await.unwrap();
    let journal = Journal::new(pool, Clock::system(), Wake::default(), log.journal.partitions);
    let decide = |_: &Loaded, _| {
        let entries = vec![Entry { event_type: "cup.filled".to_owned(), ..entry(Uuid::new_v4(), 1, 1) }];
        Ok::<_, JournalError>((Writes { entries, ..Writes::default() }, ()))
    };
    journal.decide(&[], &Keys::default(), decide).await.unwrap();
    assert_eq!(log.count("SELECT count(*) FROM event_log WHERE type = 'cup.filled'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_outlives_the_transaction_that_first_needed_it() {
    let log = Log::new().await;
    let filled = || Entry { event_type: "cup.filled".to_owned(), ..entry(Uuid::new_v4(), 1, 1) };
    let mut transaction = log.journal.begin().await.unwrap();
    support::append(&log.journal, &mut transaction, vec![filled()]).await;
    transaction.rollback().await.unwrap();
    let mut transaction = log.journal.begin().await.unwrap();
    support::append(&log.journal, &mut transaction, vec![filled()]).await;
    transaction.commit().await.unwrap();
    assert_eq!(log.count("SELECT count(*) FROM event_log WHERE type = 'cup.filled'").await, 1);
}
