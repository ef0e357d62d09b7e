//! What can go wrong, each in one line that says what to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of this crate's functions.
pub type Result<T, E = StackError> = std::result::Result<T, E>;

/// Why a part of the stack could not be started, stopped or used. Every message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A program that we need is not installed, or is too old.
    #[error("{program} is not installed: {remedy}")]
    MissingProgram {
        /// The program, with the least version where that matters.
        program: String,
        /// What installs it.
        remedy: &'static str,
    },

    /// Something else listens on the port that was asked for.
    #[error("port {port} for {what} is in use: stop the program that listens there, or choose another port")]
    PortInUse {
        /// Which part of the stack wanted it.
        what: String,
        /// The port.
        port: u16,
    },

    /// Another live process of ours holds the data directory.
    #[error("{dir} is in use by process {owner}: stop that one, or choose another data directory")]
    DirectoryInUse {
        /// The data directory.
        dir: PathBuf,
        /// The process id of the holder.
        owner: String,
    },

    /// The data is there, but can't be used as it is.
    #[error("the {what} data in {path} can't be used: {reason}")]
    UnusableData {
        /// Which part of the stack it belongs to.
        what: &'static str,
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },

    /// A child ended though it should be running.
    #[error("{what} ended ({status}): {reason} (its log: {log})")]
    Ended {
        /// Which program.
        what: String,
        /// Its exit status.
        status: String,
        /// The telling line of its log.
        reason: String,
        /// The whole log.
        log: PathBuf,
    },

    /// A child runs, but did not become ready, or did not end, in time.
    #[error("{what} {not_done} within {} s: see its log {log}", deadline.as_secs())]
    TooSlow {
        /// Which program.
        what: String,
        /// What did not happen.
        not_done: &'static str,
        /// How long we waited.
        deadline: Duration,
        /// Its log.
        log: PathBuf,
    },

    /// Maven did not bring the Kafka jars.
    #[error("Kafka {version} can't be fetched: {source}; check the network, then run this again")]
    Fetch {
        /// The version of Kafka.
        version: &'static str,
        /// What became of Maven.
        source: Box<StackError>,
    },

    /// PostgreSQL refused a statement or a connection.
    #[error("PostgreSQL: {doing}: {}", first_line(&source.to_string()))]
    Database {
        /// What we were doing.
        doing: String,
        /// What it answered.
        source: Box<sqlx::Error>,
    },

    /// A client of Kafka could not be made.
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),

    /// Docker answers, but a container did not start.
    #[error("Docker: {0}; set DATABASE_URL and KAFKA_BROKERS, or stop Docker, to do without it")]
    Container(String),

    /// A file or a process could not be handled.
    #[error("can't {doing}: {source}")]
    Io {
        /// What we were doing, with the path.
        doing: String,
        /// What the system answered.
        source: std::io::Error,
    },
}

impl StackError {
    /// Turns an I/O error into ours: `map_err(StackError::io("read", path))`.
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StackError {
        let doing = format!("{verb} {}", path.display());
        move |source| StackError::Io { doing, source }
    }

    /// Turns an error of the PostgreSQL client into ours.
    pub(crate) fn database(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> StackError {
        let doing = doing.into();
        move |source| StackError::Database { doing, source: Box::new(source) }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
