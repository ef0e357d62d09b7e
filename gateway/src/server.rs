//! The accept loop. `axum::serve` can't leave a request without an answer; a loop of our own can.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::app::Unanswered;

/// How long an unanswered request keeps its connection, if its client doesn't give up earlier.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// How long requests may take to finish after the stop. It also bounds clients that have sent half
/// a request: there is no timeout on reading one.
const GRACE: Duration = Duration::from_secs(3);
/// The pause after a failed accept, which mostly means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Ends a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the request is left without an answer")]
struct NoAnswer;

/// Serves until `stop`, then lets the requests under way finish, but for those that are not to be
/// answered: they end at once.
pub(crate) async fn run(listener: TcpListener, router: Router, stop: CancellationToken) {
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve_connection(stream, router.clone(), stop.clone()));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "cutting off what has not finished");
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn serve_connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
    let service = service_fn(|request| answer(request, router.clone(), &stop));
    let connection =
        http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(
    request: Request<Incoming>,
    router: Router,
    stop: &CancellationToken,
) -> Result<Response, NoAnswer> {
    let Ok(response) = router.oneshot(request.map(Body::new)).await;
    if response.extensions().get::<Unanswered>().is_none() {
        return Ok(response);
    }
    // If the client goes, hyper drops this future.
    stop.run_until_cancelled(tokio::time::sleep(SILENCE_MAX)).await;
    Err(NoAnswer)
}
