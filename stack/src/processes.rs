//! Other processes, as `/proc` shows them.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::{Process, all_processes};

use crate::wait;

/// A process that can be told from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// In clock ticks since the machine started.
    pub(crate) started_at: u64,
}

impl Identity {
    /// The live process with that id. A zombie does not count.
    pub(crate) fn of(pid: u32) -> Option<Identity> {
        let stat = process(pid)?.stat().ok()?;
        (stat.state != 'Z').then_some(Identity { pid, started_at: stat.starttime })
    }

    pub(crate) fn is_alive(self) -> bool {
        Identity::of(self.pid) == Some(self)
    }

    /// Waits for the process to end by itself, then ends it.
    pub(crate) fn see_off(self, patience: Duration) {
        if wait::until(patience, || (!self.is_alive()).then_some(())).is_none() {
            self.signal(Signal::SIGKILL);
            wait::until(Duration::from_secs(10), || (!self.is_alive()).then_some(()));
        }
    }

    pub(crate) fn signal(self, signal: Signal) {
        if self.is_alive() {
            // It may end between the look and the signal; then there is nothing to do.
            let _ = kill(pid(self.pid), signal);
        }
    }
}

/// The id in the form that system calls take.
pub(crate) fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap_or(i32::MAX))
}

fn process(id: u32) -> Option<Process> {
    Process::new(pid(id).as_raw()).ok()
}

/// How long threads may take to stand still.
const STILL_WITHIN: Duration = Duration::from_secs(10);

/// Waits until no thread of a process runs any more, after it was told to stop.
pub(crate) fn wait_until_still(id: u32) {
    let is_still = || {
        // Where there is none, it has ended.
        let threads = process(id).and_then(|process| process.tasks().ok()).into_iter().flatten().flatten();
        threads.filter_map(|thread| thread.stat().ok()).all(|stat| "TtZX".contains(stat.state))
    };
    let _ = wait::until(STILL_WITHIN, || is_still().then_some(()));
}

/// The live processes whose working directory is `dir`: a PostgreSQL server with all its backends, which are process
/// groups of their own.
pub(crate) fn working_in(dir: &Path) -> Vec<Identity> {
    let works_here = |process: &Process| process.cwd().is_ok_and(|cwd| cwd == dir);
    let processes = all_processes().into_iter().flatten().flatten().filter(works_here);
    processes.filter_map(|process| Identity::of(process.pid.unsigned_abs())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_another_start_time_is_another_process() {
        let us = Identity::of(std::process::id()).unwrap();
        assert!(us.is_alive());
        assert!(!Identity { started_at: us.started_at + 1, ..us }.is_alive());
    }

    #[test]
    fn this_process_works_in_its_working_directory() {
        let us = Identity::of(std::process::id()).unwrap();
        assert!(working_in(&std::env::current_dir().unwrap()).contains(&us));
    }
}
