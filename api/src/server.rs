//! The accept loop. `axum::serve` waits for ever for half a header and for a client that reads nothing, and so would the stop; this one does not.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ordermill_pipeline::journal::Journal;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::app::{Api, ApiError};
use crate::config::ApiConfig;
use crate::metrics::ApiMetrics;
use crate::routes::router;
use crate::write_timeout::WriteTimeout;

/// How long a connection may take for a request's head, and so how long it may be idle between two.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a connection is buffered, and so how long a request's head may be.
const BUFFER_MAX: usize = 64 * 1024;
/// The pause after a failed accept, which mostly means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long after the last answer a connection has to carry it to its client.
const LAST_ANSWER_LINGER: Duration = Duration::from_millis(250);

type Accepted = (TcpStream, SocketAddr);
/// Held by a connection while it lives.
type Place = Result<OwnedSemaphorePermit, AcquireError>;

/// Serves until `shutdown`, then answers the requests under way, lets the work in the background end, and
/// returns. `registry` is what `/metrics` shows; `metrics` must have been registered in it.
///
/// # Errors
/// [`ApiError`] where the configuration can't be served.
pub async fn serve(
    listener: TcpListener,
    journal: Journal,
    config: ApiConfig,
    metrics: ApiMetrics,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
) -> Result<(), ApiError> {
    let api = Api::start(journal, config, metrics, registry, &shutdown)?;
    accept_until(listener, &api, shutdown).await;
    api.close().await;
    Ok(())
}

async fn accept_until(listener: TcpListener, api: &Api, shutdown: CancellationToken) {
    let router = router(api.clone());
    let (connections, requests) = (TaskTracker::new(), TaskTracker::new());
    let places = Arc::new(Semaphore::new(api.config.connections_max.max(1)));
    // Ends what is left of the connections when the grace is over.
    let cut = CancellationToken::new();
    while let Some((accepted, place)) = shutdown.run_until_cancelled(accept(&listener, &places)).await {
        match accepted {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection without TCP_NODELAY");
                }
                let stream = WriteTimeout::new(stream, api.config.write_timeout);
                let connection =
                    serve_connection(stream, peer, router.clone(), requests.clone(), shutdown.clone());
                let cut = cut.clone();
                connections.spawn(async move {
                    cut.run_until_cancelled(connection).await;
                    drop(place);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Who comes now is refused at once and can go elsewhere.
    drop(listener);
    connections.close();
    requests.close();
    let answered = async {
        requests.wait().await;
        tokio::time::sleep(LAST_ANSWER_LINGER).await;
    };
    let ended = tokio::time::timeout(api.config.shutdown_grace, async {
        // Half a request is no request: its connection is not waited for.
        tokio::select! {
            () = connections.wait() => {}
            () = answered => {}
        }
    });
    if ended.await.is_err() {
        tracing::warn!(requests = requests.len(), "cutting off requests that have not finished");
    }
    cut.cancel();
    connections.wait().await;
}

/// The next connection, once there is a place for it; who is not accepted waits in the system's queue.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (io::Result<Accepted>, Place) {
    let place = places.clone().acquire_owned().await;
    (listener.accept().await, place)
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn serve_connection(
    stream: WriteTimeout<TcpStream>,
    peer: SocketAddr,
    router: Router,
    requests: TaskTracker,
    shutdown: CancellationToken,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let (router, under_way) = (router.clone(), requests.token());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        async move {
            let answer = router.oneshot(request).await;
            drop(under_way);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::rate_limits::{Networks, Rate};
    use crate::testing::{Parts, parts_without_database};

    const LONG: Duration = Duration::from_secs(8);

    async fn start() -> (SocketAddr, CancellationToken, JoinHandle<Result<(), ApiError>>) {
        start_with(|_| {}).await
    }

    async fn start_with(
        change: impl FnOnce(&mut ApiConfig),
    ) -> (SocketAddr, CancellationToken, JoinHandle<Result<(), ApiError>>) {
        let Parts { journal, mut config, metrics, registry } = parts_without_database();
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let served = tokio::spawn(serve(listener, journal, config, metrics, registry, shutdown.clone()));
        (address, shutdown, served)
    }

    /// Sends a whole request and reads its answer, so that the connection is known to be served.
    async fn connect(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
        stream
    }

    /// Sends a request to the shop from another address of this machine; its whole answer.
    async fn ask_from(source: &str, address: SocketAddr) -> String {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        stream.write_all(b"GET /v1/orders HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn a_request_counts_for_the_address_at_the_other_end_of_its_connection() {
        let (address, shutdown, served) = start_with(|config| {
            config.rate_limits.by_address = Rate::new(1, Duration::from_secs(3_600));
            config.rate_limits.unlimited = Networks::default();
        })
        .await;
        for (source, status) in [("127.0.0.2", 401), ("127.0.0.2", 429), ("127.0.0.3", 401)] {
            let answer = ask_from(source, address).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{source}: {answer}");
        }
        shutdown.cancel();
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_after_the_stop() {
        let (address, shutdown, served) = start().await;
        let mut stream = connect(address).await;
        let head = "POST /v1/users HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server says so when the route has begun to read the body.
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).await.unwrap();
        assert!(go_on.starts_with(b"HTTP/1.1 100 Continue"));
        shutdown.cancel();
        stream.write_all(b"!").await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("INVALID_JSON"), "{answer}");
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn half_a_head_and_an_idle_connection_do_not_hold_the_stop_up() {
        let (address, shutdown, served) = start().await;
        let _idle = connect(address).await;
        let mut half = connect(address).await;
        half.write_all(b"GET /healthz HTTP/1.1\r\nhos").await.unwrap();
        let started = Instant::now();
        shutdown.cancel();
        tokio::time::timeout(LONG, served).await.unwrap().unwrap().unwrap();
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_loses_its_connection() {
        let (address, shutdown, served) =
            start_with(|config| config.write_timeout = Duration::from_millis(100)).await;
        let mut stream = connect(address).await;
        let requests = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(64);
        // The server reads no more requests while nobody reads its answers, so at last this waits for the server.
        let cut_off = async { while stream.write_all(&requests).await.is_ok() {} };
        tokio::time::timeout(LONG * 4, cut_off).await.unwrap();
        shutdown.cancel();
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn figures_are_told_to_this_machine_but_not_to_whom_a_proxy_on_it_asks_for() {
        let (address, shutdown, served) = start().await;
        for (header, status) in [("", 200), ("x-forwarded-for: 203.0.113.7\r\n", 401)] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request =
                format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\n{header}connection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
        shutdown.cancel();
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn no_front_starts_without_a_secret_for_callbacks() {
        let Parts { journal, mut config, metrics, registry } = parts_without_database();
        config.callback_secret = String::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let served = serve(listener, journal, config, metrics, registry, CancellationToken::new()).await;
        assert!(matches!(served, Err(ApiError::NoCallbackSecret)));
    }
}
