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
use thiserror::Error;

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

/// A setting that the client does not take. Its value is not told: it may be a password.
#[derive(Debug, Error)]
#[error("Kafka's client does not take the setting {0}: it knows none of that name, or not with that value")]
pub struct UnfitSetting(String);

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

    /// Looks at the settings that were given: an error of a client that does not take one would show its value.
    ///
    /// # Errors
    /// [`UnfitSetting`].
    pub fn check(&self) -> Result<(), UnfitSetting> {
        match self.client().create_native_config() {
            Err(KafkaError::ClientConfig(_, _, name, _)) => Err(UnfitSetting(name)),
            _ => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticity::RootSecret;

    #[test]
    fn a_setting_that_the_client_does_not_take_is_named_and_its_value_is_not_told() {
        let with = |name: &str, value: &str| {
            let mut kafka = KafkaConfig::new("127.0.0.1:1", "", RootSecret::generate().unwrap().into());
            kafka.settings.insert(name.to_owned(), value.to_owned());
            kafka.check().map_err(|error| error.to_string())
        };
        assert_eq!(with("socket.timeout.ms", "10000"), Ok(()));
        for name in ["sasl.pasword", "socket.timeout.ms"] {
            let told = with(name, "sesame").unwrap_err();
            assert!(told.contains(name) && !told.contains("sesame"), "{told}");
        }
    }
}
