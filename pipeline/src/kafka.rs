//! How to reach Kafka, and the names that topics have there.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _, OwnedHeaders};

/// The pause before the broker is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

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

    /// What a client is made from that needs nothing of its own.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        self.client_with([])
    }

    /// What a client is made from that is set up by `ours`; the settings that were given win.
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
        let all = all.into_iter().chain(ours).chain(given);
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
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
            .create()
    }
}

/// The headers of a message; none where there are none, or where one has a name that is not UTF-8. Nobody of ours writes
/// such a name, and the client panics at it.
pub(crate) fn headers(message: &BorrowedMessage<'_>) -> Option<OwnedHeaders> {
    let headers = message.headers()?;
    let all_can_be_read = catch_unwind(AssertUnwindSafe(|| headers.iter().count())).is_ok();
    all_can_be_read.then(|| headers.detach())
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
