//! The servers that tests run against.

mod docker;

use std::any::Any;
use std::env;
use std::thread;

use derive_more::Deref;
use tokio::sync::{OnceCell, oneshot};
use uuid::Uuid;

use crate::error::Result;
use crate::postgres::{connect, create_database};
use crate::scratch::Scratch;
use crate::{Kafka, KafkaOptions, Postgres, PostgresOptions, Quiet};

/// PostgreSQL and Kafka for all the tests of one process. Each test takes a database and a topic prefix of its own.
///
/// `DATABASE_URL` and `KAFKA_BROKERS` are used where they are set; else containers where a Docker engine answers; else
/// servers started on this machine as `ordermill up` starts them. They end with the process.
#[derive(Debug)]
pub struct TestStack {
    /// A database of the server, as a role that may create databases.
    pub database_url: String,
    /// Kafka's address, `HOST:PORT`.
    pub kafka_brokers: String,
    _keepers: [Keeper; 2],
}

/// What has to live as long as a server is used.
type Keeper = Option<Box<dyn Any + Send + Sync>>;

impl TestStack {
    /// The stack of this process, started at the first call. It stands on threads and processes alone, so tests with
    /// runtimes of their own can share it.
    ///
    /// # Panics
    /// If it can't be started; the message says why.
    pub async fn shared() -> &'static TestStack {
        static SHARED: OnceCell<Result<TestStack>> = OnceCell::const_new();
        let started = SHARED.get_or_init(|| async {
            let (answer, answered) = oneshot::channel();
            thread::spawn(move || {
                // A test that was cancelled waits no more; the next one starts the stack again.
                let _ = answer.send(TestStack::start());
            });
            answered.await.expect("the thread that starts the stack answers or has panicked")
        });
        match started.await {
            Ok(stack) => stack,
            Err(error) => panic!("no stack to test against: {error}"),
        }
    }

    fn start() -> Result<TestStack> {
        let given = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let (url, brokers) = (given("DATABASE_URL"), given("KAFKA_BROKERS"));
        let in_docker = (url.is_none() || brokers.is_none()) && docker::answers();
        let (postgres, kafka) = thread::scope(|scope| {
            let postgres = scope.spawn(|| url.map_or_else(|| postgres(in_docker), |url| Ok((url, None))));
            let kafka = scope.spawn(|| brokers.map_or_else(|| kafka(in_docker), |at| Ok((at, None))));
            (join(postgres), join(kafka))
        });
        let ((database_url, postgres), (kafka_brokers, kafka)) = (postgres?, kafka?);
        Ok(TestStack { database_url, kafka_brokers, _keepers: [postgres, kafka] })
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn fresh_database(&self) -> String {
        self.fresh_database_with("").await
    }

    /// The same with further options of `CREATE DATABASE`, like `ENCODING 'LATIN1' LOCALE 'C'`.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn fresh_database_with(&self, options: &str) -> String {
        let name = format!("t{}", unique());
        let created = async {
            let mut connection = connect(&self.database_url).await?;
            create_database(&mut connection, &name, options).await
        };
        match created.await {
            Ok(()) => with_database(&self.database_url, &name),
            Err(error) => panic!("no database to test against: {error}"),
        }
    }

    /// A prefix for the topics of one test: `t3f9a1c07.`
    pub fn fresh_prefix(&self) -> String {
        format!("t{}.", unique())
    }
}

/// PostgreSQL's address, and what keeps it.
fn postgres(in_docker: bool) -> Result<(String, Keeper)> {
    if in_docker {
        let (url, container) = docker::postgres()?;
        return Ok((url, Some(Box::new(container))));
    }
    let postgres = Private::postgres()?;
    Ok((postgres.url("ordermill"), Some(Box::new(postgres))))
}

/// Kafka's address, and what keeps it.
fn kafka(in_docker: bool) -> Result<(String, Keeper)> {
    if in_docker {
        let (brokers, container) = docker::kafka()?;
        return Ok((brokers, Some(Box::new(container))));
    }
    let kafka = Private::kafka()?;
    Ok((kafka.brokers(), Some(Box::new(kafka))))
}

/// A server that one test has for itself, to kill, stop or fill it; with its directory, which goes with it.
#[derive(Debug, Deref)]
pub struct Private<Server> {
    // The order of the fields is that of their dropping.
    #[deref]
    server: Server,
    _scratch: Scratch,
}

impl Private<Postgres> {
    /// Starts a PostgreSQL. Blocks for some seconds; any thread may call it, one of a runtime's too.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn postgres() -> Result<Private<Postgres>> {
        let scratch = Scratch::new()?;
        let server = Postgres::start(scratch.path(), PostgresOptions::default(), &Quiet)?;
        Ok(Private { server, _scratch: scratch })
    }
}

impl Private<Kafka> {
    /// Starts a Kafka. Blocks for some seconds; any thread may call it, one of a runtime's too.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub fn kafka() -> Result<Private<Kafka>> {
        let scratch = Scratch::new()?;
        let server = Kafka::start(scratch.path(), KafkaOptions::default(), &Quiet)?;
        Ok(Private { server, _scratch: scratch })
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn unique() -> String {
    Uuid::new_v4().simple().to_string()[..8].to_owned()
}

/// The same server's other database.
fn with_database(url: &str, name: &str) -> String {
    let (url, query) = url.split_once('?').map_or((url, None), |(url, query)| (url, Some(query)));
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let server = url[after_scheme..].find('/').map_or(url, |at| &url[..after_scheme + at]);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{server}/{name}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_the_same_server_keeps_the_rest_of_the_url() {
        for (url, expected) in [
            ("postgres://u:p@h:1/a", "postgres://u:p@h:1/x"),
            ("postgres://u:p@h:1", "postgres://u:p@h:1/x"),
            ("postgres://u:p@h:1/a?sslmode=disable", "postgres://u:p@h:1/x?sslmode=disable"),
        ] {
            assert_eq!(with_database(url, "x"), expected);
        }
    }
}
