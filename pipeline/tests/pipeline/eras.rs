//! A database that is an older copy of the one that Kafka knows, or another cluster's: refused, then adopted.

use std::sync::Arc;

use ordermill_pipeline::consumer::Handler as _;
use ordermill_pipeline::metrics::GroupLabel;
use ordermill_pipeline::relay::{AdoptError, Adoption, Reason, Rewind};
use ordermill_pipeline::{audit, authenticity};
use ordermill_schemas::Topic;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::handlers::Recorder;
use crate::support::{Log, end_of, first_of, until};

/// The groups whose needs count.
const GROUPS: [(&str, &[Topic]); 1] = [(Recorder::GROUP, Recorder::TOPICS)];
const ERA: &str = "SELECT era::bigint FROM relay_cursor";
const POSITION: &str = "SELECT position FROM relay_cursor";

/// A log of six keys, three events each, of which everything was published and applied; and a copy of its database.
struct Story {
    original: Log,
    restored: Log,
    keys: Vec<Uuid>,
}

impl Story {
    async fn new() -> Story {
        let original = Log::new().await;
        let keys: Vec<Uuid> = (0..6).map(|_| Uuid::new_v4()).collect();
        live(&original, &keys, 1..=3).await;
        let (original, restored) = copy(original).await;
        Story { original, restored, keys }
    }

    /// What the original goes on to do, and the copy does not know.
    async fn lose_a_future(&self) {
        // The copy does not know of the key that signs it, either.
        authenticity::rotate(&self.original.pool, &self.original.kafka.keyring.secrets()).await.unwrap();
        live(&self.original, &self.keys, 4..=6).await;
    }
}

/// Appends events, and has a relay and a consumer bring them to their end.
async fn live(log: &Log, keys: &[Uuid], ordinals: impl Iterator<Item = i64>) {
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    for ordinal in ordinals {
        for key in keys {
            log.append(*key, ordinal).await;
        }
    }
    log.until_applied(log.count("SELECT count(*) FROM event_log").await).await;
    log.until_published().await;
    consumer.stop().await;
    relay.stop().await;
}

/// A log, and its database as it is now, as a restored dump is: another one in the same cluster.
async fn copy(log: Log) -> (Log, Log) {
    let (server, name) = log.url.rsplit_once('/').unwrap();
    let restored = format!("{name}_restored");
    // A database can be copied while nobody is connected to it.
    log.journal.close().await;
    let admin = sqlx::PgPool::connect(&format!("{server}/postgres")).await.unwrap();
    let statement = format!("CREATE DATABASE {restored} TEMPLATE {name}");
    until("the database is copied", async || {
        sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&admin).await.is_ok()
    })
    .await;
    let restored = Log::on(&format!("{server}/{restored}"), log.kafka.clone()).await;
    (Log::on(&log.url, log.kafka.clone()).await, restored)
}

async fn look(log: &Log) -> Adoption {
    Adoption::look(&log.pool, &log.kafka, &GROUPS, None).await.unwrap()
}

async fn adopt(log: &Log) -> Adoption {
    let adoption = look(log).await;
    adoption.carry_out(&log.pool, &log.kafka, true, false).await.unwrap();
    let signs =
        "SELECT count(*) FROM wire_key, relay_cursor WHERE retired_at IS NULL AND id LIKE era || '-%'";
    assert_eq!(log.count(signs).await, 1, "no key of the new era signs");
    adoption
}

async fn until_refused(log: &Log) {
    let before = log.count("SELECT epoch FROM relay_cursor").await;
    until("the relay has tried to lead, twice", async || {
        log.count("SELECT epoch FROM relay_cursor").await > before + 1
    })
    .await;
}

/// Per key the ordinals in the order in which they were applied.
async fn assert_applied(log: &Log, keys: &[Uuid], ordinals: &[i64]) {
    log.until_applied(i64::try_from(keys.len() * ordinals.len()).unwrap()).await;
    let applied = log.applied().await;
    for key in keys {
        let of_key: Vec<i64> =
            applied.iter().filter(|(k, _)| k == key).map(|(_, ordinal)| *ordinal).collect();
        assert_eq!(of_key, ordinals, "key {key}");
    }
}

async fn assert_audited(log: &Log) {
    let check = audit::log_against_kafka::<Topic>(&log.pool, &log.kafka).await.unwrap();
    assert!(check.ok, "{:#?}", check.violations);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_is_refused_and_once_adopted_goes_on_without_the_lost_future() {
    let story = Story::new().await;
    story.lose_a_future().await;
    let (log, keys) = (&story.restored, &story.keys);
    // As an API does before anybody has noticed: more than was lost, so that positions alone tell nothing.
    for ordinal in 104..=108 {
        for key in keys {
            log.append(*key, ordinal).await;
        }
    }
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    until_refused(log).await;
    let retries = log.metrics.retries.get_or_create(&GroupLabel { group: "recorder".to_owned() }).clone();
    until("the consumer has met the lost future", async || retries.get() > 1).await;
    consumer.stop().await;
    relay.stop().await;
    assert_eq!(
        (log.count(POSITION).await, log.count("SELECT count(*) FROM applied").await),
        (end_of(18), 18)
    );

    let adoption = look(log).await;
    assert!(matches!(adoption.reason, Some(Reason::KafkaAhead { .. })), "{:?}", adoption.reason);
    assert_eq!(
        (adoption.former_era, adoption.era, adoption.after, adoption.log_end),
        (1, 2, end_of(18), first_of(48))
    );
    let refused = adoption.carry_out(&log.pool, &log.kafka, false, true).await;
    assert!(matches!(refused, Err(AdoptError::TopicsNotEmpty(_))), "{refused:?}");
    assert_eq!(log.count(ERA).await, 1, "nothing is begun that can't be finished");
    adoption.carry_out(&log.pool, &log.kafka, true, false).await.unwrap();

    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    assert_applied(log, keys, &[1, 2, 3, 104, 105, 106, 107, 108]).await;
    log.until_published().await;
    let records = log.records().await;
    assert_eq!(records.len(), 30, "what every group has applied is not published again");
    assert!(records.iter().all(|record| record.label.era == 2));
    assert_audited(log).await;
    // And again what lies before, for others.
    Rewind { after: 0, topics: Vec::new() }.request(&log.pool).await.unwrap();
    until("everything is there", async || log.records().await.len() == 30 + 48).await;
    log.until_published().await;
    assert_audited(log).await;
    assert_eq!(log.count("SELECT count(*) FROM applied").await, 48);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_behind_gets_what_it_has_not_applied() {
    let original = Log::new().await;
    let keys: Vec<Uuid> = (0..6).map(|_| Uuid::new_v4()).collect();
    live(&original, &keys, 1..=2).await;
    let relay = original.relay();
    for key in &keys {
        original.append(*key, 3).await;
    }
    original.until_published().await;
    relay.stop().await;
    let (original, restored) = copy(original).await;
    let story = Story { original, restored, keys };
    story.lose_a_future().await;
    let log = &story.restored;
    assert_eq!(adopt(log).await.era, 2);
    assert!(log.count(POSITION).await < first_of(13), "the relay goes back to what the group needs");
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    assert_applied(log, &story.keys, &[1, 2, 3]).await;
    log.until_published().await;
    assert_audited(log).await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_that_was_broken_off_is_finished_by_the_next_and_nothing_is_published_between() {
    let story = Story::new().await;
    story.lose_a_future().await;
    let (log, keys) = (&story.restored, &story.keys);
    let mut broken = log.kafka.clone();
    broken.settings.insert("no.such.setting".to_owned(), "1".to_owned());
    let adoption = look(log).await;
    let outcome = adoption.carry_out(&log.pool, &broken, true, false).await;
    assert!(matches!(outcome, Err(AdoptError::Topics(_))), "{outcome:?}");
    assert_eq!(log.count(ERA).await, 2);

    for key in keys {
        log.append(*key, 104).await;
    }
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    until_refused(log).await;
    let skipped = log.metrics.skipped.get_or_create(&GroupLabel { group: "recorder".to_owned() }).clone();
    until("the consumer has passed over the whole former era", async || skipped.get() == 36).await;
    consumer.stop().await;
    relay.stop().await;
    assert_eq!(log.count(POSITION).await, end_of(18));

    let adoption = adopt(log).await;
    assert_eq!((adoption.reason, adoption.era, log.count(ERA).await), (Some(Reason::Unfinished), 2, 2));
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    assert_applied(log, keys, &[1, 2, 3, 104]).await;
    log.until_published().await;
    assert_audited(log).await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_prefix_needs_no_topic_to_be_deleted() {
    let story = Story::new().await;
    story.lose_a_future().await;
    let mut log = story.restored;
    log.kafka.prefix = format!("{}again.", log.kafka.prefix);
    // On fresh topics nothing is ahead of the log, and only the operator knows that something was.
    let adoption = look(&log).await;
    assert_eq!(adoption.reason, None);
    let outcome = adoption.carry_out(&log.pool, &log.kafka, false, false).await;
    assert!(matches!(outcome, Err(AdoptError::NothingWrong)), "{outcome:?}");
    adoption.carry_out(&log.pool, &log.kafka, false, true).await.unwrap();
    for key in &story.keys {
        log.append(*key, 104).await;
    }
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    assert_applied(&log, &story.keys, &[1, 2, 3, 104]).await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_database_is_adopted_and_positions_go_on_above_its_log() {
    let story = Story::new().await;
    let (log, keys) = (&story.restored, &story.keys);
    // As whatever restores rows but not the sequence leaves it.
    sqlx::raw_sql(
        "UPDATE relay_cursor SET system_identifier = 1; SELECT setval('log_segment_number_seq', 3)",
    )
    .execute(&log.pool)
    .await
    .unwrap();
    let adoption = adopt(log).await;
    assert_eq!(adoption.reason, Some(Reason::OtherDatabase));
    live(log, keys, 4..=4).await;
    assert_applied(log, keys, &[1, 2, 3, 4]).await;
    assert_eq!(log.count("SELECT max(position) FROM event_log").await, first_of(24));
    assert_audited(log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_new_in_an_era_gets_the_whole_log() {
    let story = Story::new().await;
    story.lose_a_future().await;
    let (log, keys) = (&story.restored, &story.keys);
    adopt(log).await;
    // As if the group had never been there.
    sqlx::raw_sql("DELETE FROM consumer_offset; DELETE FROM applied; DELETE FROM recorded")
        .execute(&log.pool)
        .await
        .unwrap();
    live(log, keys, 104..=104).await;
    assert_applied(log, keys, &[1, 2, 3, 104]).await;
    assert_audited(log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_adopts_a_database_that_is_at_work_or_without_need() {
    let log = Log::new().await;
    let relay = log.relay();
    log.append(Uuid::new_v4(), 1).await;
    log.until_published().await;
    let adoption = look(&log).await;
    assert_eq!(adoption.reason, None);
    let carry_out =
        async |adoption: &Adoption, force| adoption.carry_out(&log.pool, &log.kafka, true, force).await;
    let outcome = carry_out(&adoption, false).await;
    assert!(matches!(outcome, Err(AdoptError::NothingWrong)), "{outcome:?}");
    let outcome = carry_out(&adoption, true).await;
    assert!(matches!(&outcome, Err(AdoptError::AtWork(who)) if who.role.ends_with("relay")), "{outcome:?}");
    relay.stop().await;
    // A leader that came and went since the look, and a sign of life that came with a dump, from a faster clock.
    let relay = log.relay();
    until("it leads", async || log.count("SELECT count(leader) FROM relay_cursor").await == 1).await;
    relay.stop().await;
    sqlx::raw_sql("INSERT INTO heartbeat VALUES ('gone', 'worker:recorder', now() + interval '1 hour')")
        .execute(&log.pool)
        .await
        .unwrap();
    let outcome = carry_out(&adoption, true).await;
    assert!(matches!(outcome, Err(AdoptError::Led)), "{outcome:?}");
    carry_out(&look(&log).await, true).await.unwrap();
    assert_eq!(log.count(ERA).await, 2);
    live(&log, &[Uuid::new_v4()], 1..=1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_an_era_can_be_higher_but_never_one_that_was() {
    let log = Log::new().await;
    let look = async |era| Adoption::look(&log.pool, &log.kafka, &GROUPS, Some(era)).await;
    assert!(matches!(look(1).await, Err(AdoptError::NotNew { asked: 1, least: 2 })));
    look(7).await.unwrap().carry_out(&log.pool, &log.kafka, true, true).await.unwrap();
    live(&log, &[Uuid::new_v4()], 1..=2).await;
    assert!(log.records().await.iter().all(|record| record.label.era == 7));
    assert!(matches!(look(7).await, Err(AdoptError::NotNew { asked: 7, least: 8 })));
}
