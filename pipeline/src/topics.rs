//! The topics in Kafka: made once, with a number of partitions that never changes.

use std::time::{Duration, Instant};

use ordermill_wire::Topic;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use thiserror::Error;

use crate::canary;
use crate::kafka::KafkaConfig;

/// How many partitions a topic has unless it is said otherwise where the log is set up.
pub const PARTITIONS_DEFAULT: i16 = 12;
/// The same where everything runs on one machine: each costs requests, and there is one worker of each kind
/// (docs/adr/0012).
pub const PARTITIONS_DEFAULT_ON_ONE_MACHINE: i16 = 1;
/// How long records are kept in Kafka; the log in the database keeps them for good.
const RETENTION_MS: &str = "604800000";
/// How soon a topic that is not known yet is looked for again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long the broker has for an answer.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the topics are not there.
#[derive(Debug, Error)]
pub enum TopicsError {
    /// The broker did not answer or refused.
    #[error("Kafka does not answer: {0}; check that it runs and that KAFKA_BROKERS names it")]
    Kafka(#[from] KafkaError),
    /// The broker refused to make a topic.
    #[error("Kafka did not create topic {topic}: {code}")]
    NotCreated {
        /// The topic's full name.
        topic: String,
        /// The broker's reason.
        code: RDKafkaErrorCode,
    },
    /// The broker refused to delete a topic.
    #[error("Kafka did not delete topic {topic}: {code}; look whether it allows it (delete.topic.enable)")]
    NotDeleted {
        /// The topic's full name.
        topic: String,
        /// The broker's reason.
        code: RDKafkaErrorCode,
    },
    /// A topic has another number of partitions than the log was written for.
    #[error(
        "topic {topic} has {found} partitions but the log was written for {expected}; keys would change \
         their partition and lose their order: restore the old number or start on fresh topics"
    )]
    PartitionCount {
        /// The topic's full name.
        topic: String,
        /// How many it has.
        found: usize,
        /// How many the log was written for.
        expected: i16,
    },
}

/// The topic that holds what `group` could not apply of `topic`.
#[must_use]
pub fn dead_letter_topic(topic: &str, group: &str) -> String {
    format!("{topic}.{group}.dlt")
}

/// Whether a topic is one that [`dead_letter_topic`] names.
#[must_use]
pub fn is_dead_letter_topic(topic: &str) -> bool {
    topic.ends_with(".dlt")
}

/// Creates what is missing and checks the rest. `groups` are pairs of group name and its topics.
///
/// # Errors
/// [`TopicsError`] where the broker does not answer or a topic has the wrong number of partitions.
pub async fn ensure<T: Topic>(
    kafka: &KafkaConfig,
    partitions: i16,
    groups: &[(&str, &[T])],
) -> Result<Vec<String>, TopicsError> {
    ensure_named(kafka, partitions, &names(groups)).await
}

/// The topics there are, without prefix: one for each capability, and the dead-letter topics of the groups.
#[must_use]
pub fn names<T: Topic>(groups: &[(&str, &[T])]) -> Vec<String> {
    let ours = T::ALL.iter().map(|topic| topic.name().to_owned());
    let dead_letters = groups
        .iter()
        .flat_map(|(group, topics)| topics.iter().map(|topic| dead_letter_topic(topic.name(), group)));
    ours.chain(dead_letters).collect()
}

/// Creates what is missing of these topics, named without prefix, and checks the rest. Answers their full names. The topic of the canaries is
/// made beside them, so that whoever subscribes to all of them finds them at once.
pub(crate) async fn ensure_named(
    kafka: &KafkaConfig,
    partitions: i16,
    names: &[String],
) -> Result<Vec<String>, TopicsError> {
    let names: Vec<String> = names.iter().map(|name| kafka.full_name(name)).collect();
    let canary = kafka.full_name(canary::TOPIC);
    let mut topics: Vec<NewTopic<'_>> =
        names.iter().map(|name| new_topic(name, i32::from(partitions))).collect();
    topics.push(new_topic(&canary, canary::PARTITIONS));
    let admin: AdminClient<DefaultClientContext> = kafka.client().create()?;
    for result in admin.create_topics(&topics, &options()).await? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            // Orders go on without it; readiness says so.
            Err((topic, code)) if topic == canary => {
                tracing::warn!(topic, %code, "Kafka did not create the topic of the canaries");
            }
            Err((topic, code)) => return Err(TopicsError::NotCreated { topic, code }),
        }
    }
    let expected = usize::from(partitions.unsigned_abs());
    // A topic that was just made can be unknown for a moment.
    match wait(kafka, &names, expected).await? {
        Some((topic, found)) => Err(TopicsError::PartitionCount { topic, found, expected: partitions }),
        None => Ok(names),
    }
}

/// A topic that is to be made. That of the canaries keeps its records for as long as the others: a member that waits while its group has
/// stopped would otherwise lose its place there, and have to join anew.
fn new_topic(name: &str, partitions: i32) -> NewTopic<'_> {
    // -1 takes the broker's own default of replicas.
    NewTopic::new(name, partitions, TopicReplication::Fixed(-1)).set("retention.ms", RETENTION_MS)
}

/// Deletes these topics, named without prefix, with all they hold; those that do not exist are passed over. Returns
/// once Kafka does not know them any more.
pub(crate) async fn delete(kafka: &KafkaConfig, names: &[String]) -> Result<(), TopicsError> {
    let names: Vec<String> = names.iter().map(|name| kafka.full_name(name)).collect();
    let listed: Vec<&str> = names.iter().map(String::as_str).collect();
    let admin: AdminClient<DefaultClientContext> = kafka.client().create()?;
    for result in admin.delete_topics(&listed, &options()).await? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
            Err((topic, code)) => return Err(TopicsError::NotDeleted { topic, code }),
        }
    }
    match wait(kafka, &names, 0).await? {
        Some((topic, _)) => Err(TopicsError::NotDeleted { topic, code: RDKafkaErrorCode::OperationTimedOut }),
        None => Ok(()),
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(BROKER_TIMEOUT)).operation_timeout(Some(BROKER_TIMEOUT))
}

/// Waits, for each topic for a while, until it is there, or gone where no partitions are expected. Answers the first topic
/// that does not have the expected number, and the number that it has.
async fn wait(
    kafka: &KafkaConfig,
    names: &[String],
    expected: usize,
) -> Result<Option<(String, usize)>, KafkaError> {
    let (client, names) = (kafka.client(), names.to_vec());
    let look = move || {
        let consumer: BaseConsumer = client.create()?;
        for topic in names {
            let started = Instant::now();
            let mut found = partitions_of(&consumer, &topic)?;
            while (found == 0) != (expected == 0) && started.elapsed() < BROKER_TIMEOUT {
                std::thread::sleep(LOOK_AGAIN_AFTER);
                found = partitions_of(&consumer, &topic)?;
            }
            if found != expected {
                return Ok(Some((topic, found)));
            }
        }
        Ok(None)
    };
    tokio::task::spawn_blocking(look).await.unwrap_or(Err(KafkaError::Canceled))
}

fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Result<usize, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), BROKER_TIMEOUT)?;
    Ok(metadata.topics().first().map_or(0, |topic| topic.partitions().len()))
}
