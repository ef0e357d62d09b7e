//! What somebody can do who writes to Kafka and has no key: nothing but fill it.

use std::sync::Arc;
use std::time::Duration;

use ordermill_pipeline::consumer::FloodLimit;
use ordermill_pipeline::partition::partition_of;
use ordermill_pipeline::relay::Adoption;
use ordermill_pipeline::topics;
use ordermill_schemas::headers;
use uuid::Uuid;

use crate::attacker::{Attacker, Captured, forged};
use crate::handlers::Recorder;
use crate::support::{Log, PARTITIONS, Running, first_of, until};

const BALANCES: &str = "balances";

/// A log at work, with keys of which each has a partition of its own, by their partitions' order.
struct Victim {
    log: Log,
    keys: Vec<Uuid>,
    attacker: Attacker,
    relay: Running,
    consumer: Running,
}

impl Victim {
    async fn new() -> Victim {
        Victim::at_work(Log::new().await, keys()).await
    }

    async fn at_work(log: Log, keys: Vec<Uuid>) -> Victim {
        log.make_topics().await;
        let (relay, attacker) = (log.relay(), Attacker::of(&log));
        // With the limit that programs have: what stops a group would stop it here.
        let consumer = log.consumer_of(Arc::<Recorder>::default(), FloodLimit::default());
        Victim { log, keys, attacker, relay, consumer }
    }

    /// Appends the `ordinal`th event of each key, and waits until all are applied.
    async fn go_on(&self, ordinal: i64) {
        for key in &self.keys {
            self.log.append(*key, ordinal).await;
        }
        self.assert_applied(ordinal).await;
    }

    /// Waits until each key has had its first events applied, in order and once, and nothing else.
    async fn assert_applied(&self, last: i64) {
        for key in &self.keys {
            let expected: Vec<i64> = (1..=last).collect();
            let applied = async || self.log.applied_of(*key).await;
            until("the key is applied", async || applied().await.len() >= expected.len()).await;
            assert_eq!(applied().await, expected, "something was applied that never happened");
        }
    }

    /// Nobody is held up, and nothing is taken for lost.
    async fn stop_unharmed(self) {
        let log = &self.log;
        assert_eq!(log.count("SELECT count(*) FROM halted_group WHERE resumed_at IS NULL").await, 0);
        assert_eq!(log.count("SELECT count(*) FROM parked_key").await, 0);
        assert_eq!(log.count("SELECT coalesce(max(label_era), 1)::bigint FROM consumer_offset").await, 1);
        log.until_published().await;
        assert_eq!(log.metrics.relay_repeats.get(), 0, "something was taken for lost");
        self.consumer.stop().await;
        self.relay.stop().await;
    }

    /// Has another relay and another consumer take over, as after a restart of everything.
    async fn restart(self) -> Victim {
        let Victim { log, keys, attacker, relay, consumer } = self;
        consumer.stop().await;
        relay.stop().await;
        let relay = log.relay();
        let consumer = log.consumer_of(Arc::<Recorder>::default(), FloodLimit::default());
        until("the relay leads", async || log.metrics.relay_leading.get() == 1).await;
        Victim { log, keys, attacker, relay, consumer }
    }
}

/// A key for each partition, in their order.
fn keys() -> Vec<Uuid> {
    let of = |partition| {
        std::iter::repeat_with(Uuid::new_v4).find(|key| partition_of(*key, PARTITIONS) == partition)
    };
    (0..PARTITIONS).map(|partition| of(partition).unwrap()).collect()
}

fn partitions() -> std::ops::Range<i32> {
    0..i32::from(PARTITIONS)
}

/// The label that the first event of a segment has.
fn label(segment: i64) -> String {
    format!("1-{}", first_of(segment))
}

fn segment(index: usize) -> i64 {
    i64::try_from(index).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_a_later_era_without_an_event_move_no_label_and_later_events_are_applied() {
    let victim = Victim::new().await;
    victim.go_on(1).await;
    let records: Vec<Captured> =
        partitions().map(|partition| Captured::junk(partition).with(headers::LABEL, "2-1")).collect();
    victim.attacker.send(BALANCES, &records);
    victim.go_on(2).await;
    let victim = victim.restart().await;
    victim.go_on(3).await;
    victim.stop_unharmed().await;
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
async fn twenty_junk_records_at_each_end_have_nothing_published_again() {
    let log = Log::new().await;
    log.make_topics().await;
    let (relay, attacker, keys) =
        (log.relay_that_looks(Duration::from_millis(100)), Attacker::of(&log), keys());
    for key in &keys {
        log.append(*key, 1).await;
    }
    log.until_published().await;
    let junk: Vec<Captured> =
        partitions().flat_map(|partition| (0..20).map(move |_| Captured::junk(partition))).collect();
    attacker.send(BALANCES, &junk);
    // The next leader looks when it takes the lead, and this one has looked before it lets go.
    relay.stop().await;
    let relay = log.relay_that_looks(Duration::from_millis(100));
    until("the relay leads", async || log.metrics.relay_leading.get() == 1).await;
    let consumer = log.consumer(Arc::default());
    log.append(keys[0], 2).await;
    log.until_applied(5).await;
    assert_eq!(log.metrics.relay_repeats.get(), 0);
    let sent = log.metrics.relay_records.get();
    assert_eq!(sent, 5, "records were published again");
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_transaction_at_the_end_of_a_partition_keeps_nobody_from_leading_or_adopting() {
    let victim = Victim::new().await;
    victim.go_on(1).await;
    let junk: Vec<Captured> = partitions().map(Captured::junk).collect();
    victim.attacker.begin(BALANCES, junk).await.commit().await;
    let victim = victim.restart().await;
    victim.go_on(2).await;
    let adoption = Adoption::look(&victim.log.pool, &victim.log.kafka, &Log::groups(), None).await.unwrap();
    assert_eq!(adoption.reason, None);
    victim.stop_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_nobody_up_and_is_not_taken_for_loss() {
    let victim = Victim::new().await;
    victim.go_on(1).await;
    let junk: Vec<Captured> = partitions().map(Captured::junk).collect();
    let open = victim.attacker.begin(BALANCES, junk).await;
    victim.go_on(2).await;
    let victim = victim.restart().await;
    victim.go_on(3).await;
    victim.stop_unharmed().await;
    drop(open);
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
    let is_900 =
        |record: &Captured| String::from_utf8_lossy(record.payload.as_ref().unwrap()).contains("900");
    let stolen: Vec<Captured> = records.into_iter().filter(is_900).collect();
    assert_eq!(stolen.len(), victim.keys.len());
    victim.attacker.send(BALANCES, &stolen);
    victim.go_on(2).await;
    victim.stop_unharmed().await;
    other.consumer.stop().await;
    other.relay.stop().await;
}
