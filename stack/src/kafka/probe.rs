//! Whether a broker truly answers.

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, Statistics};

use super::KafkaSecurity;
use crate::child::Child;
use crate::error::{Result, StackError};
use crate::wait;

/// A client whose complaints, while the broker is not yet there, nobody needs to see.
struct Silent;

impl ClientContext for Silent {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}
    fn error(&self, _error: KafkaError, _reason: &str) {}
    fn stats(&self, _statistics: Statistics) {}
}

/// Waits until the child's broker has registered itself and says so to a client.
pub(crate) fn wait_until_ready(
    child: &Child,
    port: u16,
    security: Option<&KafkaSecurity>,
    deadline: Duration,
) -> Result<()> {
    // Connecting first keeps the client's growing pauses between its attempts out of the wait.
    wait::until(deadline, || {
        let open = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        (open || !child.is_alive()).then_some(())
    });
    let client = client(&format!("127.0.0.1:{port}"), security)?;
    child.wait_until_ready(deadline, || has_a_broker(&client).then_some(Ok(())))
}

/// Whether a broker there answers before the deadline.
#[cfg(feature = "testing")]
pub(crate) fn answers_within(brokers: &str, deadline: Duration) -> Result<bool> {
    let client = client(brokers, None)?;
    Ok(wait::until(deadline, || has_a_broker(&client).then_some(())).is_some())
}

fn has_a_broker(client: &AdminClient<Silent>) -> bool {
    client
        .inner()
        .fetch_metadata(None, Duration::from_secs(2))
        .is_ok_and(|metadata| !metadata.brokers().is_empty())
}

fn client(brokers: &str, security: Option<&KafkaSecurity>) -> Result<AdminClient<Silent>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100");
    if let Some(KafkaSecurity { tls, owner, password }) = security {
        config
            .set("security.protocol", "SASL_SSL")
            .set("ssl.ca.location", tls.ca.to_string_lossy())
            .set("sasl.mechanism", "PLAIN")
            .set("sasl.username", owner)
            .set("sasl.password", password);
    }
    AdminClient::from_config_and_context(&config, Silent)
        .map_err(|error| StackError::Other(format!("Kafka: {error}")))
}
