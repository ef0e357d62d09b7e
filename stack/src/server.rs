//! A server as a child process that may be stopped and started again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::child::{Child, Program};
use crate::claim::Claim;
use crate::error::{Result, StackError};
use crate::ports;

/// A server: its process, or none while it is stopped, and what stays the same.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    // The order of the fields is that of their dropping: the process ends before the claim on its data does.
    child: Mutex<Option<Child>>,
    log: PathBuf,
    ports: Vec<u16>,
    shutdown: Duration,
    claim: Claim,
}

impl Server {
    /// One that is not started yet. The first of `ports` is the one for clients; `shutdown` is how long it may take to
    /// stop in order.
    pub(crate) fn new(
        name: &'static str,
        log: PathBuf,
        ports: Vec<u16>,
        shutdown: Duration,
        claim: Claim,
    ) -> Server {
        Server { name, child: Mutex::default(), log, ports, shutdown, claim }
    }

    /// What it is called in messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.ports[0]
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process id, while it is started.
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::pid)
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        self.lock().as_ref().is_some_and(Child::is_alive)
    }

    /// Stops it in order, and kills it if that takes too long: its data stands both. Nothing if it does not run.
    pub fn stop(&self) {
        if let Some(child) = self.lock().take()
            && child.stop(Signal::SIGTERM, self.shutdown).is_err()
        {
            child.kill9();
        }
    }

    /// Kills it.
    pub fn kill9(&self) {
        if let Some(child) = self.lock().take() {
            child.kill9();
        }
    }

    /// Freezes it, until [`Server::resume`].
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Undoes [`Server::pause`].
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = self.lock().as_ref() {
            child.signal(signal);
        }
    }

    /// Its process; nobody else starts or stops it meanwhile.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can be started on its ports again.
    pub(crate) fn check_ports(&self) -> Result<()> {
        match self.ports.iter().find(|port| !ports::is_free(**port)) {
            Some(&port) => Err(StackError::PortInUse { what: self.name.to_owned(), port }),
            None => Ok(()),
        }
    }

    /// Starts it, and notes it for whoever comes after us.
    pub(crate) fn launch(
        &self,
        mut program: Program,
        wait_until_ready: impl FnOnce(&Child) -> Result<()>,
    ) -> Result<()> {
        let mut place = self.lock();
        program.port = Some(self.port());
        let child = program.start()?;
        self.claim.note(child.pid(), &self.ports)?;
        wait_until_ready(&child)?;
        *place = Some(child);
        Ok(())
    }
}
