//! The mock payment gateway as a child process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use derive_more::Deref;

use crate::Progress;
use crate::certificates::ServerTls;
use crate::child::Program;
use crate::claim::Claim;
use crate::error::{Result, StackError};
use crate::files::close;
use crate::ports;
use crate::server::Server;

const NAME: &str = "the gateway";

/// Its file in the data directory.
const LEDGER: &str = "gateway-ledger.jsonl";

const READY: Duration = Duration::from_secs(30);
const SHUTDOWN: Duration = Duration::from_secs(10);

/// How to start [`Gateway`].
#[derive(Debug, Clone, Default)]
pub struct GatewayOptions {
    /// The port on 127.0.0.1; by default that of the last run, else any free one.
    pub port: Option<u16>,
    /// Where it reports outcomes; by default nowhere.
    pub callback_url: Option<String>,
    /// What it signs its reports with.
    pub callback_secret: String,
    /// With what it answers by https alone; by default it answers by http.
    pub tls: Option<ServerTls>,
}

/// A running gateway. Dropping it stops it. Its ledger survives.
#[derive(Debug, Deref)]
pub struct Gateway {
    #[deref]
    server: Server,
    program: PathBuf,
    dir: PathBuf,
    options: GatewayOptions,
}

impl Gateway {
    /// Starts `program`, the binary `ordermill-gateway` (see [`crate::sibling_program`]), on the ledger in `dir`;
    /// returns when it listens.
    ///
    /// # Errors
    /// If its port or its ledger is in use, or it does not become ready.
    pub fn start(
        program: &Path,
        dir: &Path,
        options: GatewayOptions,
        progress: &Progress,
    ) -> Result<Gateway> {
        let claim = Claim::take(dir, "gateway")?;
        let port = ports::choose(NAME, options.port, claim.last_ports().first().copied())?;
        let dir = dir.canonicalize().map_err(StackError::io("find", dir))?;
        close(&dir.join(LEDGER))?;
        let server = Server::new(NAME, dir.join("gateway.log"), vec![port], SHUTDOWN, claim);
        let gateway = Gateway { server, program: program.to_owned(), dir, options };
        progress.begin("starting the gateway").end(gateway.launch())?;
        Ok(gateway)
    }

    /// Its address, `http://127.0.0.1:PORT`, or with `https`.
    pub fn url(&self) -> String {
        let scheme = if self.options.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port())
    }

    /// Starts it again on the same port and ledger, after stopping it if it still runs; returns when it listens.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn restart(&self) -> Result<()> {
        self.stop();
        self.check_ports()?;
        self.launch()
    }

    fn launch(&self) -> Result<()> {
        let program = Program::new(NAME, &self.program, self.log())
            .private()
            .env("ORDERMILL_CALLBACK_SECRET", &self.options.callback_secret)
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port()))
            .arg("--ledger")
            .arg(self.dir.join(LEDGER))
            .args(self.options.callback_url.iter().flat_map(|url| ["--callback-url", url]));
        let program = match &self.options.tls {
            Some(ServerTls { certificate, .. }) => {
                program.arg("--tls-certificate").arg(certificate).arg("--tls-key").arg(certificate)
            }
            None => program,
        };
        self.server.launch(program, |child| child.wait_for_line("listening on ", READY).map(drop))
    }
}
