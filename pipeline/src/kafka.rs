//! How to reach Kafka, and the names that topics have there.

pub mod access;
pub mod administration;
pub mod admission;
pub mod security;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::authenticity::{Keyring, Secrets};
use security::Security;

/// The pause before the broker is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How long the broker holds a request for records while there are none. Records that come are answered at once, so this
/// says only how often is asked at rest. New partitions and places to read from are asked for after the request that is under
/// way, hence no longer.
pub(crate) const FETCH_WAIT_MAX_MS: &str = "2000";

/// Everybody reads past transactions that are open: the relay's records are in none, and who opens one could hold up all
/// others.
pub(crate) const READ_UNCOMMITTED: &str = "read_uncommitted";

/// The names that readers have at the broker which share nothing with others: who looks where the relay's records end, who follows a topic
/// into a cache, who audits. They are no groups, but the broker asks whether a client may be one of that name.
pub(crate) const RELAY_ENDS: &str = "relay-ends";
pub(crate) const FOLLOWER: &str = "follower";
pub(crate) const AUDIT: &str = "audit";

/// Where Kafka is, which topics there are ours, and by which keys their records are authentic.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// `host:port`, several with commas.
    pub brokers: String,
    /// Stands before every topic and group name, so that several installations can share a broker.
    pub prefix: String,
    /// Whether over TLS, and as whom.
    pub security: Security,
    /// Further settings of librdkafka; they win over ours, but for the security.
    pub settings: BTreeMap<String, String>,
    /// What says whether a record is the relay's.
    pub keyring: Keyring,
}

impl KafkaConfig {
    /// Kafka at `brokers`, with `prefix` before every name, and records that are authentic by `secrets`.
    #[must_use]
    pub fn new(brokers: &str, prefix: &str, secrets: Secrets) -> KafkaConfig {
        KafkaConfig {
            brokers: brokers.to_owned(),
            prefix: prefix.to_owned(),
            security: Security::default(),
            settings: BTreeMap::new(),
            keyring: Keyring::new(secrets),
        }
    }

    /// The same Kafka, reached in another way: as another user.
    #[must_use]
    pub fn reached_by(&self, security: Security) -> KafkaConfig {
        KafkaConfig { security, ..self.clone() }
    }

    /// The name that a topic or a group has in Kafka.
    #[must_use]
    pub fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// What a client is made from that needs nothing of its own.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        self.client_with([])
    }

    /// What a client is made from that is set up by `ours`; the settings that were given win, but for those of security.
    pub(crate) fn client_with<const N: usize>(&self, ours: [(&str, &str); N]) -> ClientConfig {
        let all = [
            ("bootstrap.servers", self.brokers.as_str()),
            ("client.id", "ordermill"),
            ("socket.keepalive.enable", "true"),
            ("broker.address.family", "v4"),
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "1000"),
        ];
        let given = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let all = all.into_iter().chain(ours).chain(given).map(|(name, value)| (name, value.to_owned()));
        all.chain(self.security.settings()).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A consumer that shares nothing with others, whatever its group's `name`, and remembers nothing.
    pub(crate) fn reader<const N: usize>(
        &self,
        name: &str,
        ours: [(&str, &str); N],
    ) -> Result<BaseConsumer, KafkaError> {
        self.client_with(ours)
            .set("group.id", self.full_name(name))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", READ_UNCOMMITTED)
            .create()
    }
}

/// The first offset that a partition holds and the one after its last; both 0 where there is no such partition.
pub(crate) fn bounds<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    deadline: Duration,
) -> Result<(i64, i64), KafkaError> {
    let started = Instant::now();
    loop {
        let left = deadline.saturating_sub(started.elapsed()).max(ASK_AGAIN_AFTER);
        match consumer.fetch_watermarks(topic, partition, left) {
            Ok(bounds) => return Ok(bounds),
            Err(error) => match error.rdkafka_error_code() {
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                    return Ok((0, 0));
                }
                // A partition whose leader is just changing answers a moment later.
                _ if started.elapsed() < deadline => std::thread::sleep(ASK_AGAIN_AFTER),
                _ => return Err(error),
            },
        }
    }
}
