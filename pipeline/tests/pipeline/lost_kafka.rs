//! Kafka's data is deleted while everything else goes on.

use std::collections::BTreeSet;
use std::sync::Arc;

use ordermill_pipeline::label::Label;
use ordermill_stack::{Private, TestStack};
use uuid::Uuid;

use crate::support::Log;

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_whose_data_was_deleted_is_filled_again_and_nothing_is_applied_twice_or_skipped() {
    let kafka = tokio::task::spawn_blocking(Private::kafka).await.unwrap().unwrap();
    let stack = TestStack::shared().await;
    let log = Log::at(&stack.fresh_database().await, &kafka.brokers(), "lost.").await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let keys: Vec<Uuid> = (0..6).map(|_| Uuid::new_v4()).collect();
    for ordinal in 1..=5 {
        for key in &keys {
            log.append(*key, ordinal).await;
        }
    }
    log.until_applied(30).await;
    let kafka = tokio::task::spawn_blocking(move || {
        kafka.kill9();
        kafka.wipe_data().unwrap();
        kafka.restart().unwrap();
        kafka
    })
    .await
    .unwrap();
    for ordinal in 6..=8 {
        for key in &keys {
            log.append(*key, ordinal).await;
        }
    }
    log.until_applied(48).await;
    log.until_published().await;
    // Some may be there twice, under the same label: relay and consumers both look after what was lost.
    let labels: BTreeSet<Label> = log.records().await.iter().map(|record| record.label).collect();
    assert_eq!(labels.len(), 48, "Kafka was not filled again");
    let applied = log.applied().await;
    for key in &keys {
        let ordinals: Vec<i64> =
            applied.iter().filter(|(k, _)| k == key).map(|(_, ordinal)| *ordinal).collect();
        assert_eq!(ordinals, (1..=8).collect::<Vec<i64>>());
    }
    consumer.stop().await;
    relay.stop().await;
    drop(kafka);
}
