//! The servers that tests run against.

mod docker;

use std::any::Any;
use std::env;
use std::ops::Deref;
use std::thread;

use tokio::sync::{OnceCell, oneshot};
use uuid::Uuid;

use crate::error::{Result, StackError};
use crate::postgres::{connect, create_database};
use crate::scratch::Scratch;
use crate::{Kafka, KafkaOptions, Postgres, PostgresOptions, Traced};

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

/// One of the servers: where it is, and what has to live as long as it is used.
#[derive(Debug)]
struct Server {
    address: String,
    keeper: Keeper,
}

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
            let postgres = scope.spawn(|| Server::given_or(url, || postgres(in_docker)));
            let kafka = scope.spawn(|| Server::given_or(brokers, || kafka(in_docker)));
            Ok::<_, StackError>((join(postgres)?, join(kafka)?))
        })?;
        Ok(TestStack {
            database_url: postgres.address,
            kafka_brokers: kafka.address,
            _keepers: [postgres.keeper, kafka.keeper],
        })
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn fresh_database(&self) -> String {
        let name = format!("t{}", unique());
        let created = async {
            let mut connection = connect(&self.database_url).await?;
            create_database(&mut connection, &name).await
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

impl Server {
    fn given_or(address: Option<String>, start: impl FnOnce() -> Result<Server>) -> Result<Server> {
        address.map_or_else(start, |address| Ok(Server { address, keeper: None }))
    }
}

fn postgres(in_docker: bool) -> Result<Server> {
    if in_docker {
        let (address, container) = docker::postgres()?;
        return Ok(Server { address, keeper: Some(Box::new(container)) });
    }
    let postgres = Private::postgres()?;
    Ok(Server { address: postgres.url("ordermill"), keeper: Some(Box::new(postgres)) })
}

fn kafka(in_docker: bool) -> Result<Server> {
    if in_docker {
        let (address, container) = docker::kafka()?;
        return Ok(Server { address, keeper: Some(Box::new(container)) });
    }
    let kafka = Private::kafka()?;
    Ok(Server { address: kafka.brokers(), keeper: Some(Box::new(kafka)) })
}

/// A server that one test has for itself, to kill, stop or fill it; with its directory, which goes with it.
#[derive(Debug)]
pub struct Private<Server> {
    // The order of the fields is that of their dropping.
    server: Server,
    scratch: Scratch,
}

impl Private<Postgres> {
    /// Starts a PostgreSQL. Blocks for some seconds; any thread may call it, one of a runtime's too.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn postgres() -> Result<Private<Postgres>> {
        let scratch = Scratch::new()?;
        let server = Postgres::start(scratch.path(), PostgresOptions::default(), &Traced)?;
        Ok(Private { server, scratch })
    }
}

impl Private<Kafka> {
    /// Starts a Kafka. Blocks for some seconds; any thread may call it, one of a runtime's too.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub fn kafka() -> Result<Private<Kafka>> {
        let scratch = Scratch::new()?;
        let server = Kafka::start(scratch.path(), KafkaOptions::default(), &Traced)?;
        Ok(Private { server, scratch })
    }
}

impl<Server> Private<Server> {
    /// The data directory of the server.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

impl<Server> Deref for Private<Server> {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
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
