//! The file by which a running `ordermill up` is found.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ordermill_pipeline::authenticity::Secrets;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_stack::write_private;
use serde::{Deserialize, Serialize};

use crate::kafka_users::KafkaUsers;

/// Where the parts of a running stack are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackFile {
    /// The API.
    pub api_url: String,
    /// The payment gateway.
    pub gateway_url: String,
    /// The database, as its owner.
    pub database_url: String,
    /// Kafka.
    pub kafka_brokers: String,
    /// What stands before every topic.
    pub topic_prefix: String,
    /// The file that holds the admin's key.
    pub admin_key_file: PathBuf,
    /// The file that holds the wire secret.
    pub wire_secret_file: PathBuf,
    /// The CA by which all servers are believed, where they answer by TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The directory with the passwords of Kafka's users, where it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka_users: Option<PathBuf>,
}

impl StackFile {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("stack.json")
    }

    /// The stack of that data directory; `None` where none runs.
    ///
    /// # Errors
    /// Where the file is there but can't be read.
    pub fn read(data_dir: &Path) -> Result<Option<StackFile>> {
        let path = Self::path(data_dir);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let file = serde_json::from_str(&text).with_context(|| {
                    format!("{} is damaged: stop the stack and delete it", path.display())
                })?;
                Ok(Some(file))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
        }
    }

    /// Its Kafka as its owner, who may do everything, with that before every name.
    ///
    /// # Errors
    /// Where the wire secret or the owner's password can't be read.
    pub fn kafka(&self, prefix: &str) -> Result<KafkaConfig> {
        let kafka = KafkaConfig::new(&self.kafka_brokers, prefix, Secrets::read(&self.wire_secret_file)?);
        match self.users() {
            Some(users) => Ok(kafka.reached_by(users.owner()?)),
            None => Ok(kafka),
        }
    }

    /// The users of its Kafka, where it has some.
    pub(crate) fn users(&self) -> Option<KafkaUsers> {
        Some(KafkaUsers::of(self.kafka_users.clone()?, self.ca_file.clone()?))
    }

    /// Writes the file in one step, readable by its owner alone, since it holds a password.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn write(&self, data_dir: &Path) -> Result<()> {
        Ok(write_private(&Self::path(data_dir), &(serde_json::to_string_pretty(self)? + "\n"))?)
    }

    /// Removes the file.
    pub fn remove(data_dir: &Path) {
        let _ = fs::remove_file(Self::path(data_dir));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_stack_file_reads_back_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let file = StackFile {
            api_url: "http://127.0.0.1:8080".to_owned(),
            gateway_url: "http://127.0.0.1:8090".to_owned(),
            database_url: "postgres://x".to_owned(),
            kafka_brokers: "127.0.0.1:9092".to_owned(),
            topic_prefix: String::new(),
            admin_key_file: PathBuf::from("admin.key"),
            wire_secret_file: PathBuf::from("wire.secret"),
            ca_file: None,
            kafka_users: None,
        };
        assert_eq!(StackFile::read(directory.path()).unwrap(), None);
        file.write(directory.path()).unwrap();
        assert_eq!(StackFile::read(directory.path()).unwrap().as_ref(), Some(&file));
        let text = fs::read_to_string(directory.path().join("stack.json")).unwrap();
        assert!(
            !text.contains("null") && !text.contains("ca_file"),
            "what is not there is not named: {text}"
        );
        let secure = StackFile { ca_file: Some("ca.pem".into()), kafka_users: Some("users".into()), ..file };
        secure.write(directory.path()).unwrap();
        assert_eq!(StackFile::read(directory.path()).unwrap(), Some(secure));
        let mode = fs::metadata(directory.path().join("stack.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        StackFile::remove(directory.path());
        assert_eq!(StackFile::read(directory.path()).unwrap(), None);
    }
}
