//! The command `ordermill-gateway`.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use ordermill_gateway::{CallbackTarget, Config, Gateway};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The mock payment gateway of Ordermill.
///
/// Once it listens it prints one line, `listening on http://ADDRESS`; its log goes to stderr.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The address to listen on; with port 0 the system chooses one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// The ledger file, which is created if need be and survives restarts
    #[arg(long)]
    ledger: PathBuf,

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

impl Args {
    fn config(self) -> anyhow::Result<Config> {
        let url = self.callback_url.filter(|_| self.callbacks == Switch::On);
        let secret = self.callback_secret.unwrap_or_default();
        let target = |url: String| CallbackTarget::new(&url, &secret);
        Ok(Config { ledger: self.ledger, fsync: self.fsync, callbacks: url.map(target).transpose()? })
    }
}

// One thread answers all requests: it is enough for tens of thousands a second, and the gateway
// mostly shares a small machine with the pipeline that it serves.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "ordermill-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let stop = stop_on_signals().context("cannot listen for signals")?;
    let address = args.listen;
    let config = args.config()?;
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another with --listen, port 0 for a free one")
    })?;
    let gateway = Gateway::open(config)?;
    announce(listener.local_addr()?)?;
    gateway.serve(listener, stop).await?;
    Ok(())
}

/// Whoever started the gateway reads its address from this line.
fn announce(address: SocketAddr) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on http://{address}")?;
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
