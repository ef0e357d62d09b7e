//! The mock payment gateway of Ordermill: a small HTTP program that takes, gives back and voids
//! charges, remembers them across restarts, and misbehaves on request.
//!
//! It knows nothing of orders. The order pipeline meets it over HTTP only, as it would meet a real
//! one; the routes are described in the project's API documentation.
//!
//! - `book`: the rules, pure: what a request does to the charges there are.
//! - `journal`, `ledger`: the file that outlives the process, and the book kept in step with it.
//! - `behaviour`, `app`: the faults, and how a request meets them.
//! - `callbacks`, `signature`: telling the shop.
//! - `requests`, `routes`, `problem`, `server`: HTTP.

mod app;
mod behaviour;
mod book;
mod callbacks;
mod journal;
mod ledger;
mod problem;
mod requests;
mod routes;
mod server;
mod signature;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use crate::callbacks::{CallbackError, CallbackTarget};
pub use crate::journal::OpenError;
pub use crate::signature::{SIGNATURE_HEADER, sign};

use crate::app::App;
use crate::callbacks::{Callbacks, FIRST_PAUSE};
use crate::journal::WriterEnd;
use crate::ledger::Ledger;

/// How a gateway is set up.
pub struct Config {
    /// The ledger file; created if it isn't there, its directory is not.
    pub ledger: PathBuf,
    /// Has every group of entries synced to the disk before it is answered. Without it the ledger
    /// survives a killed process, but not a power cut.
    pub fsync: bool,
    /// Where callbacks go; `None` sends none.
    pub callbacks: Option<CallbackTarget>,
}

/// Why a gateway doesn't start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger file can't be used.
    #[error(transparent)]
    Ledger(#[from] OpenError),
    /// Callbacks can't be sent.
    #[error(transparent)]
    Callbacks(#[from] CallbackError),
    /// The ledger could not be written, so the gateway has stopped: it answers nothing that its
    /// ledger doesn't hold.
    #[error("cannot write the ledger any more; make room for it and start again")]
    Write(#[source] io::Error),
}

/// A gateway whose ledger is open.
pub struct Gateway {
    ledger: Ledger,
    writer_end: WriterEnd,
    callbacks: Option<CallbackTarget>,
}

impl Gateway {
    /// Opens the ledger, locks it against other gateways and reads it. This blocks.
    ///
    /// # Errors
    /// If the ledger file can't be used; see [`OpenError`].
    pub fn open(config: Config) -> Result<Self, Error> {
        let (ledger, writer_end) = Ledger::open(&config.ledger, config.fsync)?;
        Ok(Self { ledger, writer_end, callbacks: config.callbacks })
    }

    /// Serves until `stop` is cancelled, then lets requests under way finish within a few seconds.
    /// When this returns, the ledger is written, closed and unlocked.
    ///
    /// # Errors
    /// If the ledger can't be written any more.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<(), Error> {
        // However this ends, it takes connections and callbacks with it.
        let stop = stop.child_token();
        let _stop_at_the_end = stop.clone().drop_guard();

        let start = |target| Callbacks::start(target, FIRST_PAUSE, stop.clone());
        let callbacks = self.callbacks.map(start).transpose()?;
        let app = Arc::new(App::new(self.ledger, callbacks));
        let mut writer_end = self.writer_end;
        tokio::select! {
            () = server::run(listener, routes::router(app.clone()), stop.clone()) => {
                app.ledger.close();
                written(writer_end.await)
            }
            ended = &mut writer_end => written(ended),
        }
    }
}

fn written(ended: Result<io::Result<()>, oneshot::error::RecvError>) -> Result<(), Error> {
    match ended {
        Ok(result) => result.map_err(Error::Write),
        Err(_) => Err(Error::Write(io::Error::other("its writer has panicked"))),
    }
}
