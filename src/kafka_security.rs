//! The flags and variables that say how Kafka is reached. The password itself is no flag: flags show in the list of processes.

use std::env;
use std::path::PathBuf;

use clap::Args;
use ordermill_pipeline::kafka::security::{Given, Mechanism, Protocol};

/// The variable that holds the password.
const PASSWORD: &str = "KAFKA_PASSWORD";

/// The flags that every command takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct KafkaSecurityArgs {
    /// How Kafka is reached: SASL_SSL (TLS and a user), SSL (TLS without a user), or PLAINTEXT (neither), which is the default.
    #[arg(long, env = "KAFKA_SECURITY_PROTOCOL", value_name = "PROTOCOL", global = true)]
    pub(crate) kafka_security_protocol: Option<Protocol>,
    /// The certificate of the CA that has signed those of Kafka's brokers, as PEM.
    #[arg(long, env = "KAFKA_CA_FILE", value_name = "FILE", global = true)]
    pub(crate) kafka_ca_file: Option<PathBuf>,
    /// How the user logs in: SCRAM-SHA-512 (the default), SCRAM-SHA-256 or PLAIN.
    #[arg(long, env = "KAFKA_SASL_MECHANISM", value_name = "MECHANISM", global = true)]
    pub(crate) kafka_sasl_mechanism: Option<Mechanism>,
    /// The user to log in as. The password is in the variable KAFKA_PASSWORD or in a file.
    #[arg(long, env = "KAFKA_USERNAME", value_name = "NAME", global = true)]
    pub(crate) kafka_username: Option<String>,
    /// The file that holds the user's password.
    #[arg(long, env = "KAFKA_PASSWORD_FILE", value_name = "FILE", global = true)]
    pub(crate) kafka_password_file: Option<PathBuf>,
}

impl KafkaSecurityArgs {
    /// What was given, with the password of the environment.
    #[must_use]
    pub(crate) fn given(&self) -> Given {
        Given {
            protocol: self.kafka_security_protocol,
            ca_file: self.kafka_ca_file.clone(),
            mechanism: self.kafka_sasl_mechanism,
            user: self.kafka_username.clone(),
            password: env::var(PASSWORD).ok().filter(|password| !password.is_empty()),
            password_file: self.kafka_password_file.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        security: KafkaSecurityArgs,
    }

    fn parse(arguments: &[&str]) -> Result<KafkaSecurityArgs, String> {
        let arguments = std::iter::once("program").chain(arguments.iter().copied());
        let parsed = Program::try_parse_from(arguments);
        parsed.map(|program| program.security).map_err(|error| error.to_string())
    }

    #[test]
    fn a_protocol_or_a_mechanism_that_is_not_known_is_refused_with_those_that_are() {
        let error = parse(&["--kafka-security-protocol", "SASL_PLAINTEXT"]).unwrap_err();
        assert!(error.contains("logs in through the open"), "{error}");
        let error = parse(&["--kafka-sasl-mechanism", "GSSAPI"]).unwrap_err();
        assert!(error.contains("SCRAM-SHA-512"), "{error}");
        let args = parse(&["--kafka-security-protocol", "sasl_ssl", "--kafka-username", "relay"]).unwrap();
        assert_eq!(args.given().protocol, Some(Protocol::SaslSsl));
        assert_eq!(args.given().user.as_deref(), Some("relay"));
    }

    #[test]
    fn there_is_no_flag_for_a_password() {
        assert!(parse(&["--kafka-password", "open sesame"]).is_err());
    }
}
