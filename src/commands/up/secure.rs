//! `ordermill up --secure`: every server answers by TLS alone, with certificates of the data directory's own, and who reaches Kafka is a user
//! who may do what its role needs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_pipeline::kafka::access::{Right, Role};
use ordermill_pipeline::kafka::{administration, admission};
use ordermill_stack::{Certificates, KafkaSecurity};

use crate::connections::ConnectionArgs;
use crate::kafka_users::{KafkaUsers, OWNER};

/// How long the broker may take to know a user who was just made.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Certificates and users.
pub(super) struct Secure {
    pub(super) certificates: Certificates,
    pub(super) users: KafkaUsers,
}

impl Secure {
    /// Those of the data directory, made where they are missing.
    ///
    /// # Errors
    /// Where something was given that is not ours to secure, or they can't be made.
    pub(super) fn prepare(given: &ConnectionArgs, directory: &Path) -> Result<Secure> {
        if let Some(given) = servers_of_others(given) {
            bail!(
                "--secure starts all servers itself, with certificates of its own, but {given} names one that is there: leave one of the two out"
            );
        }
        let certificates = Certificates::keep(directory, Clock::system().now().into())?;
        let users = KafkaUsers::keep(directory, certificates.ca_file())?;
        Ok(Secure { certificates, users })
    }

    /// What the broker needs to be secure.
    ///
    /// # Errors
    /// Where the owner's password can't be read.
    pub(super) fn kafka(&self) -> Result<KafkaSecurity> {
        let password = self.users.password(OWNER)?;
        Ok(KafkaSecurity { tls: self.certificates.kafka(), owner: OWNER.to_owned(), password })
    }

    /// Allows each role what it needs, then makes its user, and waits until the broker knows it: so whoever can log in has its rights. Safe to
    /// repeat.
    ///
    /// # Errors
    /// Where the broker does not.
    pub(super) async fn set_up(&self, kafka: &KafkaConfig) -> Result<()> {
        let owner = kafka.reached_by(self.users.owner()?);
        let groups = ordermill_workers::groups();
        let rights = Role::ALL.iter().flat_map(|role| role.rights(role.name(), kafka, &groups));
        administration::allow(&owner, &rights.collect::<Vec<Right>>()).await?;
        let mut passwords = Vec::new();
        for role in Role::ALL {
            passwords.push((role.name().to_owned(), self.users.password(role.name())?));
        }
        administration::set_passwords(&owner, &passwords).await?;
        for role in Role::ALL {
            wait_until_known(&kafka.reached_by(self.users.of_role(role)?)).await?;
        }
        Ok(())
    }
}

/// The first server that was given, so that it would not be started here.
fn servers_of_others(given: &ConnectionArgs) -> Option<&'static str> {
    let servers = [
        ("DATABASE_URL (--database-url)", given.database_url.is_some()),
        ("KAFKA_BROKERS (--kafka-brokers)", given.kafka_brokers.is_some()),
        ("ORDERMILL_GATEWAY_URL (--gateway-url)", given.gateway_url.is_some()),
    ];
    servers.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
}

async fn wait_until_known(kafka: &KafkaConfig) -> Result<()> {
    let started = Instant::now();
    loop {
        match admission::admitted(kafka).await {
            Ok(()) => return Ok(()),
            Err(error) if started.elapsed() > KNOWN_WITHIN => {
                return Err(error).context("Kafka does not know the users that were made");
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
