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
//! - `requests`, `routes`, `problem`, `server`, `tls`: HTTP.

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
mod tls;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use crate::signature::{SIGNATURE_HEADER, sign};

use crate::app::App;
use crate::callbacks::{CallbackTarget, Callbacks, FIRST_PAUSE};
use crate::ledger::Ledger;

/// The mock payment gateway of Ordermill.
///
/// Once it listens it prints one line, `listening on http://ADDRESS`, or with `https`; its log goes to stderr.
#[derive(Parser)]
#[command(version)]
pub struct Args {
    /// The address to listen on; with port 0 the system chooses one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// The ledger file, which is created if need be and survives restarts
    #[arg(long)]
    ledger: PathBuf,

    /// The gateway's certificate, PEM, with those of the CAs between; with one it answers by https alone
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,

    /// The key of the certificate, PEM; it may be in the same file
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,

    /// Where decided charges are announced, a plain http URL; without it nothing is announced
    #[arg(long, value_name = "URL")]
    callback_url: Option<String>,

    /// The secret that callbacks are signed with
    #[arg(long, value_name = "SECRET", env = "ORDERMILL_CALLBACK_SECRET", hide_env_values = true)]
    callback_secret: Option<String>,

    /// Whether callbacks are sent, if there is a URL
    #[arg(long, value_enum, default_value = "on")]
    callbacks: Switch,

    /// Sync every group of entries to the disk before answering, so that even a power cut loses none
    #[arg(long)]
    fsync: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Serves until SIGTERM or SIGINT, then lets requests under way finish within a few seconds. When this
/// returns, the ledger is written, closed and unlocked.
///
/// # Errors
/// If the address, the certificate or the ledger can't be used, callbacks can't be sent, or the ledger can't be written any
/// more: the gateway answers nothing that its ledger doesn't hold. The texts say what to do.
pub async fn run(args: Args) -> Result<()> {
    let stop = stop_on_signals().context("cannot listen for signals")?;
    // However this ends, it takes connections and callbacks with it.
    let _stop_at_the_end = stop.clone().drop_guard();

    let url = args.callback_url.filter(|_| args.callbacks == Switch::On);
    let secret = args.callback_secret.unwrap_or_default();
    let target = url.map(|url| CallbackTarget::new(&url, &secret)).transpose()?;
    let tls = args.tls_certificate.zip(args.tls_key);
    let tls = tls.map(|(certificate, key)| tls::acceptor(&certificate, &key)).transpose()?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| {
        format!("cannot listen on {}; choose another with --listen, port 0 for a free one", args.listen)
    })?;
    let (ledger, mut writer_end) = Ledger::open(&args.ledger, args.fsync)?;
    announce(if tls.is_some() { "https" } else { "http" }, listener.local_addr()?)?;

    let start = |target| Callbacks::start(target, FIRST_PAUSE, stop.clone());
    let callbacks = target.map(start).transpose().context("cannot build the client for callbacks")?;
    let app = Arc::new(App::new(ledger, callbacks));
    let written = tokio::select! {
        () = server::run(listener, tls, routes::router(app.clone()), stop.clone()) => {
            app.ledger.close();
            writer_end.await
        }
        ended = &mut writer_end => ended,
    };
    let written = written.unwrap_or_else(|_| Err(io::Error::other("its writer has panicked")));
    written.context("cannot write the ledger any more; make room for it and start again")
}

/// Whoever started the gateway reads its address from this line.
fn announce(scheme: &str, address: SocketAddr) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on {scheme}://{address}")?;
    stdout.flush()
}

/// Cancelled by SIGTERM and SIGINT.
fn stop_on_signals() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopping.cancel();
    });
    Ok(stop)
}
