//! The server, which can also leave a request without an answer.

use std::fmt::Debug;
use std::panic::resume_unwind;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::serve::{Listener, ListenerExt as _};
use tls_listener::TlsListener;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::app::Unanswered;

/// How long an unanswered request keeps its connection, if its client doesn't give up earlier.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// How long requests may take to finish after the stop. It also bounds clients that have sent half
/// a request: there is no timeout on reading one.
const GRACE: Duration = Duration::from_secs(3);

/// Serves until `stop`, over TLS where there is what makes it; then lets the requests under way finish, but for those that are
/// not to be answered: they end at once.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
) {
    match tls {
        None => serve(listener.tap_io(|stream| no_delay(stream)), router, stop).await,
        Some(tls) => {
            let listener = TlsListener::new(tls, listener);
            serve(listener.tap_io(|stream| no_delay(stream.get_ref().0)), router, stop).await;
        }
    }
}

fn no_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
}

async fn serve<L>(listener: L, router: Router, stop: CancellationToken)
where
    L: Listener,
    L::Addr: Debug,
{
    let router = router.layer(from_fn_with_state(stop.clone(), keep_silent));
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let grace = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        // It never fails.
        _ = serving.into_future() => {}
        () = grace => tracing::warn!("cutting off what has not finished"),
    }
}

/// In place of an answer that is not to be sent, waits, and then ends the connection.
async fn keep_silent(State(stop): State<CancellationToken>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.extensions().get::<Unanswered>().is_none() {
        return response;
    }
    // If the client goes, hyper drops this future.
    stop.run_until_cancelled(tokio::time::sleep(SILENCE_MAX)).await;
    // axum's server sends whatever a service returns. So the connection's task is unwound, which closes the
    // connection and touches nothing else; no panic hook is called.
    resume_unwind(Box::new(Unanswered))
}
