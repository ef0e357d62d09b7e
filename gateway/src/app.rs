//! What the routes share, and the faults that stand before them.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::behaviour::{Behaviour, Fate, Forestalled};
use crate::callbacks::Callbacks;
use crate::ledger::Ledger;
use crate::problem::Problem;

/// Everything a request can reach.
pub(crate) struct App {
    pub(crate) ledger: Ledger,
    behaviour: Mutex<Behaviour>,
    pub(crate) callbacks: Option<Callbacks>,
}

/// Marks a response that the server must not send: it keeps the client waiting in vain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unanswered;

impl App {
    pub(crate) fn new(ledger: Ledger, callbacks: Option<Callbacks>) -> Self {
        Self { ledger, behaviour: Mutex::default(), callbacks }
    }

    pub(crate) fn behaviour(&self) -> Behaviour {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_behaviour(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// Answers a request that changes the ledger, under the faults that are on.
    ///
    /// The work is a task of its own, so it is done even if the client goes away meanwhile. A real
    /// gateway does so too, and it is what makes the hard case possible: a charge that takes effect
    /// after the shop has given up on it.
    pub(crate) async fn under_faults<A, F>(
        self: Arc<Self>,
        act: impl FnOnce(Arc<Self>, Fate) -> F + Send + 'static,
    ) -> Response
    where
        A: Serialize,
        F: Future<Output = Result<A, Problem>> + Send,
    {
        let fate = self.behaviour().draw(&mut rand::rng());
        let work = async move {
            if let Some(delay) = fate.delay {
                tokio::time::sleep(delay).await;
            }
            match fate.forestalled {
                Some(Forestalled::Silence) => return unanswered(),
                Some(Forestalled::Error) => return Problem::injected().into_response(),
                None => {}
            }
            let answer = act(self, fate).await;
            if fate.is_answered { answer.map(Json).into_response() } else { unanswered() }
        };
        tokio::spawn(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "bug: a request ended in a panic");
            Problem::internal().into_response()
        })
    }
}

fn unanswered() -> Response {
    let mut response = Response::default();
    response.extensions_mut().insert(Unanswered);
    response
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_request_once_begun_takes_effect_although_its_client_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _writer_end) = Ledger::open(&dir.path().join("ledger"), false).unwrap();
        let app = Arc::new(App::new(ledger, None));
        let (done, is_done) = oneshot::channel();
        let act = async move |_, _| {
            done.send(()).unwrap();
            Ok(())
        };
        tokio::select! {
            biased;
            // Polled once, and dropped as the server does when the client goes.
            _ = app.under_faults(act) => panic!("it ended before its task could run"),
            () = std::future::ready(()) => {}
        }
        is_done.await.unwrap();
    }
}
