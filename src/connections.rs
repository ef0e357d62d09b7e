//! Where the database, Kafka and the gateway are: said by flags or the environment, or else by the stack file of
//! the running `ordermill up`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use ordermill_pipeline::kafka::KafkaConfig;

use crate::stack_file::StackFile;

/// The flags that every command takes.
#[derive(Args, Clone, Debug)]
pub struct ConnectionArgs {
    /// The data directory of `ordermill up`; what is not given otherwise is read from its stack file.
    #[arg(long, env = "ORDERMILL_DATA_DIR", default_value = ".ordermill", global = true)]
    pub data_dir: PathBuf,
    /// PostgreSQL, like postgres://user:password@host:5432/ordermill.
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
    /// The payment gateway, like http://host:8090.
    #[arg(long, env = "ORDERMILL_GATEWAY_URL", global = true)]
    pub gateway_url: Option<String>,
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
    /// The API, where it is known.
    pub api_url: Option<String>,
}

impl ConnectionArgs {
    /// The database alone, for commands that need nothing else.
    ///
    /// # Errors
    /// Where it is neither given nor found.
    pub fn database_url(&self) -> Result<String> {
        let file = StackFile::read(&self.data_dir)?;
        let url = self.database_url.clone().or_else(|| file.map(|file| file.database_url));
        url.ok_or_else(|| self.missing("--database-url"))
    }

    /// What stands before every topic and group name; nothing where it is neither given nor found.
    ///
    /// # Errors
    /// Where the stack file can't be read.
    pub fn topic_prefix(&self) -> Result<String> {
        let file = StackFile::read(&self.data_dir)?;
        let prefix = self.topic_prefix.clone().or_else(|| file.map(|file| file.topic_prefix));
        Ok(prefix.unwrap_or_default())
    }

    fn missing(&self, flag: &str) -> anyhow::Error {
        anyhow!("no stack runs on {}: start one with `ordermill up`, or give {flag}", self.data_dir.display())
    }

    /// Resolves what was not given from the stack file.
    ///
    /// # Errors
    /// Where something is neither given nor found; the message says what to do.
    pub fn resolve(&self) -> Result<Connections> {
        let file = StackFile::read(&self.data_dir)?;
        let file = file.as_ref();
        let database_url = self.database_url.clone().or_else(|| file.map(|f| f.database_url.clone()));
        let brokers = self.kafka_brokers.clone().or_else(|| file.map(|f| f.kafka_brokers.clone()));
        Ok(Connections {
            database_url: database_url.ok_or_else(|| self.missing("--database-url"))?,
            kafka: self.kafka(&brokers.ok_or_else(|| self.missing("--kafka-brokers"))?, file)?,
            gateway_url: self.gateway_url.clone().or_else(|| file.map(|f| f.gateway_url.clone())),
            api_url: file.map(|f| f.api_url.clone()),
        })
    }

    /// Kafka at `brokers`, with the settings that were given.
    ///
    /// # Errors
    /// Where a setting is not of the form NAME=VALUE.
    pub fn kafka(&self, brokers: &str, file: Option<&StackFile>) -> Result<KafkaConfig> {
        let prefix = self.topic_prefix.clone().or_else(|| file.map(|f| f.topic_prefix.clone()));
        let mut kafka = KafkaConfig::new(brokers, &prefix.unwrap_or_default());
        kafka.settings = settings(&self.kafka_settings)?;
        Ok(kafka)
    }

    /// The file that holds the admin's key.
    #[must_use]
    pub fn admin_key_file(&self) -> PathBuf {
        admin_key_file(&self.data_dir)
    }
}

/// The file in `data_dir` that holds the admin's key.
#[must_use]
pub fn admin_key_file(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.key")
}

fn settings(given: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (name, value) =
            text.split_once('=').with_context(|| format!("{text:?} is not of the form NAME=VALUE"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
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
        assert!(super::settings(&["nonsense".to_owned()]).is_err());
    }
}
