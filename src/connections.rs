//! Where the database, Kafka and the gateway are: said by flags or the environment, or else by the stack file of
//! the running `ordermill up`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use ordermill_pipeline::authenticity::Secrets;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_pipeline::kafka::access::Role;
use ordermill_pipeline::kafka::security::{Security, is_reserved};
use ordermill_workers::GatewayConfig;

use crate::kafka_security::KafkaSecurityArgs;
use crate::kafka_users::KafkaUsers;
use crate::stack_file::StackFile;

/// The flags that every command takes.
#[derive(Args, Clone, Debug)]
pub struct ConnectionArgs {
    /// The data directory of `ordermill up`; what is not given otherwise is read from its stack file.
    #[arg(long, env = "ORDERMILL_DATA_DIR", default_value = ".ordermill", global = true)]
    pub data_dir: PathBuf,
    /// PostgreSQL, like postgres://user:password@host:5432/ordermill; over TLS with ?sslmode=verify-full&sslrootcert=FILE behind it.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true)]
    pub database_url: Option<String>,
    /// Kafka, like host:9092, several with commas.
    #[arg(long, env = "KAFKA_BROKERS", global = true)]
    pub kafka_brokers: Option<String>,
    /// Stands before every topic and group name.
    #[arg(long, env = "ORDERMILL_TOPIC_PREFIX", global = true)]
    pub topic_prefix: Option<String>,
    /// A further setting of the Kafka client, like socket.timeout.ms=10000. May be repeated.
    #[arg(long = "kafka-setting", value_name = "NAME=VALUE", global = true)]
    pub kafka_settings: Vec<String>,
    #[command(flatten)]
    pub(crate) kafka_security: KafkaSecurityArgs,
    /// The payment gateway, like http://host:8090 or https://host.
    #[arg(long, env = "ORDERMILL_GATEWAY_URL", global = true)]
    pub gateway_url: Option<String>,
    /// The certificate of the CA that has signed the gateway's, as PEM; must be given where its address begins with https.
    #[arg(long, env = "ORDERMILL_GATEWAY_CA_FILE", value_name = "FILE", global = true)]
    pub gateway_ca_file: Option<PathBuf>,
    /// The file with the secret by which records in Kafka are authentic; `ordermill keys wire secret` prints a new one.
    #[arg(long, env = "ORDERMILL_WIRE_SECRET_FILE", global = true)]
    pub wire_secret_file: Option<PathBuf>,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Connections {
    /// The database.
    pub database_url: String,
    /// Kafka.
    pub kafka: KafkaConfig,
    /// The gateway, where it is known.
    pub gateway_url: Option<String>,
    /// The CAs by which the gateway is believed, where it is reached over TLS.
    pub gateway_ca_file: Option<PathBuf>,
}

impl Connections {
    /// The gateway, for commands that need it.
    ///
    /// # Errors
    /// Where it is not known.
    pub fn gateway_url(&self) -> Result<&str> {
        const MISSING: &str = "the gateway's address is missing: give --gateway-url or ORDERMILL_GATEWAY_URL";
        self.gateway_url.as_deref().context(MISSING)
    }

    /// How the gateway is asked, for those who do.
    ///
    /// # Errors
    /// Where its address is not known.
    pub fn gateway(&self) -> Result<GatewayConfig> {
        Ok(GatewayConfig::new(self.gateway_url()?).believed_by(self.gateway_ca_file.clone()))
    }
}

impl ConnectionArgs {
    /// The database alone, for commands that need nothing else.
    ///
    /// # Errors
    /// Where it is neither given nor found.
    pub fn database_url(&self) -> Result<String> {
        self.with_stack()?.database_url.ok_or_else(|| self.missing("--database-url"))
    }

    /// What stands before every topic and group name; nothing where it is neither given nor found.
    ///
    /// # Errors
    /// Where the stack file can't be read.
    pub fn topic_prefix(&self) -> Result<String> {
        Ok(self.with_stack()?.topic_prefix.unwrap_or_default())
    }

    /// The file with the wire secret.
    ///
    /// # Errors
    /// Where it is neither given nor found.
    pub fn wire_secret_file(&self) -> Result<PathBuf> {
        self.with_stack()?.wire_secret_file.ok_or_else(|| self.missing("--wire-secret-file"))
    }

    /// The wire secret.
    ///
    /// # Errors
    /// Where its file is neither given nor found, or can't be read.
    pub fn wire_secrets(&self) -> Result<Secrets> {
        Ok(Secrets::read(&self.wire_secret_file()?)?)
    }

    /// What was given, and the rest from the stack file.
    fn with_stack(&self) -> Result<ConnectionArgs> {
        let mut args = self.clone();
        if let Some(file) = StackFile::read(&self.data_dir)? {
            // The secret belongs to a database: that of the stack is no other one's.
            if args.database_url.is_none() {
                args.wire_secret_file.get_or_insert(file.wire_secret_file);
            }
            // So does a CA to the server that it is to be believed by.
            if args.gateway_url.is_none() {
                args.gateway_ca_file = args.gateway_ca_file.or(file.ca_file);
            }
            args.database_url.get_or_insert(file.database_url);
            args.kafka_brokers.get_or_insert(file.kafka_brokers);
            args.topic_prefix.get_or_insert(file.topic_prefix);
            args.gateway_url.get_or_insert(file.gateway_url);
        }
        Ok(args)
    }

    fn missing(&self, flag: &str) -> anyhow::Error {
        anyhow!("no stack runs on {}: start one with `ordermill up`, or give {flag}", self.data_dir.display())
    }

    /// Resolves what was not given from the stack file. Kafka is reached as the user of that role where it is a secure stack's, and else as
    /// was given.
    ///
    /// # Errors
    /// Where something is neither given nor found; the message says what to do.
    pub fn resolve(&self, role: Role) -> Result<Connections> {
        let kafka = self.kafka_as(|users| users.of_role(role))?;
        let args = self.with_stack()?;
        Ok(Connections {
            kafka,
            database_url: args.database_url.ok_or_else(|| self.missing("--database-url"))?,
            gateway_url: args.gateway_url,
            gateway_ca_file: args.gateway_ca_file,
        })
    }

    /// Kafka alone, for commands that need nothing else. `login` says as whom it is reached where it is a secure stack's.
    ///
    /// # Errors
    /// Where it is neither given nor found.
    pub(crate) fn kafka_as(
        &self,
        login: impl FnOnce(&KafkaUsers) -> Result<Security>,
    ) -> Result<KafkaConfig> {
        let args = self.with_stack()?;
        let brokers = args.kafka_brokers.as_deref();
        let mut kafka = args.kafka(brokers.ok_or_else(|| self.missing("--kafka-brokers"))?)?;
        let is_stacks = self.kafka_brokers.is_none() && self.kafka_security.given().is_nothing();
        let stack = if is_stacks { StackFile::read(&self.data_dir)? } else { None };
        if let Some(users) = stack.and_then(|stack| stack.users()) {
            kafka.security = login(&users)?;
        }
        Ok(kafka)
    }

    /// Kafka at `brokers`, with the settings and the security that were given.
    ///
    /// # Errors
    /// Where a setting is not of the form NAME=VALUE or none that the client takes, the security is given by halves, or a file can't be read.
    pub fn kafka(&self, brokers: &str) -> Result<KafkaConfig> {
        let prefix = self.topic_prefix.as_deref().unwrap_or_default();
        let mut kafka = KafkaConfig::new(brokers, prefix, self.wire_secrets()?);
        kafka.settings = settings(&self.kafka_settings)?;
        kafka.security = self.kafka_security.given().security()?;
        kafka.check()?;
        Ok(kafka)
    }
}

/// The file in `data_dir` that holds the wire secret, where no other is given.
#[must_use]
pub fn wire_secret_file(data_dir: &Path) -> PathBuf {
    data_dir.join("wire.secret")
}

/// The file in `data_dir` that holds the admin's key.
#[must_use]
pub fn admin_key_file(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.key")
}

fn settings(given: &[String]) -> Result<BTreeMap<String, String>> {
    // What was given is not told: it may be a password.
    const NO_PAIR: &str = "a --kafka-setting is not of the form NAME=VALUE";
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').context(NO_PAIR)?;
        let (name, value) = (name.trim(), value.trim());
        ensure!(
            !is_reserved(name),
            "{name} is no setting for --kafka-setting: give --kafka-brokers, --kafka-security-protocol and their like, or their variables"
        );
        Ok((name.to_owned(), value.to_owned()))
    };
    given.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafka_settings_are_pairs() {
        let given = ["socket.timeout.ms=10000".to_owned(), "a = b=c".to_owned()];
        let settings = settings(&given).unwrap();
        assert_eq!(settings["socket.timeout.ms"], "10000");
        assert_eq!(settings["a"], "b=c");
        let told = super::settings(&["sesame".to_owned()]).unwrap_err().to_string();
        assert!(told.contains("NAME=VALUE") && !told.contains("sesame"), "{told}");
    }

    #[test]
    fn what_keeps_kafka_safe_is_no_setting_and_its_value_is_not_told() {
        for name in [
            "security.protocol",
            "sasl.password",
            "sasl.oauthbearer.config",
            "ssl.ca.certificate.stores",
            "ssl.cipher.suites",
            "ssl.endpoint.identification.algorithm",
            "enable.ssl.certificate.verification",
            "bootstrap.servers",
            "metadata.broker.list",
        ] {
            let error = settings(&[format!("{name} = sesame")]).unwrap_err().to_string();
            assert!(error.contains("--kafka-security-protocol") && !error.contains("sesame"), "{error}");
        }
        let own = ["ssl.certificate.location=/own.pem".to_owned(), "ssl.key.location=/own.key".to_owned()];
        assert_eq!(settings(&own).unwrap().len(), 2, "a certificate of our own weakens nothing");
    }
}
