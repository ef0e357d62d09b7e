//! A log of its own for every test, with a relay and consumers that can be started and stopped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ordermill_pipeline::authenticity::{Keyring, RootSecret};
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::consumer::{self, ConsumerConfig, FloodLimit, Handler, Runtime};
use ordermill_pipeline::heartbeat::Signs;
use ordermill_pipeline::journal::{Journal, Loaded, Statement, Stored, Writes};
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_pipeline::label::Label;
use ordermill_pipeline::log::{Entry, Origin};
use ordermill_pipeline::metrics::PipelineMetrics;
use ordermill_pipeline::relay::{self, Beside, RelayConfig};
use ordermill_pipeline::trace::TraceContext;
use ordermill_pipeline::wake::Wake;
use ordermill_pipeline::{database, topics};
use ordermill_schemas::balances::BalanceCharged;
use ordermill_schemas::{Event, Topic, headers};
use ordermill_stack::TestStack;
use prometheus_client::registry::Registry;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::handlers::{Bystander, Recorder, Witness};

/// How long anything may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
pub(crate) const PARTITIONS: i16 = 4;

pub(crate) struct Log {
    pub(crate) url: String,
    pub(crate) pool: PgPool,
    pub(crate) kafka: KafkaConfig,
    pub(crate) metrics: PipelineMetrics,
    pub(crate) wake: Wake,
    pub(crate) journal: Journal,
}

/// Something that runs until it is stopped, or dropped by a test that fails: its thread would keep the test from
/// ending.
pub(crate) struct Running {
    shutdown: DropGuard,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn stop(self) {
        drop(self.shutdown);
        self.task.await.unwrap();
    }
}

impl Log {
    pub(crate) async fn new() -> Log {
        let stack = TestStack::shared().await;
        Log::at(&stack.fresh_database().await, &stack.kafka_brokers, &stack.fresh_prefix()).await
    }

    pub(crate) async fn at(url: &str, brokers: &str, prefix: &str) -> Log {
        let secrets = RootSecret::generate().unwrap().into();
        let log = Log::on(url, KafkaConfig::new(brokers, prefix, secrets)).await;
        log.install().await;
        log
    }

    /// On a database that has a log already, with a keyring of its own, as another process has.
    pub(crate) async fn on(url: &str, mut kafka: KafkaConfig) -> Log {
        kafka.keyring = Keyring::new(kafka.keyring.secrets());
        // Shown where a test fails; RUST_LOG chooses.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let pool = database::connect(url, "test", 24).await.unwrap();
        let metrics = PipelineMetrics::register(&mut Registry::default());
        let wake = Wake::default();
        let journal = Journal::new(pool.clone(), Clock::system(), wake.clone(), PARTITIONS);
        Log { url: url.to_owned(), pool, kafka, metrics, wake, journal }
    }

    /// A journal as another process has it: it has learnt no word yet.
    pub(crate) fn fresh_journal(&self) -> Journal {
        Journal::new(self.pool.clone(), Clock::system(), Wake::default(), PARTITIONS)
    }

    /// Waits until so many sessions of the database wait for locks.
    pub(crate) async fn until_waiting_for_locks(&self, count: i64) {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        until("sessions wait for locks", async || self.count(waiting).await == count).await;
    }

    async fn install(&self) {
        let migration = include_str!("../../../migrations/0001_pipeline.sql");
        sqlx::raw_sql(migration).execute(&self.pool).await.unwrap();
        sqlx::raw_sql(
            "CREATE TABLE aggregates (key uuid PRIMARY KEY, sequence int NOT NULL);
             CREATE TABLE recorded (key uuid PRIMARY KEY, version int NOT NULL, state jsonb NOT NULL, bulk json);
             CREATE TABLE applied (
                 ordinal bigint GENERATED ALWAYS AS IDENTITY, event_id uuid PRIMARY KEY, key uuid NOT NULL,
                 available bigint NOT NULL CONSTRAINT no_thirteen CHECK (available <> 13));
             CREATE TABLE witnessed (event_id uuid PRIMARY KEY,
                 available bigint NOT NULL CONSTRAINT no_thirteen_either CHECK (available <> 13))",
        )
        .execute(&self.pool)
        .await
        .unwrap();
        relay::install(&self.pool, None, PARTITIONS).await.unwrap();
        self.kafka.keyring.open(&self.pool).await.unwrap();
        // As every process does that starts.
        let words = ["balances", "balance.charged", "dead_letter.recorded", "test"].map(str::to_owned);
        let of_groups = GROUPS.map(|(group, _)| [format!("worker:{group}"), format!("balances.{group}.dlt")]);
        let words: Vec<String> = words.into_iter().chain(of_groups.into_iter().flatten()).collect();
        self.journal.learn(words.iter().map(String::as_str)).await.unwrap();
    }

    pub(crate) fn groups() -> Vec<(&'static str, &'static [Topic])> {
        GROUPS.to_vec()
    }

    pub(crate) fn relay(&self) -> Running {
        self.relay_that_looks(Duration::from_millis(500))
    }

    /// A relay that looks so often what Kafka holds.
    pub(crate) fn relay_that_looks(&self, look_every: Duration) -> Running {
        let shutdown = CancellationToken::new();
        let instance = Uuid::new_v4().to_string();
        let signs = Signs::start(&self.pool, &instance, &shutdown);
        let config = RelayConfig {
            kafka: self.kafka.clone(),
            topics: topics::names(&Log::groups()),
            instance,
            lease: Duration::from_secs(3),
            look_every,
            beside: Beside::Nothing,
            stalled_after: Duration::from_secs(5),
        };
        let task = tokio::spawn(relay::run(
            self.pool.clone(),
            config,
            self.wake.clone(),
            self.metrics.clone(),
            signs,
            shutdown.clone(),
        ));
        Running { shutdown: shutdown.drop_guard(), task }
    }

    pub(crate) fn consumer(&self, handler: Arc<Recorder>) -> Running {
        self.consumer_of(handler, FloodLimit { share_max: 1.0, ..FloodLimit::default() })
    }

    /// A consumer of any group, with a limit for failures.
    pub(crate) fn consumer_of<H: Handler>(&self, handler: Arc<H>, flood_limit: FloodLimit) -> Running {
        let shutdown = CancellationToken::new();
        let runtime = Runtime {
            journal: self.journal.clone(),
            metrics: self.metrics.clone(),
            // Each is as a process of its own.
            signs: Signs::start(&self.pool, &Uuid::new_v4().to_string(), &shutdown),
            shutdown: shutdown.clone(),
        };
        let config = ConsumerConfig {
            kafka: self.kafka.clone(),
            batch_records_max: 500,
            session_timeout_ms: 6_000,
            flood_limit,
        };
        let task = tokio::spawn(consumer::run(runtime, config, handler));
        Running { shutdown: shutdown.drop_guard(), task }
    }

    pub(crate) async fn make_topics(&self) {
        topics::ensure(&self.kafka, PARTITIONS, &Log::groups()).await.unwrap();
    }

    /// Appends the next event of `key` in a transaction of its own.
    pub(crate) async fn append(&self, key: Uuid, available: i64) {
        let mut transaction = database::begin(&self.pool).await.unwrap();
        let stored = store_next(&self.journal, &mut transaction, key, available).await;
        transaction.commit().await.unwrap();
        self.journal.committed(stored);
    }

    /// Appends `availables` as the next events of `key`, in one transaction.
    pub(crate) async fn append_all(&self, key: Uuid, availables: &[i64]) {
        let mut transaction = database::begin(&self.pool).await.unwrap();
        for available in availables {
            append_next(&self.journal, &mut transaction, key, *available).await;
        }
        transaction.commit().await.unwrap();
    }

    /// Appends an entry that somebody has spoilt.
    pub(crate) async fn append_spoilt(&self, key: Uuid, spoil: impl FnOnce(&mut Entry)) {
        let mut transaction = database::begin(&self.pool).await.unwrap();
        let mut entry = next_entry(&mut transaction, key, 1).await;
        spoil(&mut entry);
        append(&self.journal, &mut transaction, vec![entry]).await;
        transaction.commit().await.unwrap();
    }

    /// Every record of the topic `balances`, partition by partition in the order of offsets.
    pub(crate) async fn records(&self) -> Vec<Published> {
        self.records_of(Topic::Balances.name()).await
    }

    /// Every record of a topic.
    pub(crate) async fn records_of(&self, topic: &str) -> Vec<Published> {
        let (kafka, topic) = (self.kafka.clone(), self.kafka.full_name(topic));
        tokio::task::spawn_blocking(move || read_topic(&kafka, &topic)).await.unwrap()
    }

    /// Waits until so many members of the recorders' group have been told their parts. Answers their ids, which a client
    /// has as long as it stays.
    pub(crate) async fn until_settled(&self, count: usize) -> BTreeSet<String> {
        let mut members = BTreeSet::new();
        until("the group has shared out", async || {
            members = self.settled_members().await.unwrap_or_default();
            members.len() == count
        })
        .await;
        members
    }

    async fn settled_members(&self) -> Option<BTreeSet<String>> {
        let (kafka, name) = (self.kafka.clone(), self.kafka.full_name(Recorder::GROUP));
        let look = move || {
            let client: BaseConsumer = kafka.client().set("group.id", "test-watcher").create().unwrap();
            let found = client.fetch_group_list(Some(&name), DEADLINE / 10).ok()?;
            let group = found.groups().iter().find(|group| group.state() == "Stable")?;
            Some(group.members().iter().map(|member| member.id().to_owned()).collect())
        };
        tokio::task::spawn_blocking(look).await.unwrap()
    }

    /// Waits until everything that is committed has been acknowledged by Kafka.
    pub(crate) async fn until_published(&self) {
        until("everything is published", async || {
            self.count("SELECT count(*) FROM event_log, relay_cursor c WHERE event_log.position > c.position")
                .await
                == 0
        })
        .await;
    }

    pub(crate) async fn until_applied(&self, count: i64) {
        until("everything is applied", async || self.count("SELECT count(*) FROM applied").await >= count)
            .await;
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await.unwrap()
    }

    /// What was applied of a key, in order.
    pub(crate) async fn applied_of(&self, key: Uuid) -> Vec<i64> {
        let applied = self.applied().await;
        applied.into_iter().filter_map(|(of, available)| (of == key).then_some(available)).collect()
    }

    pub(crate) async fn until_applied_of(&self, key: Uuid, availables: &[i64]) {
        until("the key is applied", async || self.applied_of(key).await == availables).await;
    }

    /// What was applied, as (key, available), in order.
    pub(crate) async fn applied(&self) -> Vec<(Uuid, i64)> {
        sqlx::query_as("SELECT key, available FROM applied ORDER BY ordinal")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }
}

/// Appends the next event of `key`, under the lock of its aggregate.
pub(crate) async fn append_next(journal: &Journal, connection: &mut PgConnection, key: Uuid, available: i64) {
    let entry = next_entry(&mut *connection, key, available).await;
    append(journal, connection, vec![entry]).await;
}

/// The same, to be told once it is committed.
pub(crate) async fn store_next(
    journal: &Journal,
    connection: &mut PgConnection,
    key: Uuid,
    available: i64,
) -> Stored {
    let entry = next_entry(&mut *connection, key, available).await;
    store(journal, connection, vec![entry]).await
}

/// The position of the first event of that segment.
pub(crate) const fn first_of(segment: i64) -> i64 {
    segment * 100_000 + 1
}

/// The last position that a segment can have: where the log ends while it is the last one.
pub(crate) const fn end_of(segment: i64) -> i64 {
    segment * 100_000 + 99_999
}

/// Appends entries in the caller's transaction, and nothing else. The relay is not told.
pub(crate) async fn append(journal: &Journal, connection: &mut PgConnection, entries: Vec<Entry>) {
    let _untold = store(journal, connection, entries).await;
}

async fn store(journal: &Journal, connection: &mut PgConnection, entries: Vec<Entry>) -> Stored {
    journal.learn_words_of(&entries).await.unwrap();
    let (loaded, writes) = (Loaded::default(), Writes { entries, ..Writes::default() });
    journal.write(Statement::default(), loaded, writes, journal.now(), connection).await.unwrap()
}

async fn next_entry(connection: &mut PgConnection, key: Uuid, available: i64) -> Entry {
    let sequence: i32 = sqlx::query_scalar(
        "INSERT INTO aggregates AS a VALUES ($1, 1)
         ON CONFLICT (key) DO UPDATE SET sequence = a.sequence + 1 RETURNING sequence",
    )
    .bind(key)
    .fetch_one(&mut *connection)
    .await
    .unwrap();
    entry(key, sequence, available)
}

/// An entry for the event of `key` with that sequence.
pub(crate) fn entry(key: Uuid, sequence: i32, available: i64) -> Entry {
    let event: Event =
        BalanceCharged { user_id: key, amount: 1, available, held: i64::from(sequence) }.into();
    let origin =
        Origin { cause_id: None, actor: "test".to_owned(), request: None, trace: TraceContext::new_root() };
    Entry::of_event(Uuid::now_v7(), event, sequence, origin, PARTITIONS).unwrap()
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A record as Kafka has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) event_id: String,
    pub(crate) sequence: i32,
    pub(crate) label: Label,
    pub(crate) previous: Option<Label>,
}

/// A topic that was just made may have no leader yet.
fn bounds(consumer: &BaseConsumer, topic: &str, partition: i32) -> (i64, i64) {
    let started = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, partition, DEADLINE) {
            Ok(bounds) => return bounds,
            Err(error) => assert!(started.elapsed() < DEADLINE, "{topic}[{partition}]: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn read_topic(kafka: &KafkaConfig, topic: &str) -> Vec<Published> {
    let mut config = kafka.client();
    config.set("group.id", "test-reader").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut records = Vec::new();
    for partition in 0..i32::from(PARTITIONS) {
        let (low, high) = bounds(&consumer, topic, partition);
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Offset(low)).unwrap();
        consumer.assign(&assignment).unwrap();
        let mut next = low;
        let started = Instant::now();
        while next < high {
            assert!(started.elapsed() < DEADLINE, "partition {partition} can't be read");
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message.unwrap();
            next = message.offset() + 1;
            let header = |name: &str| {
                let headers = message.headers()?;
                let header = headers.iter().find(|header| header.key == name)?;
                Some(String::from_utf8(header.value?.to_vec()).unwrap())
            };
            records.push(Published {
                partition,
                key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
                event_id: header(headers::ID).unwrap(),
                sequence: header(headers::SEQUENCE).unwrap().parse().unwrap(),
                label: header(headers::LABEL).unwrap().parse().unwrap(),
                previous: header(headers::PREVIOUS).map(|text| text.parse().unwrap()),
            });
        }
    }
    records
}

/// Every group of these tests.
const GROUPS: [(&str, &[Topic]); 3] = [
    (Recorder::GROUP, Recorder::TOPICS),
    (Witness::GROUP, Witness::TOPICS),
    (Bystander::GROUP, Bystander::TOPICS),
];
