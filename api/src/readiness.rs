//! Whether everything that an order needs answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ordermill_pipeline::dead_letters::halts::{Halted, halted};
use ordermill_pipeline::heartbeat::silent_roles;
use ordermill_pipeline::journal::Journal;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_schemas::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::config::ApiConfig;
use crate::problem::FieldError;

/// How long the database has for an answer.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the broker has for an answer.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the broker's answer holds: readiness may be asked often.
const KAFKA_VERDICT_HOLDS: Duration = Duration::from_secs(1);

/// Asks what an order needs whether it is there.
pub(crate) struct Readiness {
    pool: PgPool,
    roles: Vec<String>,
    kafka: KafkaProbe,
}

impl Readiness {
    pub(crate) fn new(journal: &Journal, config: &ApiConfig) -> Readiness {
        Readiness {
            pool: journal.pool.clone(),
            roles: config.pipeline_roles.clone(),
            kafka: KafkaProbe { config: config.kafka.clone(), state: Mutex::default() },
        }
    }

    /// What does not answer, and what that means; nothing where all is well.
    pub(crate) async fn missing(&self) -> Vec<FieldError> {
        let (answer, kafka_answers) = tokio::join!(self.ask_database(), self.kafka.answers());
        let mut missing = Vec::new();
        if !kafka_answers {
            missing.push(silence("kafka", "the broker does not answer; orders are accepted and wait"));
        }
        match answer {
            Some((roles, groups)) => {
                missing.extend(roles.into_iter().map(|role| {
                    silence(role, "no sign of life for some seconds; orders are accepted and wait")
                }));
                missing.extend(groups.into_iter().map(|group| stopped(&group)));
            }
            None => missing.insert(0, silence("database", "it does not answer; nothing can be served")),
        }
        missing
    }

    /// The roles that are silent, and the groups that have stopped. The question is the question for the database, too:
    /// `None` where it does not answer.
    async fn ask_database(&self) -> Option<(Vec<String>, Vec<Halted>)> {
        let asked = async {
            let roles = silent_roles(&self.pool, &self.roles).await?;
            Ok::<_, sqlx::Error>((roles, halted(&self.pool).await?))
        };
        match tokio::time::timeout(DATABASE_TIMEOUT, asked).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::warn!(%error, "not ready: the database does not answer");
                None
            }
            Err(_) => {
                tracing::warn!("not ready: the database does not answer within {DATABASE_TIMEOUT:?}");
                None
            }
        }
    }
}

fn stopped(group: &Halted) -> FieldError {
    let detail = format!(
        "it has stopped: {}; look at `ordermill dlq groups`, then run `ordermill dlq resume {}`",
        group.reason, group.group
    );
    FieldError { field: format!("worker:{}", group.group).into(), code: "HALTED", detail: detail.into() }
}

fn silence(what: impl Into<std::borrow::Cow<'static, str>>, detail: &'static str) -> FieldError {
    FieldError { field: what.into(), code: "NOT_ANSWERING", detail: detail.into() }
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
        None => {
            let mut config = kafka.client();
            for (name, value) in &kafka.settings {
                config.set(name, value);
            }
            Arc::new(Client(Some(config.create()?)))
        }
    };
    if let Some(consumer) = &client.0 {
        consumer.fetch_metadata(Some(&kafka.full_name(Topic::Orders.name())), KAFKA_TIMEOUT)?;
    }
    Ok(client)
}
