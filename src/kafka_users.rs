//! The users of a secure stack's Kafka: its owner, and one for each role, who is called like it. Each has a password in a file of the data
//! directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ordermill_pipeline::kafka::access::Role;
use ordermill_pipeline::kafka::security::{Login, Mechanism, Security};
use ordermill_stack::{make_private_dir, properties_text, write_private};
use uuid::Uuid;

/// The user who may do everything. Its password stands in the broker's own settings, so it can log in before anybody else is known there.
pub(crate) const OWNER: &str = "owner";

/// Where their passwords are, and whom they believe to be the broker.
#[derive(Clone, Debug)]
pub(crate) struct KafkaUsers {
    directory: PathBuf,
    ca_file: PathBuf,
}

impl KafkaUsers {
    /// Those whose passwords are in that directory.
    pub(crate) fn of(directory: PathBuf, ca_file: PathBuf) -> KafkaUsers {
        KafkaUsers { directory, ca_file }
    }

    /// Those of a data directory; passwords that are missing are made.
    ///
    /// # Errors
    /// Where they can't be written.
    pub(crate) fn keep(data_dir: &Path, ca_file: PathBuf) -> Result<KafkaUsers> {
        let users = KafkaUsers::of(data_dir.join("kafka-users"), ca_file);
        make_private_dir(&users.directory)?;
        for user in Role::ALL.map(Role::name).into_iter().chain([OWNER]) {
            let file = users.file_of(user);
            if !file.exists() {
                let password = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
                write_private(&file, &format!("{password}\n"))?;
            }
        }
        Ok(users)
    }

    /// Where their passwords are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A user's password.
    ///
    /// # Errors
    /// Where its file can't be read.
    pub(crate) fn password(&self, user: &str) -> Result<String> {
        let file = self.file_of(user);
        let unreadable = || {
            format!("can't read {}: start `ordermill up --secure` again, which makes another", file.display())
        };
        Ok(fs::read_to_string(&file).with_context(unreadable)?.trim().to_owned())
    }

    /// How the owner logs in.
    ///
    /// # Errors
    /// Where its password can't be read.
    pub(crate) fn owner(&self) -> Result<Security> {
        self.login(OWNER, Mechanism::Plain)
    }

    /// How the user of a role logs in.
    ///
    /// # Errors
    /// Where its password can't be read.
    pub(crate) fn of_role(&self, role: Role) -> Result<Security> {
        self.login(role.name(), Mechanism::ScramSha512)
    }

    fn login(&self, user: &str, mechanism: Mechanism) -> Result<Security> {
        let login = Login { mechanism, user: user.to_owned(), password: self.password(user)? };
        Ok(Security::login(&self.ca_file, login))
    }

    /// Writes for readers outside how they reach Kafka: as settings of librdkafka, and of Kafka's own client in Java. Answers the former
    /// file.
    ///
    /// # Errors
    /// Where they can't be written.
    pub(crate) fn write_settings_of_readers(&self, brokers: &str) -> Result<PathBuf> {
        let user = Role::Reader.name();
        let (password, ca_file) = (self.password(user)?, self.ca_file.display());
        let [settings, java] =
            ["conf", "properties"].map(|ending| self.directory.join(format!("{user}.{ending}")));
        let text = format!(
            "bootstrap.servers={brokers}\nsecurity.protocol=SASL_SSL\nssl.ca.location={ca_file}\n\
             sasl.mechanisms=SCRAM-SHA-512\nsasl.username={user}\nsasl.password={password}\n"
        );
        write_private(&settings, &text)?;
        let text = format!(
            "bootstrap.servers={brokers}\nsecurity.protocol=SASL_SSL\nssl.truststore.type=PEM\n\
             ssl.truststore.location={}\nsasl.mechanism=SCRAM-SHA-512\n\
             sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
             username=\"{user}\" password=\"{password}\";\n",
            properties_text(&self.ca_file.to_string_lossy())
        );
        write_private(&java, &text)?;
        Ok(settings)
    }

    fn file_of(&self, user: &str) -> PathBuf {
        self.directory.join(format!("{user}.password"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn each_user_keeps_a_password_of_its_own_that_nobody_else_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let users = KafkaUsers::keep(dir.path(), "가.pem".into()).unwrap();
        let names = Role::ALL.map(Role::name).into_iter().chain([OWNER]);
        let mut passwords: Vec<String> = names.map(|user| users.password(user).unwrap()).collect();
        let (settings, count) = (users.write_settings_of_readers("127.0.0.1:1").unwrap(), passwords.len());
        for entry in fs::read_dir(users.directory()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0);
        }
        let reader = users.password("reader").unwrap();
        let java = fs::read_to_string(settings.with_extension("properties")).unwrap();
        assert!(java.contains("ssl.truststore.location=\\uac00.pem\n"), "Java reads Latin-1: {java}");
        let settings = fs::read_to_string(settings).unwrap();
        assert!(settings.contains(&format!("sasl.password={reader}\n")), "{settings}");
        assert!(settings.contains("ssl.ca.location=가.pem\n"), "{settings}");
        let again = KafkaUsers::keep(dir.path(), "ca.pem".into()).unwrap();
        assert_eq!(again.password("relay").unwrap(), users.password("relay").unwrap());
        passwords.sort();
        passwords.dedup();
        assert_eq!(passwords.len(), count, "no two are alike");
    }
}
