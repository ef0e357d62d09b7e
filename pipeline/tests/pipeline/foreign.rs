//! Records that others have written to our topics: they move the offset and nothing else.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ordermill_pipeline::consumer::FloodLimit;
use ordermill_pipeline::metrics::GroupLabel;
use ordermill_schemas::headers;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use uuid::Uuid;

use crate::consumer::{append_many, assert_applied, keys};
use crate::handlers::Recorder;
use crate::support::{DEADLINE, Log, PARTITIONS, Running, until};

/// Publishes past the relay.
fn publish(log: &Log, key: &[u8], payload: &[u8], headers: OwnedHeaders) {
    let producer: BaseProducer = log.kafka.client().set("partitioner", "murmur2_random").create().unwrap();
    let topic = log.kafka.full_name("balances");
    producer.send(BaseRecord::to(&topic).key(key).payload(payload).headers(headers)).unwrap();
    producer.flush(DEADLINE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_record_becomes_a_dead_letter_and_the_rest_goes_on() {
    let log = Log::new().await;
    log.make_topics().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let keys = keys(4);
    append_many(&log, &keys, 1, 2).await;
    publish(&log, keys[0].to_string().as_bytes(), b"\xff\x00 not ours", OwnedHeaders::new());
    let lies = OwnedHeaders::new()
        .insert(Header { key: headers::TYPE, value: Some("balance.\0charged") })
        .insert(Header { key: headers::DATA_SCHEMA, value: Some("urn:ordermill:schema:balance.charged:1") });
    publish(&log, keys[1].to_string().as_bytes(), b"{}", lies);
    append_many(&log, &keys, 3, 4).await;
    assert_applied(&log, 16).await;
    until("both are dead letters", async || log.count("SELECT count(*) FROM dead_letter").await == 2).await;
    assert_eq!(log.count("SELECT count(*) FROM dead_letter WHERE code = 'FOREIGN'").await, 2);
    let kept =
        log.count("SELECT count(*) FROM dead_letter WHERE payload = '\\xff00206e6f74206f757273'").await;
    assert_eq!(kept, 1, "the payload is not kept to the byte");
    until("their topic has them", async || {
        log.count("SELECT count(*) FROM event_log, relay_cursor c WHERE topic = 'balances.recorder.dlt' AND event_log.position <= c.position").await == 2
    })
    .await;
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_record_of_any_size_and_with_a_header_that_can_not_be_read_becomes_a_dead_letter() {
    let log = Log::new().await;
    log.make_topics().await;
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    let keys = keys(4);
    // No database can compress it into a row of an index, nor does it fit into a message with such a payload.
    let random: Vec<u8> = (0..4_000).flat_map(|_| *Uuid::new_v4().as_bytes()).collect();
    publish(&log, &random, &vec![b'x'; 900_000], OwnedHeaders::new());
    publish_with_unreadable_header(&log, &keys[1].to_string()).await;
    append_many(&log, &keys, 1, 2).await;
    assert_applied(&log, 8).await;
    let (of_64_kb, foreign) = (
        "SELECT count(*) FROM dead_letter WHERE length(foreign_record_key) = 64000 AND length(payload) = 900000",
        "SELECT count(*) FROM dead_letter WHERE code = 'FOREIGN'",
    );
    until("both are dead letters", async || log.count(foreign).await == 2).await;
    assert_eq!(log.count(of_64_kb).await, 1, "the row keeps all of it");
    log.until_published().await;
    consumer.stop().await;
    relay.stop().await;
    // Nor does it keep the next relay and the next consumer from their work.
    let (relay, consumer) = (log.relay(), log.consumer(Arc::default()));
    append_many(&log, &keys, 3, 3).await;
    assert_applied(&log, 12).await;
    consumer.stop().await;
    relay.stop().await;
}

/// Publishes a record as only programs in other languages can: the name of its header is not UTF-8.
async fn publish_with_unreadable_header(log: &Log, key: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{}").unwrap();
    let mut kcat = tokio::process::Command::new("kcat");
    kcat.args(["-P", "-b", &log.kafka.brokers, "-t", &log.kafka.full_name("balances"), "-k", key, "-H"]);
    let ended = kcat.arg(OsStr::from_bytes(b"\xff=any")).arg(file.path()).output().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

/// Somebody who writes to the topics what he likes, in each partition.
struct Stranger {
    producer: BaseProducer,
    topic: String,
}

impl Stranger {
    fn new(log: &Log) -> Stranger {
        Stranger { producer: log.kafka.client().create().unwrap(), topic: log.kafka.full_name("balances") }
    }

    /// In transactions of his own.
    fn with_transactions(log: &Log) -> Stranger {
        let id = Uuid::new_v4().to_string();
        let producer: BaseProducer = log.kafka.client().set("transactional.id", id).create().unwrap();
        producer.init_transactions(DEADLINE).unwrap();
        producer.begin_transaction().unwrap();
        Stranger { producer, topic: log.kafka.full_name("balances") }
    }

    /// Writes so many records to each partition, each with such headers.
    fn write(&self, count: usize, headers: &[(&str, &str)]) {
        for index in 0..count {
            for partition in 0..i32::from(PARTITIONS) {
                let all = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
                    all.insert(Header { key, value: Some(*value) })
                });
                let key = format!("stranger {index}");
                let record = BaseRecord::to(&self.topic).partition(partition).key(&key).payload("not ours");
                self.producer.send(record.headers(all)).unwrap();
            }
        }
        self.producer.flush(DEADLINE).unwrap();
    }
}

/// A label of a later era, as nobody but the relay may write it.
const LATER: (&str, &str) = (headers::LABEL, "2-1");

fn recorder_with_limit(log: &Log) -> Running {
    log.consumer_of(Arc::new(Recorder::default()), FloodLimit::default())
}

fn foreign_met(log: &Log) -> u64 {
    log.metrics.foreign.get_or_create(&GroupLabel { group: "recorder".to_owned() }).get()
}

const FOREIGN: &str = "SELECT count(*) FROM dead_letter WHERE code = 'FOREIGN'";
/// Labels that no event of the log has.
const WRONG_LABELS: &str = "SELECT count(*) FROM consumer_offset WHERE label_era > 1
    OR label_position > 0 AND label_position NOT IN (SELECT position FROM event_log)";

#[tokio::test(flavor = "multi_thread")]
async fn a_label_without_the_other_headers_moves_no_label_and_nothing_is_skipped_for_it() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), recorder_with_limit(&log));
    let keys = keys(12);
    append_many(&log, &keys, 1, 2).await;
    assert_applied(&log, 24).await;
    Stranger::new(&log).write(1, &[LATER]);
    until("they are met", async || log.count(FOREIGN).await == i64::from(PARTITIONS)).await;
    append_many(&log, &keys, 3, 4).await;
    assert_applied(&log, 48).await;
    assert_eq!(log.count(WRONG_LABELS).await, 0);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_foreign_records_halt_no_group_and_are_put_aside_up_to_a_number() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), recorder_with_limit(&log));
    let keys = keys(12);
    append_many(&log, &keys, 1, 2).await;
    let stranger = Stranger::new(&log);
    stranger.write(40, &[]);
    stranger.write(40, &[(headers::ID, "0192f0c1-7a3e-7000-8000-000000000001"), LATER]);
    append_many(&log, &keys, 3, 4).await;
    assert_applied(&log, 48).await;
    let all = 80 * u64::from(PARTITIONS.unsigned_abs());
    until("all are met", async || foreign_met(&log) == all).await;
    assert_eq!(log.count(FOREIGN).await, 100, "the others are only counted");
    assert_eq!(log.count("SELECT count(*) FROM halted_group").await, 0);
    assert_eq!(log.count("SELECT count(*) FROM parked_key").await, 0);
    assert_eq!(log.count(WRONG_LABELS).await, 0);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_begins_behind_foreign_records_knows_the_partition_by_the_relays_last_one() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), recorder_with_limit(&log));
    let keys = keys(12);
    append_many(&log, &keys, 1, 2).await;
    assert_applied(&log, 24).await;
    Stranger::new(&log).write(20, &[LATER]);
    let last = "SELECT count(*) FROM consumer_offset WHERE next_offset > coalesce(tip_offset, -1) + 20";
    until("they are passed", async || log.count(last).await == i64::from(PARTITIONS)).await;
    consumer.stop().await;
    relay.stop().await;
    let letters = log.count(FOREIGN).await;
    let consumer = recorder_with_limit(&log);
    log.until_settled(1).await;
    let skipped = log.metrics.skipped.get_or_create(&GroupLabel { group: "recorder".to_owned() }).get();
    let relay = log.relay();
    append_many(&log, &keys, 3, 3).await;
    assert_applied(&log, 36).await;
    assert_eq!(log.count(FOREIGN).await, letters, "what was put aside is put aside again");
    assert_eq!(skipped, 0, "it was read from its beginning");
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_open_holds_up_nobody_and_one_that_ended_leaves_no_gap() {
    let log = Log::new().await;
    let (relay, consumer) = (log.relay(), recorder_with_limit(&log));
    let keys = keys(12);
    append_many(&log, &keys, 1, 1).await;
    assert_applied(&log, 12).await;
    let open = tokio::task::block_in_place(|| Stranger::with_transactions(&log));
    open.write(1, &[]);
    append_many(&log, &keys, 2, 2).await;
    let began = Instant::now();
    assert_applied(&log, 24).await;
    assert!(began.elapsed() < Duration::from_secs(8), "it was waited for the transaction");
    tokio::task::block_in_place(|| open.producer.commit_transaction(DEADLINE)).unwrap();
    // A control record is the end of each partition.
    consumer.stop().await;
    let consumer = recorder_with_limit(&log);
    append_many(&log, &keys, 3, 3).await;
    assert_applied(&log, 36).await;
    assert_eq!(log.metrics.relay_repeats.get(), 0, "nothing was lost");
    consumer.stop().await;
    relay.stop().await;
}
