//! Wire keys that are replaced or revoked while their records lie in Kafka.

use std::sync::Arc;

use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::database;
use ordermill_pipeline::dead_letters::State;
use ordermill_pipeline::dead_letters::edits;
use ordermill_pipeline::dead_letters::letters::{self, Filter};
use ordermill_pipeline::dead_letters::replays::{self, Options, Progress, Selection, Verdicts};
use ordermill_pipeline::{audit, authenticity};
use ordermill_schemas::{Topic, headers};

use crate::attacker::{forged, signed};
use crate::support::{Log, until};
use crate::victim::Victim;

const BALANCES: &str = "balances";

/// The label of the last event of the log.
async fn last_label(log: &Log) -> i64 {
    log.count("SELECT max(position) FROM event_log").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_signed_that_is_retired_meanwhile_is_applied() {
    let mut victim = Victim::new().await;
    victim.go_on(1).await;
    victim.consumer.stop().await;
    for key in &victim.keys {
        victim.log.append(*key, 2).await;
    }
    victim.log.until_published().await;
    let keyring = &victim.log.kafka.keyring;
    authenticity::rotate(&victim.log.pool, &keyring.secrets()).await.unwrap();
    keyring.refresh(&victim.log.pool).await.unwrap();
    victim.consumer = victim.log.consumer(Arc::default());
    victim.go_on(3).await;
    let by_key = victim.attacker.capture(BALANCES).await;
    let by_key: Vec<&str> = by_key.iter().map(|record| record.header(headers::KEY)).collect();
    assert_eq!(by_key.iter().filter(|id| id.starts_with("1-1-")).count(), 8, "{by_key:?}");
    assert_eq!(by_key.iter().filter(|id| id.starts_with("1-2-")).count(), 4, "{by_key:?}");
    victim.stop_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_revoked_key_signed_is_published_again_and_applied_once_and_its_forgeries_are_not() {
    let mut victim = Victim::new().await;
    victim.go_on(1).await;
    victim.consumer.stop().await;
    for key in &victim.keys {
        victim.log.append(*key, 2).await;
    }
    victim.log.until_published().await;
    let keyring = &victim.log.kafka.keyring;
    let keys = keyring.keys();
    let known = keys.signing(1).unwrap();
    authenticity::revoke(&victim.log.pool, &keyring.secrets(), known.id()).await.unwrap();
    keyring.refresh(&victim.log.pool).await.unwrap();
    let last = last_label(&victim.log).await;
    // It follows on the last record of its partition, and is signed as the relay would have signed it before.
    let key = *victim.keys.last().unwrap();
    let forgery = forged(3, key, 900, &format!("1-{}", last + 1), &format!("1-{last}"));
    victim.attacker.send(BALANCES, &[signed(&victim.log, forgery, known)]);
    victim.consumer = victim.log.consumer(Arc::default());
    victim.assert_applied(2).await;
    victim.go_on(3).await;
    assert!(victim.log.metrics.relay_repeats.get() > 0, "it was believed, or was not needed");
    victim.log.until_published().await;
    let check = audit::log_against_kafka::<Topic>(&victim.log.pool, &victim.log.kafka).await.unwrap();
    assert!(check.ok, "not everything is there under another key: {:#?}", check.violations);
    let put_aside = victim.log.count("SELECT count(*) FROM dead_letter").await;
    assert_eq!(put_aside, 0, "what a revoked key signed is only passed over");
    victim.consumer.stop().await;
    victim.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_letter_is_never_applied_whatever_its_headers_say() {
    let victim = Victim::new().await;
    victim.go_on(1).await;
    let (log, key) = (&victim.log, victim.keys[0]);
    let last = last_label(log).await;
    victim.attacker.send(BALANCES, &[forged(0, key, 900, &format!("1-{}", last + 1), &format!("1-{last}"))]);
    let list = async || letters::list(&log.pool, &Filter::default(), None, 10).await.unwrap();
    until("it is put aside", async || list().await.len() == 1).await;
    let letter = list().await.remove(0);
    assert_eq!((letter.code.as_deref(), letter.state), (Some("FOREIGN"), State::Parked));
    let (id, now) = (letter.dead_letter_id, Clock::system().now());
    let payload = format!(r#"{{"user_id":"{key}","amount":1,"available":901,"held":1}}"#);
    edits::edit(&log.pool, id, payload.as_bytes(), "test", now).await.unwrap();
    let mut transaction = database::begin(&log.pool).await.unwrap();
    let as_it_is = Options { dry_run: false, rate_per_second: None };
    let asked =
        replays::request(&mut transaction, &Selection::Ids(vec![id]), as_it_is, "test", now).await.unwrap();
    transaction.commit().await.unwrap();
    let replay = async || replays::get(&log.pool, asked.replay_id).await.unwrap().unwrap();
    until("the replay is done", async || replay().await.progress == Progress::Done).await;
    assert_eq!(replay().await.verdicts, Verdicts { failed_again: 1, ..Verdicts::default() });
    victim.go_on(2).await;
    victim.stop_unharmed().await;
}
