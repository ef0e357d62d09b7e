//! Whether the brokers let us in.
//!
//! A client that is not let in tries again for ever and says so in its log only. That is right while a broker is away, and wrong where a
//! password is: so whoever is about to start asks first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::statistics::Statistics;
use thiserror::Error;

use super::KafkaConfig;
use super::security::Security;

/// How long a broker has to answer before it is taken to be away.
const WITHIN: Duration = Duration::from_secs(5);
/// How long each attempt waits.
const ATTEMPT: Duration = Duration::from_millis(100);
/// What the client may have to say after an attempt.
const WORDS_MAX: usize = 32;

/// Why the brokers don't let us in. It does not mend by waiting.
#[derive(Debug, Error)]
pub enum NotAdmitted {
    /// They don't know the user, or not with that password.
    #[error(
        "Kafka at {brokers} does not let the user {user} in: {reason}; check KAFKA_USERNAME, KAFKA_SASL_MECHANISM, and KAFKA_PASSWORD or \
         KAFKA_PASSWORD_FILE"
    )]
    Login {
        /// Where they are.
        brokers: String,
        /// Who we said we are.
        user: String,
        /// The client's word for it.
        reason: String,
    },
    /// They are not who they should be, or speak no TLS.
    #[error(
        "there is no TLS with Kafka at {brokers}: {reason}; check that KAFKA_CA_FILE has the CA that has signed the broker's certificate, and \
         that KAFKA_BROKERS has a name that stands in it"
    )]
    Tls {
        /// Where they are.
        brokers: String,
        /// The client's word for it.
        reason: String,
    },
    /// The client can't be made with these settings.
    #[error("Kafka's client can't be made: {0}")]
    Client(#[from] KafkaError),
}

/// Asks whether the brokers let us in. One that is away may do so once it is back, and is waited for by who needs it; without TLS nobody
/// is asked.
///
/// # Errors
/// [`NotAdmitted`] where they refuse us, or we them.
pub async fn admitted(kafka: &KafkaConfig) -> Result<(), NotAdmitted> {
    if kafka.security == Security::Plaintext {
        return Ok(());
    }
    let kafka = kafka.clone();
    let asked = tokio::task::spawn_blocking(move || ask(&kafka)).await;
    asked.unwrap_or(Err(NotAdmitted::Client(KafkaError::Canceled)))
}

fn ask(kafka: &KafkaConfig) -> Result<(), NotAdmitted> {
    let ear = Ear::default();
    let heard = Arc::clone(&ear.heard);
    let consumer: BaseConsumer<Ear> = kafka.client().create_with_context(ear)?;
    let (started, mut trouble) = (Instant::now(), "it does not answer".to_owned());
    while started.elapsed() < WITHIN {
        if consumer.fetch_metadata(None, ATTEMPT).is_ok() {
            return Ok(());
        }
        // Nothing is said where there was a line of its log, as well.
        for _ in 0..WORDS_MAX {
            let _ = consumer.poll(Duration::ZERO);
        }
        for (code, reason) in heard.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let brokers = kafka.brokers.clone();
            match code {
                Code::Authentication | Code::SaslAuthenticationFailed => {
                    let user = kafka.security.user().unwrap_or_default().to_owned();
                    return Err(NotAdmitted::Login { brokers, user, reason });
                }
                Code::SSL => return Err(NotAdmitted::Tls { brokers, reason }),
                Code::AllBrokersDown => {
                    tracing::warn!(brokers, trouble, "Kafka is not there yet");
                    return Ok(());
                }
                _ => trouble = reason,
            }
        }
    }
    tracing::warn!(brokers = kafka.brokers, trouble, "Kafka is not there yet");
    Ok(())
}

/// Hears what the client has to say about its connections, in order.
#[derive(Default)]
struct Ear {
    heard: Arc<Mutex<Vec<(Code, String)>>>,
}

impl ClientContext for Ear {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn stats(&self, _statistics: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.push((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Ear {}
