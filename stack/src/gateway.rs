//! The mock payment gateway as a child process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::Progress;
use crate::child::{Child, Program};
use crate::claim::Claim;
use crate::error::{Result, StackError};
use crate::slot::Slot;
use crate::{ports, progress};

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
}

/// A running gateway. Dropping it stops it. Its ledger survives.
#[derive(Debug)]
pub struct Gateway {
    // The order of the fields is that of their dropping: the gateway ends before the claim on its ledger does.
    server: Slot,
    program: PathBuf,
    dir: PathBuf,
    port: u16,
    options: GatewayOptions,
    claim: Claim,
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
        progress: &dyn Progress,
    ) -> Result<Gateway> {
        let claim = Claim::take(dir, "gateway")?;
        let port = ports::choose("the gateway", options.port, claim.last_ports().first().copied())?;
        let gateway = Gateway {
            server: Slot::default(),
            program: program.to_owned(),
            dir: dir.canonicalize().map_err(StackError::io("find", dir))?,
            port,
            options,
            claim,
        };
        progress::during(progress, "starting the gateway", || gateway.launch(&mut gateway.server.lock()))?;
        Ok(gateway)
    }

    /// Its address, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id, while it is started.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("gateway.log")
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        self.server.is_alive()
    }

    /// Stops it in order, and kills it if that takes too long. Nothing if it does not run.
    pub fn stop(&self) {
        self.server.stop(SHUTDOWN);
    }

    /// Kills it.
    pub fn kill9(&self) {
        self.server.kill9();
    }

    /// Freezes it, until [`Gateway::resume`].
    pub fn pause(&self) {
        self.server.signal(Signal::SIGSTOP);
    }

    /// Undoes [`Gateway::pause`].
    pub fn resume(&self) {
        self.server.signal(Signal::SIGCONT);
    }

    /// Starts it again on the same port and ledger, after stopping it if it still runs; returns when it listens.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn restart(&self) -> Result<()> {
        self.stop();
        if !ports::is_free(self.port) {
            return Err(StackError::PortInUse { what: "the gateway", port: self.port });
        }
        self.launch(&mut self.server.lock())
    }

    fn launch(&self, server: &mut Option<Child>) -> Result<()> {
        let mut program = Program::new("the gateway", &self.program, self.log())
            .env("ORDERMILL_CALLBACK_SECRET", &self.options.callback_secret)
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--ledger")
            .arg(self.dir.join("gateway-ledger.jsonl"));
        if let Some(url) = &self.options.callback_url {
            program = program.arg("--callback-url").arg(url);
        }
        let child = program.start()?;
        self.claim.note(child.pid(), &[self.port])?;
        child.wait_for_line("listening on ", READY)?;
        *server = Some(child);
        Ok(())
    }
}
