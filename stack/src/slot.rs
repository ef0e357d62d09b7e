//! The place of a child process that may be stopped and started again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::child::Child;

/// A child process, or none while it is stopped.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<Option<Child>>);

impl Slot {
    /// What is in it; nobody else starts or stops it meanwhile.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::pid)
    }

    /// Whether there is one that runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.lock().as_ref().is_some_and(Child::is_alive)
    }

    /// Stops it in order, and kills it if that takes too long. Nothing if there is none.
    pub(crate) fn stop(&self, deadline: Duration) {
        if let Some(child) = self.lock().take()
            && child.stop(Signal::SIGTERM, deadline).is_err()
        {
            child.kill9();
        }
    }

    /// Kills it.
    pub(crate) fn kill9(&self) {
        if let Some(child) = self.lock().take() {
            child.kill9();
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(child) = self.lock().as_ref() {
            child.signal(signal);
        }
    }
}
