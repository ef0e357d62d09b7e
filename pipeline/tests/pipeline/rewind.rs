//! What an operator asks the relay to publish again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ordermill_pipeline::label::Label;
use ordermill_pipeline::relay::{Rewind, RewindPlan, request_repeat};
use ordermill_pipeline::topics;
use uuid::Uuid;

use crate::support::{Log, Published, end_of, until};

const DEAD_LETTERS: &str = "balances.recorder.dlt";

fn everything() -> Rewind {
    Rewind { after: 0, topics: Vec::new() }
}

async fn plan(log: &Log, rewind: &Rewind) -> Result<RewindPlan, String> {
    let known = topics::names(&Log::groups());
    rewind.plan(&log.pool, &known).await.map_err(|error| error.to_string())
}

async fn until_rewound(log: &Log, rewind: &Rewind, plan: &RewindPlan) {
    until("the relay is where it was", async || {
        let progress = rewind.progress(&log.pool).await.unwrap();
        !progress.is_pending && progress.position >= plan.position
    })
    .await;
}

/// Appends `count` events of as many keys.
async fn append(log: &Log, count: i64) {
    for ordinal in 0..count {
        log.append(Uuid::new_v4(), 100 + ordinal).await;
    }
}

fn labels(records: &[Published]) -> BTreeSet<Label> {
    records.iter().map(|record| record.label).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_again_on_request_has_its_labels_and_is_applied_once() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    append(&log, 20).await;
    log.until_applied(20).await;
    log.until_published().await;
    let once = log.records().await;
    let plan = plan(&log, &everything()).await.unwrap();
    assert_eq!(plan, RewindPlan { position: end_of(20), records: 20, is_led: true });
    everything().request(&log.pool).await.unwrap();
    until_rewound(&log, &everything(), &plan).await;
    let twice = log.records().await;
    assert_eq!((twice.len(), labels(&twice)), (40, labels(&once)));
    let mut again: BTreeMap<Label, Vec<&Published>> = BTreeMap::new();
    for record in &twice {
        again.entry(record.label).or_default().push(record);
    }
    assert!(again.values().all(|records| records.len() == 2 && records[0] == records[1]));
    append(&log, 5).await;
    log.until_applied(25).await;
    assert_eq!(log.count("SELECT count(*) FROM applied").await, 25);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_that_is_asked_for_while_no_relay_runs_is_done_by_the_next_one() {
    let log = Log::new().await;
    let relay = log.relay();
    append(&log, 8).await;
    log.until_published().await;
    relay.stop().await;
    let rewind = Rewind { after: end_of(5), topics: Vec::new() };
    let plan = plan(&log, &rewind).await.unwrap();
    assert_eq!(plan, RewindPlan { position: end_of(8), records: 3, is_led: false });
    // Whoever is not sure asks again.
    rewind.request(&log.pool).await.unwrap();
    rewind.request(&log.pool).await.unwrap();
    let relay = log.relay();
    until_rewound(&log, &rewind, &plan).await;
    assert_eq!(log.records().await.len(), 8 + 3);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_topics_asked_for_everything_is_published_again_and_of_others_only_what_is_new() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    append(&log, 6).await;
    for _ in 0..2 {
        log.append(Uuid::new_v4(), 13).await;
    }
    until("both are dead letters", async || log.count("SELECT count(*) FROM dead_letter").await == 2).await;
    log.until_applied(6).await;
    log.until_published().await;
    let rewind = Rewind { after: 0, topics: vec![DEAD_LETTERS.to_owned()] };
    let plan = plan(&log, &rewind).await.unwrap();
    assert_eq!(plan.records, 2);
    rewind.request(&log.pool).await.unwrap();
    until_rewound(&log, &rewind, &plan).await;
    append(&log, 3).await;
    log.until_applied(9).await;
    log.until_published().await;
    assert_eq!(log.records_of(DEAD_LETTERS).await.len(), 4);
    assert_eq!(
        log.records().await.len(),
        8 + 3,
        "another topic was published again, or is not published any more"
    );
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_a_consumer_is_not_lost_over_one_for_a_topic() {
    let log = Log::new().await;
    let relay = log.relay();
    append(&log, 6).await;
    log.until_published().await;
    relay.stop().await;
    let rewind = Rewind { after: 0, topics: vec![DEAD_LETTERS.to_owned()] };
    rewind.request(&log.pool).await.unwrap();
    let of_last = sqlx::query_scalar("SELECT partition FROM event_log ORDER BY position DESC LIMIT 1");
    let partition: i16 = of_last.fetch_one(&log.pool).await.unwrap();
    request_repeat(&log.pool, "balances", partition, end_of(4)).await.unwrap();
    let relay = log.relay();
    until("it is published again", async || log.records().await.len() == 12).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_was_not_published_and_a_topic_that_does_not_exist_are_refused() {
    let log = Log::new().await;
    let relay = log.relay();
    append(&log, 4).await;
    log.until_published().await;
    relay.stop().await;
    for after in [-1, end_of(5), i64::MAX] {
        let error = plan(&log, &Rewind { after, topics: Vec::new() }).await.unwrap_err();
        assert!(error.contains(&format!("give a position from 0 to {}", end_of(4))), "{error}");
    }
    let error = plan(&log, &Rewind { after: 0, topics: vec!["cups".to_owned()] }).await.unwrap_err();
    assert!(error.contains("\"cups\"") && error.contains("balances"), "{error}");
    let nothing = plan(&log, &Rewind { after: end_of(4), topics: Vec::new() }).await.unwrap();
    assert_eq!(nothing.records, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_back_reads_the_log_from_the_checkpoint_before_it_on() {
    let log = Log::new().await;
    let relay = log.relay();
    // A checkpoint is made about every thousand segments.
    append(&log, 1_010).await;
    log.until_published().await;
    let checkpoints = "SELECT count(*) FROM relay_checkpoint";
    until("there is a checkpoint", async || log.count(checkpoints).await == 1).await;
    let checkpoint = log.count("SELECT position FROM relay_checkpoint").await;
    append(&log, 5).await;
    log.until_published().await;
    relay.stop().await;
    // It is as the whole log says; what is not in the log shows whether it was read.
    let differ = "SELECT count(*) FROM relay_checkpoint c, jsonb_each(c.tails) AS topic,
                      jsonb_array_elements(topic.value) WITH ORDINALITY AS last (tail, ordinal)
                  WHERE coalesce((SELECT max(position) FROM event_log e WHERE e.topic = topic.key
                          AND e.partition = ordinal - 1 AND e.position <= c.position), 0)
                      <> (tail ->> 0)::bigint";
    assert_eq!(log.count(differ).await, 0);
    for statement in [
        "UPDATE relay_checkpoint SET tails = tails || '{\"mugs\": [[0, null]]}'",
        "CREATE TABLE seen (tails jsonb)",
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO seen VALUES (NEW.tails); RETURN NEW; END $$",
        "CREATE TRIGGER sees BEFORE UPDATE ON relay_cursor FOR EACH ROW EXECUTE FUNCTION see()",
    ] {
        sqlx::query(statement).execute(&log.pool).await.unwrap();
    }
    let mut records = 1_015;
    for after in [checkpoint, end_of(500)] {
        let rewind = Rewind { after, topics: Vec::new() };
        let plan = plan(&log, &rewind).await.unwrap();
        rewind.request(&log.pool).await.unwrap();
        let relay = log.relay();
        until_rewound(&log, &rewind, &plan).await;
        log.until_published().await;
        relay.stop().await;
        records += plan.records;
    }
    assert_ne!(log.count("SELECT count(*) FROM seen WHERE tails ? 'mugs'").await, 0);
    let again = log.records().await;
    assert_eq!((i64::try_from(again.len()).unwrap(), labels(&again).len()), (records, 1_015));
}
