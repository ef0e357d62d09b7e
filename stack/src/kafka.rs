//! Apache Kafka: one node in KRaft mode, a child process on Java.

mod config;
mod jars;
mod probe;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use derive_more::{Debug, Deref};
use uuid::Uuid;

use crate::Progress;
use crate::certificates::ServerTls;
use crate::child::Program;
use crate::claim::Claim;
use crate::error::{Result, StackError};
use crate::files::{close, make_private_dir, remove_if_there};
use crate::server::Server;
use crate::{ports, programs};

pub use config::properties_text;
pub use jars::KAFKA_VERSION;
#[cfg(feature = "testing")]
pub(crate) use probe::answers_within;

/// The oldest Java that Kafka 4 runs on.
const OLDEST_JAVA: u32 = 17;

const NAME: &str = "Kafka";

const SHUTDOWN: Duration = Duration::from_secs(30);

const READY: Duration = Duration::from_secs(120);

const FORMAT_DEADLINE: Duration = Duration::from_secs(60);

/// How to start [`Kafka`].
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// The port on 127.0.0.1; by default that of the last run, else any free one.
    pub port: Option<u16>,
    /// With what it is reached by TLS and as a user alone; by default everybody may do everything, in the open.
    pub security: Option<KafkaSecurity>,
    /// Settings of `server.properties`, name and value; they win over ours.
    pub settings: Vec<(String, String)>,
}

/// A broker that lets in whom it knows. It knows its owner, and whom the owner makes known to it.
#[derive(Clone, Debug)]
pub struct KafkaSecurity {
    /// Its certificate.
    pub tls: ServerTls,
    /// The user who may do everything, and logs in by PLAIN. A name and a password have letters, digits and hyphens.
    pub owner: String,
    // It would end up in a log.
    /// The owner's password.
    #[debug(skip)]
    pub password: String,
}

/// A running Kafka broker with data of its own. Dropping it kills the broker; [`Kafka::stop`] is the orderly way.
#[derive(Debug, Deref)]
pub struct Kafka {
    #[deref]
    server: Server,
    java: PathBuf,
    jars: PathBuf,
    home: PathBuf,
    /// Of the broker and of the controller.
    ports: [u16; 2],
    options: KafkaOptions,
}

impl Kafka {
    /// Starts a broker on the data in `dir`, which is formatted if it is missing; returns when it answers a client.
    ///
    /// # Errors
    /// If Java is not installed, Maven can't fetch the jars, a port or the data is in use, or it does not become ready.
    pub fn start(dir: &Path, options: KafkaOptions, progress: &Progress) -> Result<Kafka> {
        let java = find_java()?;
        let jars = jars::fetch(progress)?;
        let claim = Claim::take(dir, "kafka")?;
        let dir = dir.canonicalize().map_err(StackError::io("find", dir))?;
        let home = dir.join("kafka");
        make_private_dir(&home)?;
        close(&home)?;
        let last = claim.last_ports();
        let ports = [
            ports::choose(NAME, options.port, last.first().copied())?,
            ports::choose("Kafka's controller", None, last.get(1).copied())?,
        ];
        let server = Server::new(NAME, home.join("kafka.log"), ports.to_vec(), SHUTDOWN, claim);
        let kafka = Kafka { server, java, jars, home, ports, options };
        progress.begin("starting Kafka").end(kafka.launch())?;
        Ok(kafka)
    }

    /// The address for clients, `127.0.0.1:PORT`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Starts the broker again on the same ports, after stopping it if it still runs; returns when it answers. After a
    /// kill that takes some seconds, until the killed broker's session is over.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub fn restart(&self) -> Result<()> {
        self.stop();
        self.check_ports()?;
        self.launch()
    }

    /// Kills the broker and deletes all it has stored, its topics and cluster id included; [`Kafka::restart`] then
    /// starts an empty one.
    ///
    /// # Errors
    /// If the files can't be deleted.
    pub fn wipe_data(&self) -> Result<()> {
        self.kill9();
        remove_if_there(&self.data())
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn launch(&self) -> Result<()> {
        let properties = self.home.join("server.properties");
        config::write_log4j(&self.home.join("log4j2.properties"))?;
        if !self.data().is_dir() {
            self.format()?;
        }
        self.write_server(&properties, &self.data())?;
        let program = self.java(NAME, "kafka.Kafka").arg(&properties);
        let security = self.options.security.as_ref();
        self.server.launch(program, |child| probe::wait_until_ready(child, self.port(), security, READY))
    }

    fn write_server(&self, properties: &Path, data: &Path) -> Result<()> {
        let KafkaOptions { security, settings, .. } = &self.options;
        config::write_server(properties, data, self.ports, security.as_ref(), settings)
    }

    /// Under another name, then renamed: data that is there is formatted.
    fn format(&self) -> Result<()> {
        let unfinished = self.home.join("data.unfinished");
        remove_if_there(&unfinished)?;
        let properties = self.home.join("format.properties");
        self.write_server(&properties, &unfinished)?;
        self.java("Kafka's storage tool", "kafka.tools.StorageTool")
            .args(["format", "--cluster-id", &new_cluster_id(), "--config"])
            .arg(&properties)
            .start()?
            .finish(FORMAT_DEADLINE)?;
        fs::rename(&unfinished, self.data()).map_err(StackError::io("rename", &unfinished))
    }

    fn java(&self, name: &str, class: &str) -> Program {
        // A killed Java leaves the libraries that it unpacked; here they are found, and cleared away at the next start.
        let scratch = self.home.join("tmp");
        let _ = fs::remove_dir_all(&scratch);
        let _ = make_private_dir(&scratch);
        Program::new(name, &self.java, self.home.join("java.log"))
            .private()
            .directory(&self.home)
            .arg("-Xmx512m")
            // The machine is shared with the database and the pipeline: one collector thread costs the least.
            .args(["-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true"])
            // The optimizing compiler took half of a processor for the first minutes, from the database and the pipeline.
            .arg("-XX:TieredStopAtLevel=1")
            .arg(format!("-Djava.io.tmpdir={}", scratch.display()))
            .arg(format!("-Dordermill.kafka.log={}", self.log().display()))
            .arg(format!("-Dlog4j2.configurationFile={}", self.home.join("log4j2.properties").display()))
            .arg("-cp")
            .arg(self.jars.join("*"))
            .arg(class)
            // Java's last words are a line of a stack trace; the telling one is the first that names the exception.
            .telling(|line| line.contains("Exception: "))
    }
}

/// `$JAVA_HOME`'s, else the first on the search path.
fn find_java() -> Result<PathBuf> {
    let missing = || {
        let java = format!("Java {OLDEST_JAVA} or newer, which runs Kafka,");
        StackError::not_installed(java, programs::INSTALL)
    };
    env::var_os("JAVA_HOME")
        .map(|home| PathBuf::from(home).join("bin/java"))
        .filter(|java| programs::is_executable(java))
        .into_iter()
        .chain(programs::on_path("java"))
        .find(|java| programs::major_version(java, "-version").is_some_and(|version| version >= OLDEST_JAVA))
        .ok_or_else(missing)
}

/// Kafka's ids are 16 bytes in URL-safe base64: 22 characters, of which hexadecimal digits are some. The last one holds
/// two bits only.
fn new_cluster_id() -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("{}A", &random[..21])
}
