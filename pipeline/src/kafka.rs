//! How to reach Kafka, and the names that topics have there.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;

/// Where Kafka is, and which topics there are ours.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// `host:port`, several with commas.
    pub brokers: String,
    /// Stands before every topic and group name, so that several installations can share a broker.
    pub prefix: String,
    /// Further settings of librdkafka; they win over ours.
    pub settings: BTreeMap<String, String>,
}

impl KafkaConfig {
    /// Kafka at `brokers`, with `prefix` before every name.
    #[must_use]
    pub fn new(brokers: &str, prefix: &str) -> KafkaConfig {
        KafkaConfig { brokers: brokers.to_owned(), prefix: prefix.to_owned(), settings: BTreeMap::new() }
    }

    /// The name that a topic or a group has in Kafka.
    #[must_use]
    pub fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// What every client is made from.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "ordermill")
            .set("socket.keepalive.enable", "true")
            .set("broker.address.family", "v4")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000");
        client
    }

    /// Lets the settings that were given win.
    pub(crate) fn override_with_settings(&self, client: &mut ClientConfig) {
        for (name, value) in &self.settings {
            client.set(name, value);
        }
    }
}
