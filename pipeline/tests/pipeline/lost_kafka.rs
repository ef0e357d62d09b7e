//! Kafka hangs, or its data is deleted, all of it or in part, while everything else goes on.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ordermill_pipeline::audit;
use ordermill_pipeline::label::Label;
use ordermill_schemas::Topic;
use ordermill_stack::{Kafka, Private, TestStack};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use crate::support::{Log, PARTITIONS, Running, end_of, until};

/// So many keys that every partition has some.
const SOME_FOR_EVERY_PARTITION: usize = 24;
/// So seldom that it does not look during a test.
const NEVER: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_whose_data_was_deleted_is_filled_again_and_nothing_is_applied_twice_or_skipped() {
    let mut alone = Alone::start().await;
    alone.apply(1..=5).await;
    alone.lose_everything().await;
    alone.apply(6..=8).await;
    alone.stop_with_all_applied(8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_begins_to_count_its_leaders_anew_is_read_on() {
    let mut alone = Alone::start().await;
    alone.apply(1..=5).await;
    // Each time the partitions get a leader anew, of a higher epoch.
    for ordinal in 6..=7 {
        alone.with(|kafka| kafka.restart().unwrap()).await;
        alone.apply(ordinal..=ordinal).await;
    }
    alone.lose_everything().await;
    alone.apply(8..=9).await;
    alone.stop_with_all_applied(9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_waits_in_vain_begins_anew_and_publishes_under_the_same_labels() {
    let mut alone = Alone::start().await;
    alone.apply(1..=1).await;
    alone.with(|kafka| kafka.pause()).await;
    alone.append(2..=3).await;
    until("the relay begins anew", async || alone.log.count("SELECT epoch FROM relay_cursor").await > 1)
        .await;
    alone.with(|kafka| kafka.resume()).await;
    alone.stop_with_all_applied(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_ends_with_records_under_way_leaves_them_to_the_next_and_each_is_applied_once() {
    let mut alone = Alone::start().await;
    alone.apply(1..=1).await;
    alone.with(|kafka| kafka.pause()).await;
    let under_way = alone.log.metrics.relay_lag_segments.clone();
    alone.append(2..=4).await;
    until("the relay has taken them", async || under_way.get() == alone.count(3)).await;
    alone.relay.take().unwrap().stop().await;
    assert_eq!(alone.log.count("SELECT position FROM relay_cursor").await, end_of(alone.count(1)));
    alone.with(|kafka| kafka.resume()).await;
    alone.relay = Some(alone.log.relay());
    alone.stop_with_all_applied(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_does_not_take_yet_is_applied_beside_the_relay_and_skipped_by_whoever_comes_next() {
    let mut alone = Alone::start().await;
    alone.apply(1..=2).await;
    alone.log.until_published().await;
    alone.with(|kafka| kafka.pause()).await;
    alone.apply(3..=4).await;
    assert_eq!(alone.log.count("SELECT position FROM relay_cursor").await, end_of(alone.count(2)));
    // Relay and worker end before Kafka has it, and others come.
    alone.relay.take().unwrap().stop().await;
    let other = Log::on(&alone.log.url, alone.log.kafka.clone()).await;
    other.kafka.keyring.open(&other.pool).await.unwrap();
    let (consumer, relay) = (other.consumer(Arc::default()), other.relay());
    let before = std::mem::replace(&mut alone.consumer, consumer);
    tokio::join!(before.stop(), alone.with(|kafka| kafka.resume()));
    alone.relay = Some(relay);
    alone.append(5..=5).await;
    alone.stop_with_all_applied(5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_the_group_gave_to_nobody_while_their_topic_was_away_are_read_on() {
    let mut alone = Alone::start().await;
    alone.apply(1..=2).await;
    // A client that takes a topic which is gone for one that is about to come.
    let mut kafka = alone.log.kafka.clone();
    kafka.settings.insert("topic.metadata.propagation.max.ms".to_owned(), "3600000".to_owned());
    let hopeful = Log::on(&alone.log.url, kafka).await;
    std::mem::replace(&mut alone.consumer, hopeful.consumer(Arc::default())).stop().await;
    alone.apply(3..=4).await;
    alone.relay.take().unwrap().stop().await;
    alone.lose_everything().await;
    // A client that looks for its topics before it joins leaves the group instead: then nobody has the partitions, either.
    let _ = tokio::time::timeout(Duration::from_secs(15), alone.log.until_settled(1)).await;
    alone.relay = Some(alone.log.relay());
    alone.apply(5..=6).await;
    alone.stop_with_all_applied(6).await;
}

/// A log that is published and applied by a broker that nobody else uses, so that it may be killed.
struct Alone {
    log: Log,
    relay: Option<Running>,
    consumer: Running,
    keys: Vec<Uuid>,
    kafka: Option<Private<Kafka>>,
}

impl Alone {
    async fn start() -> Alone {
        let kafka = tokio::task::spawn_blocking(Private::kafka).await.unwrap().unwrap();
        let url = TestStack::shared().await.fresh_database().await;
        let log = Log::at(&url, &kafka.brokers(), "lost.").await;
        let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
        Alone { log, relay: Some(relay), consumer, keys: keys(6), kafka: Some(kafka) }
    }

    /// Appends some events of each key, in order.
    async fn append(&self, ordinals: RangeInclusive<i64>) {
        for ordinal in ordinals {
            append(&self.log, &self.keys, ordinal).await;
        }
    }

    /// Appends some events of each key, and waits until all up to them are applied.
    async fn apply(&self, ordinals: RangeInclusive<i64>) {
        let last = *ordinals.end();
        self.append(ordinals).await;
        self.log.until_applied(self.count(last)).await;
    }

    /// How many events there are when each key has that many.
    fn count(&self, of_each: i64) -> i64 {
        of_each * i64::try_from(self.keys.len()).unwrap()
    }

    /// Does what blocks.
    async fn with(&mut self, act: impl FnOnce(&Kafka) + Send + 'static) {
        let kafka = self.kafka.take().unwrap();
        let acted = tokio::task::spawn_blocking(move || {
            act(&kafka);
            kafka
        });
        self.kafka = Some(acted.await.unwrap());
    }

    async fn lose_everything(&mut self) {
        self.with(|kafka| {
            kafka.kill9();
            kafka.wipe_data().unwrap();
            kafka.restart().unwrap();
        })
        .await;
    }

    /// Waits until Kafka holds every event of each key, the first to the `last`th, and each is applied, once and in order.
    async fn stop_with_all_applied(self, last: i64) {
        let log = &self.log;
        log.until_applied(self.count(last)).await;
        log.until_published().await;
        // Some may be there twice, under the same label: relay and consumers both look after what was lost.
        let labels: BTreeSet<Label> = log.records().await.iter().map(|record| record.label).collect();
        assert_eq!(i64::try_from(labels.len()).unwrap(), self.count(last), "Kafka was not filled again");
        for key in &self.keys {
            assert_eq!(log.applied_of(*key).await, (1..=last).collect::<Vec<i64>>());
        }
        self.consumer.stop().await;
        self.relay.unwrap().stop().await;
    }
}

fn admin(log: &Log) -> AdminClient<DefaultClientContext> {
    log.kafka.client().create().unwrap()
}

/// Deletes what Kafka holds, as retention would.
async fn delete_records(log: &Log) {
    let mut all = TopicPartitionList::new();
    for partition in 0..i32::from(PARTITIONS) {
        all.add_partition_offset(&log.kafka.full_name("balances"), partition, Offset::End).unwrap();
    }
    admin(log).delete_records(&all, &AdminOptions::new()).await.unwrap();
    assert!(log.records().await.is_empty());
}

async fn delete_topic(log: &Log) {
    let topic = log.kafka.full_name("balances");
    let deleted = admin(log).delete_topics(&[&topic], &AdminOptions::new()).await.unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
}

/// Appends an event of each key.
async fn append(log: &Log, keys: &[Uuid], ordinal: i64) {
    for key in keys {
        log.append(*key, ordinal).await;
    }
}

fn keys(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::new_v4()).collect()
}

/// Waits until Kafka holds every event of the log.
async fn until_filled(log: &Log) {
    until("Kafka holds everything again", async || {
        audit::log_against_kafka::<Topic>(&log.pool, &log.kafka).await.is_ok_and(|check| check.ok)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_under_the_leading_relay_is_made_and_filled_again() {
    let log = Log::new().await;
    let relay = log.relay();
    append(&log, &keys(SOME_FOR_EVERY_PARTITION), 1).await;
    log.until_published().await;
    // Nobody reads it, and nothing new is published to it.
    delete_topic(&log).await;
    until_filled(&log).await;
    assert!(log.metrics.relay_repeats.get() > 0);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_under_the_leading_relay_is_filled_once_something_is_published() {
    let log = Log::new().await;
    let relay = log.relay_that_looks(NEVER);
    let keys = keys(SOME_FOR_EVERY_PARTITION);
    append(&log, &keys, 1).await;
    append(&log, &keys, 2).await;
    log.until_published().await;
    delete_topic(&log).await;
    until("the topic is made anew", async || {
        log.make_topics().await;
        log.records().await.is_empty()
    })
    .await;
    append(&log, &keys, 3).await;
    until_filled(&log).await;
    log.until_published().await;
    let consumer = log.consumer(Arc::default());
    log.until_applied(72).await;
    assert_eq!(log.count("SELECT count(*) FROM applied").await, 72);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_on_purpose_is_published_again_to_who_has_not_read_it() {
    let log = Log::new().await;
    let relay = log.relay();
    let keys = keys(SOME_FOR_EVERY_PARTITION);
    append(&log, &keys, 1).await;
    let consumer = log.consumer(Arc::default());
    log.until_applied(24).await;
    consumer.stop().await;
    append(&log, &keys, 2).await;
    log.until_published().await;
    delete_records(&log).await;
    let consumer = log.consumer(Arc::default());
    log.until_applied(48).await;
    assert_eq!(log.count("SELECT count(*) FROM applied").await, 48);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_group_gets_from_the_log_what_kafka_does_not_hold_any_more() {
    let log = Log::new().await;
    let relay = log.relay();
    append(&log, &keys(SOME_FOR_EVERY_PARTITION), 1).await;
    log.until_published().await;
    delete_records(&log).await;
    // Nothing new is published, so nothing in Kafka tells the group that it misses something.
    let consumer = log.consumer(Arc::default());
    log.until_applied(24).await;
    assert_eq!(log.count("SELECT count(*) FROM applied").await, 24);
    consumer.stop().await;
    relay.stop().await;
}
