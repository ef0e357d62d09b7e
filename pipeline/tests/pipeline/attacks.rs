//! What somebody can do who writes to Kafka and has no key: nothing but fill it.

use ordermill_pipeline::topics;
use ordermill_schemas::headers;
use uuid::Uuid;

use crate::attacker::{Captured, forged};
use crate::support::{Log, PARTITIONS, first_of};
use crate::victim::Victim;

const BALANCES: &str = "balances";

/// The label that the first event of a segment has.
fn label(segment: i64) -> String {
    format!("1-{}", first_of(segment))
}

fn segment(index: usize) -> i64 {
    i64::try_from(index).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_event_is_not_applied_whatever_its_label_says() {
    let victim = Victim::new().await;
    victim.go_on(1).await;
    let forgeries = victim.keys.iter().enumerate().flat_map(|(index, key)| {
        let partition = i32::try_from(index).unwrap();
        // Each key's first event is a segment of its own. What follows on it, what is far ahead, and what begins an era.
        let last = label(segment(index + 1));
        [
            forged(partition, *key, 900, &label(900), &last),
            forged(partition, *key, 901, "1-90000001", ""),
            forged(partition, *key, 902, "2-1", ""),
            forged(partition, *key, 903, &label(segment(index + 5)), &last),
        ]
    });
    victim.attacker.send(BALANCES, &forgeries.collect::<Vec<_>>());
    victim.go_on(2).await;
    victim.go_on(3).await;
    victim.stop_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_junk_records_halt_no_group_and_hold_nothing_up() {
    let victim = Victim::new().await;
    victim.go_on(1).await;
    let junk = |number: i32| {
        let record = Captured::junk(number % i32::from(PARTITIONS));
        let key = victim.keys[usize::try_from(number).unwrap() % victim.keys.len()];
        match number % 4 {
            0 => record,
            1 => Captured { key: Some(key.to_string().into_bytes()), ..record },
            2 => record.with(headers::ID, &Uuid::new_v4().to_string()),
            _ => record
                .with(headers::LABEL, &format!("1-{}", 100_000_000 + number))
                .with(headers::ID, &Uuid::new_v4().to_string()),
        }
    };
    let all: Vec<Captured> = (0..600).map(junk).collect();
    for topic in topics::names(&Log::groups()) {
        victim.attacker.send(&topic, &all);
    }
    victim.go_on(2).await;
    // It also lies at the end of every partition now, for whoever begins there.
    for topic in topics::names(&Log::groups()) {
        victim.attacker.send(&topic, &all);
    }
    let victim = victim.restart().await;
    victim.go_on(3).await;
    victim.stop_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_true_record_with_one_header_changed_or_elsewhere_than_it_was_sent_is_not_applied() {
    let victim = Victim::new().await;
    victim.go_on(1).await;
    let true_record =
        victim.attacker.capture(BALANCES).await.into_iter().find(|record| record.partition == 0).unwrap();
    let last = true_record.header(headers::LABEL).to_owned();
    let elsewhere = Captured { partition: 1, ..true_record.clone() }.with(headers::PREVIOUS, &label(2));
    let records = [
        // It would follow on the last one of its partition.
        true_record.clone().with(headers::LABEL, &label(900)).with(headers::PREVIOUS, &last),
        true_record.clone().with(headers::LABEL, "2-1").without(headers::PREVIOUS),
        Captured { partition: 1, ..true_record.clone() },
        elsewhere.with(headers::LABEL, &label(901)),
        true_record.with(headers::ID, &Uuid::new_v4().to_string()).with(headers::LABEL, &label(902)),
    ];
    victim.attacker.send(BALANCES, &records);
    victim.go_on(2).await;
    victim.go_on(3).await;
    victim.stop_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_true_record_of_another_installation_is_not_applied() {
    let victim = Victim::new().await;
    // It has the same keys, and a history that goes on differently; so its labels fit.
    let other = Victim::at_work(Log::new().await, victim.keys.clone()).await;
    victim.go_on(1).await;
    other.go_on(1).await;
    for key in &other.keys {
        other.log.append(*key, 900).await;
    }
    other.log.until_applied(8).await;
    let records = other.attacker.capture(BALANCES).await;
    let is_900 = |record: &Captured| {
        String::from_utf8_lossy(record.payload.as_ref().unwrap()).contains("\"available\":900")
    };
    let stolen: Vec<Captured> = records.into_iter().filter(is_900).collect();
    assert_eq!(stolen.len(), victim.keys.len());
    victim.attacker.send(BALANCES, &stolen);
    victim.go_on(2).await;
    victim.stop_unharmed().await;
    other.consumer.stop().await;
    other.relay.stop().await;
}
