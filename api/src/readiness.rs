//! Whether everything that an order needs is there and works.
//!
//! Relay and workers are looked at all the time, since only what was seen before tells what moves; who asks is told what was seen last.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::database;
use ordermill_pipeline::journal::Journal;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_pipeline::readiness::{Expected, Judge, Sight, Trouble, look};
use ordermill_schemas::Topic;
use ordermill_store::orders;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::ApiConfig;
use crate::metrics::{ApiMetrics, RoleLabel};
use crate::problem::FieldError;

/// How often is looked while nobody asks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a look holds: readiness may be asked often.
const LOOK_HOLDS: Duration = Duration::from_millis(500);
/// How often is asked how old the oldest order is.
const AGE_EVERY: Duration = Duration::from_secs(5);
/// How long the database has for a look.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last look holds where the database does not answer.
const DATABASE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the broker has for an answer.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the broker's answer holds.
const KAFKA_VERDICT_HOLDS: Duration = Duration::from_secs(1);
/// The name of the database among what is not ready.
const DATABASE: &str = "database";
/// What it means that no look was answered.
const SILENT: &str = "it does not answer; nothing can be served";
/// The same where none could be asked for.
const SPENT: &str =
    "every connection that the API reads with is in use; nothing can be served until one is free";

/// What is not ready, and how things stand.
pub(crate) struct Seen {
    /// What is not ready, and what that means; nothing where all is well.
    pub(crate) missing: Vec<FieldError>,
    /// How long the oldest order has been under way that does not rest, if there is one.
    pub(crate) oldest: Option<Duration>,
}

/// Looks whether what an order needs is there.
pub(crate) struct Readiness {
    pool: PgPool,
    clock: Clock,
    expected: Expected,
    order_deadline: Duration,
    metrics: ApiMetrics,
    watch: Mutex<Watch>,
    oldest: Oldest,
    kafka: KafkaProbe,
}

/// What is remembered between looks.
#[derive(Default)]
struct Watch {
    judge: Judge,
    looked_at: Option<Instant>,
    /// When the database has answered last.
    answered_at: Option<Instant>,
    troubles: Vec<Trouble>,
}

/// How long the oldest order has been under way, as the last answer told.
#[derive(Debug, Default)]
struct Oldest(std::sync::Mutex<Option<Duration>>);

impl Oldest {
    /// Takes in an answer; where there is none, what was told before stays.
    fn answered(&self, answer: Result<Option<Duration>, sqlx::Error>) {
        match answer {
            Ok(age) => *self.0.lock().unwrap_or_else(PoisonError::into_inner) = age,
            Err(error) => tracing::warn!(%error, "the database does not say how old the oldest order is"),
        }
    }

    fn age(&self) -> Option<Duration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Readiness {
    pub(crate) fn new(journal: &Journal, config: &ApiConfig, metrics: &ApiMetrics) -> Readiness {
        Readiness {
            pool: journal.pool.clone(),
            clock: journal.clock.clone(),
            expected: config.pipeline.clone(),
            order_deadline: config.order_deadline,
            metrics: metrics.clone(),
            watch: Mutex::default(),
            oldest: Oldest::default(),
            kafka: KafkaProbe { config: config.kafka.clone(), state: Mutex::default() },
        }
    }

    /// Looks now and then, until the stop.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let watch = async {
            loop {
                self.look(LOOK_EVERY).await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let _: Option<()> = stop.run_until_cancelled(watch).await;
    }

    /// Asks now and then how old the oldest order is, until the stop. Nobody who asks whether the shop is ready waits for that. One question is
    /// asked at a time and none is given up halfway, since its connection would be in use until the database is done with it all the same:
    /// that ends a statement that takes too long.
    pub(crate) async fn follow_the_oldest(self: Arc<Self>, stop: CancellationToken) {
        let follow = async {
            loop {
                self.oldest.answered(self.age_of_the_oldest().await);
                tokio::time::sleep(AGE_EVERY).await;
            }
        };
        let _: Option<()> = stop.run_until_cancelled(follow).await;
    }

    /// What is not ready.
    pub(crate) async fn seen(&self) -> Seen {
        let (troubles, kafka_answers) = tokio::join!(self.look(LOOK_HOLDS), self.kafka.answers());
        let mut missing: Vec<FieldError> = troubles.into_iter().map(field).collect();
        if !kafka_answers {
            let detail = "the broker does not answer; orders are accepted and wait".into();
            let kafka = FieldError { field: "kafka".into(), code: "NOT_ANSWERING", detail };
            let behind_the_database = missing.iter().take_while(|error| error.field == DATABASE).count();
            missing.insert(behind_the_database, kafka);
        }
        Seen { missing, oldest: self.oldest.age() }
    }

    /// What relay and workers are in trouble with, or that the database does not answer; as it was seen, unless that is older than it may be.
    async fn look(&self, holds: Duration) -> Vec<Trouble> {
        // One looks, whoever else asks meanwhile is told the same.
        let mut watch = self.watch.lock().await;
        if watch.looked_at.is_none_or(|at| at.elapsed() >= holds) {
            match tokio::time::timeout(DATABASE_TIMEOUT, look(&self.pool, &self.expected)).await {
                Ok(Ok(sight)) => watch.saw(&sight, &self.expected, Instant::now()),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the database does not say whether the shop is ready");
                    watch.saw_nothing(self.why_nothing().await, Instant::now());
                }
                Err(_) => {
                    tracing::warn!(
                        "the database does not say within {DATABASE_TIMEOUT:?} whether the shop is ready"
                    );
                    watch.saw_nothing(self.why_nothing().await, Instant::now());
                }
            }
            watch.looked_at = Some(Instant::now());
            self.show(&watch);
        }
        watch.troubles.clone()
    }

    async fn age_of_the_oldest(&self) -> Result<Option<Duration>, sqlx::Error> {
        let earliest = orders::earliest_deadline(&self.pool).await?;
        // What an order has left of its time tells how long it has been under way.
        let (now, given) = (self.clock.now(), SignedDuration::try_from(self.order_deadline));
        let age = |deadline: Timestamp| {
            let age = given.unwrap_or_default().saturating_add(now.duration_since(deadline));
            Duration::try_from(age).unwrap_or_default()
        };
        Ok(earliest.map(age))
    }

    /// Where the database is away, connections that are being made count as used, so somebody else asks it.
    async fn why_nothing(&self) -> &'static str {
        if !database::is_spent(&self.pool) {
            return SILENT;
        }
        let options = self.pool.connect_options();
        let other = async { PgConnection::connect_with(&options).await?.ping().await };
        match tokio::time::timeout(DATABASE_TIMEOUT, other).await {
            Ok(Ok(())) => SPENT,
            _ => SILENT,
        }
    }

    fn show(&self, watch: &Watch) {
        let troubled: BTreeSet<&str> = watch.troubles.iter().map(|trouble| trouble.role.as_str()).collect();
        let all = self.expected.roles.iter().map(String::as_str).chain([DATABASE]);
        for role in all {
            let label = RoleLabel { role: role.to_owned() };
            self.metrics.not_ready.get_or_create(&label).set(troubled.contains(role).into());
        }
        let oldest = self.oldest.age().unwrap_or_default().as_secs();
        self.metrics.oldest_order_seconds.set(i64::try_from(oldest).unwrap_or(i64::MAX));
    }
}

impl Watch {
    fn saw(&mut self, sight: &Sight, expected: &Expected, now: Instant) {
        self.troubles = self.judge.judge(sight, expected, now);
        self.answered_at = Some(now);
    }

    /// The database has not answered, for that reason. It is given a moment, so that one slow answer is no alarm.
    fn saw_nothing(&mut self, why: &str, now: Instant) {
        let is_patient = |at: Instant| now.saturating_duration_since(at) < DATABASE_PATIENCE;
        if self.answered_at.is_some_and(is_patient) {
            return;
        }
        // Nothing can move without it, so what stood still meanwhile tells nothing.
        *self = Watch { looked_at: self.looked_at, ..Watch::default() };
        self.troubles.push(Trouble {
            role: DATABASE.to_owned(),
            code: "NOT_ANSWERING",
            detail: why.to_owned(),
        });
    }
}

fn field(trouble: Trouble) -> FieldError {
    FieldError { field: trouble.role.into(), code: trouble.code, detail: trouble.detail.into() }
}

/// Asks the broker, one question at a time.
struct KafkaProbe {
    config: KafkaConfig,
    state: Mutex<ProbeState>,
}

#[derive(Default)]
struct ProbeState {
    /// Made at the first question and kept: its connection is half of the answer.
    client: Option<Arc<Client>>,
    verdict: Option<(Instant, bool)>,
}

/// A consumer of nothing. Unlike a producer, its questions create no topic.
struct Client(Option<BaseConsumer>);

impl Drop for Client {
    fn drop(&mut self) {
        // Dropping a consumer can hang (rdkafka issues 509 and 611), which must not take a runtime's thread.
        if let Some(consumer) = self.0.take() {
            std::thread::spawn(move || drop(consumer));
        }
    }
}

impl KafkaProbe {
    async fn answers(&self) -> bool {
        let mut state = self.state.lock().await;
        if let Some((asked_at, answers)) = state.verdict
            && asked_at.elapsed() < KAFKA_VERDICT_HOLDS
        {
            return answers;
        }
        let known = state.client.clone();
        let config = self.config.clone();
        let asked = tokio::task::spawn_blocking(move || ask(known, &config)).await;
        let answers = match asked {
            Ok(Ok(client)) => {
                state.client = Some(client);
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "not ready: Kafka does not answer");
                false
            }
            Err(error) => {
                tracing::error!(%error, "the question to Kafka ended without a result");
                false
            }
        };
        state.verdict = Some((Instant::now(), answers));
        answers
    }
}

fn ask(known: Option<Arc<Client>>, kafka: &KafkaConfig) -> Result<Arc<Client>, KafkaError> {
    let client = match known {
        Some(client) => client,
        None => Arc::new(Client(Some(kafka.client().create()?))),
    };
    if let Some(consumer) = &client.0 {
        consumer.fetch_metadata(Some(&kafka.full_name(Topic::Orders.name())), KAFKA_TIMEOUT)?;
    }
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(watch: &Watch) -> Vec<&str> {
        watch.troubles.iter().map(|trouble| trouble.role.as_str()).collect()
    }

    #[test]
    fn a_database_that_did_not_answer_once_is_asked_again_before_it_is_told() {
        let (mut watch, begin) = (Watch::default(), Instant::now());
        watch.saw_nothing(SILENT, begin);
        assert_eq!(roles(&watch), [DATABASE], "it has never answered");
        let expected = Expected { roles: vec!["relay".to_owned()], ..Expected::default() };
        watch.saw(&Sight::default(), &expected, begin);
        assert_eq!(roles(&watch), ["relay"]);
        watch.saw_nothing(SILENT, begin + DATABASE_PATIENCE / 2);
        assert_eq!(roles(&watch), ["relay"], "as it was seen");
        watch.saw_nothing(SILENT, begin + DATABASE_PATIENCE);
        assert_eq!(roles(&watch), [DATABASE]);
    }

    #[test]
    fn an_age_that_cannot_be_told_is_taken_for_what_it_was() {
        let (oldest, age) = (Oldest::default(), Some(AGE_EVERY));
        oldest.answered(Ok(age));
        oldest.answered(Err(sqlx::Error::PoolTimedOut));
        assert_eq!(oldest.age(), age);
        oldest.answered(Ok(None));
        assert_eq!(oldest.age(), None);
    }
}
