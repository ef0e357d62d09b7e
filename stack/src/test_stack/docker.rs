//! The servers in containers, where a Docker engine answers.

use std::env;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::SyncRunner;
use testcontainers::{Container, ContainerRequest, GenericImage, ImageExt};

use crate::error::{Result, StackError};
use crate::kafka::{self, KAFKA_VERSION};
use crate::postgres::connect;
use crate::scratch::LastWill;
use crate::{free_port, runtime, wait};

/// The first start may pull the image.
const READY: Duration = Duration::from_secs(120);

const POSTGRES_TAG: &str = "15";

/// A container that goes with this process.
#[derive(Debug)]
pub(super) struct Running {
    /// It removes itself when dropped, which a static never is; hence the last will.
    _container: Container<GenericImage>,
    _last_will: LastWill,
}

/// Whether an engine answers at `DOCKER_HOST` (`unix://` or `tcp://`) or the usual socket.
pub(super) fn answers() -> bool {
    let address = env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    ping(&address).is_ok_and(|reply| reply.contains(" 200 "))
}

fn ping(address: &str) -> std::io::Result<String> {
    let patience = Duration::from_secs(2);
    if let Some(path) = address.strip_prefix("unix://") {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        first_line_of_answer(stream)
    } else if let Some(host) = address.strip_prefix("tcp://") {
        let host = host.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        let stream = TcpStream::connect_timeout(&host, patience)?;
        stream.set_read_timeout(Some(patience))?;
        first_line_of_answer(stream)
    } else {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

fn first_line_of_answer(mut stream: impl Read + Write) -> std::io::Result<String> {
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut bytes = [0; 256];
    let length = stream.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).lines().next().unwrap_or_default().to_owned())
}

/// Where ports of containers are reached.
fn host() -> String {
    let address = env::var("DOCKER_HOST").unwrap_or_default();
    let host = address.strip_prefix("tcp://").and_then(|host| host.rsplit_once(':'));
    host.map_or_else(|| "127.0.0.1".into(), |(host, _port)| host.to_owned())
}

/// Starts PostgreSQL and returns its URL.
pub(super) fn postgres() -> Result<(String, Running)> {
    let port = free_port()?;
    let image = GenericImage::new("postgres", POSTGRES_TAG)
        .with_wait_for(WaitFor::Nothing)
        .with_mapped_port(port, 5432.tcp())
        .with_env_var("POSTGRES_USER", "ordermill")
        .with_env_var("POSTGRES_PASSWORD", "ordermill")
        .with_env_var("POSTGRES_DB", "ordermill")
        .with_env_var("POSTGRES_INITDB_ARGS", "--encoding=UTF8 --locale=C.UTF-8")
        .with_cmd(["postgres", "-c", "max_connections=500", "-c", "shared_buffers=256MB"]);
    let running = run(image)?;
    let url = format!("postgres://ordermill:ordermill@{}:{port}/ordermill", host());
    // The image's first server, which sets the cluster up, does not listen on the network.
    wait::until(READY, || runtime::block_on(connect(&url)).ok())
        .map(|_| (url, running))
        .ok_or_else(|| not_ready("PostgreSQL"))
}

/// Starts Kafka and returns its address.
pub(super) fn kafka() -> Result<(String, Running)> {
    let port = free_port()?;
    let brokers = format!("{}:{port}", host());
    // The image takes its own defaults only if it is given no setting at all; so here are all of them.
    let image = GenericImage::new("apache/kafka", KAFKA_VERSION)
        .with_wait_for(WaitFor::Nothing)
        .with_mapped_port(port, 9092.tcp())
        .with_env_var("KAFKA_NODE_ID", "1")
        .with_env_var("KAFKA_PROCESS_ROLES", "broker,controller")
        .with_env_var("KAFKA_LISTENERS", "PLAINTEXT://:9092,CONTROLLER://:9093")
        .with_env_var("KAFKA_ADVERTISED_LISTENERS", format!("PLAINTEXT://{brokers}"))
        .with_env_var("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT")
        .with_env_var("KAFKA_INTER_BROKER_LISTENER_NAME", "PLAINTEXT")
        .with_env_var("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER")
        .with_env_var("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@localhost:9093")
        .with_env_var("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
        .with_env_var("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0")
        .with_env_var("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1")
        .with_env_var("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
        .with_env_var("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1");
    let running = run(image)?;
    if kafka::answers_within(&brokers, READY)? { Ok((brokers, running)) } else { Err(not_ready("Kafka")) }
}

fn run(image: ContainerRequest<GenericImage>) -> Result<Running> {
    let container = image.start().map_err(|error| {
        let text = error.to_string();
        failed(text.lines().next().unwrap_or_default())
    })?;
    let last_will = LastWill::new(r#"docker rm --force --volumes "$1""#, &[container.id()])?;
    Ok(Running { _container: container, _last_will: last_will })
}

fn not_ready(what: &str) -> StackError {
    failed(&format!("the container of {what} was not ready within {} s", READY.as_secs()))
}

/// Docker answers, but a container did not start.
fn failed(reason: &str) -> StackError {
    StackError::Other(format!(
        "Docker: {reason}; set DATABASE_URL and KAFKA_BROKERS, or stop Docker, to do without it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_engine_answers_only_where_one_listens() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let address = format!("unix://{}", socket.display());
        assert!(ping(&address).is_err());

        let listener = UnixListener::bind(&socket).unwrap();
        let engine = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 16];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nOK").unwrap();
        });
        assert_eq!(ping(&address).unwrap(), "HTTP/1.0 200 OK");
        engine.join().unwrap();
    }
}
