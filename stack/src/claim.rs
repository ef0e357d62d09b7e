//! Who holds a part of the data directory, and what that one left behind.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Result, StackError};
use crate::files::{close, make_data_dir};
use crate::processes::Identity;
use crate::wait;

/// A child whose parent was killed gets its death signal at once; this long it may take to end.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(10);

/// How long a claim that is held is asked for again.
const HANDOVER: Duration = Duration::from_millis(500);

/// The right to run one part of the stack in a data directory, for as long as the value lives.
///
/// It is a locked file, `<dir>/<name>.run`, which the kernel unlocks when its holder ends. It also notes the child that
/// runs there and its ports, for whoever comes next.
#[derive(Debug)]
pub(crate) struct Claim {
    file: Mutex<File>,
    path: PathBuf,
    ports: Vec<u16>,
}

impl Claim {
    /// Claims `dir` for the part called `name`, and sees off a child of a former holder that was killed.
    pub(crate) fn take(dir: &Path, name: &str) -> Result<Claim> {
        make_data_dir(dir)?;
        let path = dir.join(format!("{name}.run"));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StackError::io("open", &path))?;
        close(&path)?;
        let lock = lock(&file);
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(StackError::io("read", &path))?;
        let noted = Noted::parse(&text);
        lock.map_err(|error| match error {
            TryLockError::WouldBlock => {
                let (dir, owner) = (dir.display(), noted.owner.map(|pid| pid.to_string()));
                let owner = owner.as_deref().unwrap_or("unknown");
                StackError::Other(format!(
                    "{dir} is in use by process {owner}: stop that one, or choose another data directory"
                ))
            }
            TryLockError::Error(error) => StackError::io("lock", &path)(error),
        })?;
        if let Some(orphan) = noted.child {
            orphan.see_off(ORPHAN_PATIENCE);
        }
        let claim = Claim { file: Mutex::new(file), path, ports: noted.ports };
        claim.write(&Noted { ports: claim.ports.clone(), ..Noted::ours() })?;
        Ok(claim)
    }

    /// The ports of the last run.
    pub(crate) fn last_ports(&self) -> &[u16] {
        &self.ports
    }

    /// Notes the child and its ports.
    pub(crate) fn note(&self, child: u32, ports: &[u16]) -> Result<()> {
        self.write(&Noted { child: Identity::of(child), ports: ports.to_vec(), ..Noted::ours() })
    }

    fn write(&self, noted: &Noted) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(noted.to_string().as_bytes()))
            .map_err(StackError::io("write", &self.path))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Closing is not enough: a child that is being started on another thread has a copy of the descriptor until it
        // becomes its program, and would hold the lock that long.
        let _ = self.file.get_mut().unwrap_or_else(PoisonError::into_inner).unlock();
    }
}

/// Locks the file. A former holder that was killed while it started a child may take a moment to let go.
fn lock(file: &File) -> Result<(), TryLockError> {
    let attempt = || match file.try_lock() {
        Err(TryLockError::WouldBlock) => None,
        result => Some(result),
    };
    wait::until(HANDOVER, attempt).unwrap_or(Err(TryLockError::WouldBlock))
}

/// What the file says, a line each: `owner PID`, `child PID START`, `ports N...`.
#[derive(Debug, Default, PartialEq)]
struct Noted {
    owner: Option<u32>,
    child: Option<Identity>,
    ports: Vec<u16>,
}

impl Noted {
    fn ours() -> Noted {
        Noted { owner: Some(std::process::id()), ..Noted::default() }
    }

    /// Reads what it can: a file cut short by a crash only means that less is known.
    fn parse(text: &str) -> Noted {
        let words = |name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().split_ascii_whitespace()
        };
        let mut child = words("child ");
        let child = child.next().zip(child.next()).and_then(|(pid, started_at)| {
            Some(Identity { pid: pid.parse().ok()?, started_at: started_at.parse().ok()? })
        });
        let owner = words("owner ").next().and_then(|pid| pid.parse().ok());
        Noted { owner, child, ports: words("ports ").filter_map(|port| port.parse().ok()).collect() }
    }
}

impl std::fmt::Display for Noted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let owner = self.owner.map(|pid| pid.to_string()).unwrap_or_default();
        let child = self.child.map(|Identity { pid, started_at }| format!("{pid} {started_at}"));
        let ports: String = self.ports.iter().map(|port| format!("{port} ")).collect();
        writeln!(f, "owner {owner}\nchild {}\nports {ports}", child.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_claimed_once_and_the_second_is_told_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let first = Claim::take(dir.path(), "postgres").unwrap();
        let error = Claim::take(dir.path(), "postgres").unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(first);
        Claim::take(dir.path(), "postgres").unwrap();
    }

    #[test]
    fn ports_are_remembered_for_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let claim = Claim::take(dir.path(), "kafka").unwrap();
        claim.note(std::process::id(), &[9092, 9093]).unwrap();
        // So that the claim below does not take this process for an orphan.
        claim.write(&Noted { ports: vec![9092, 9093], ..Noted::ours() }).unwrap();
        drop(claim);
        assert_eq!(Claim::take(dir.path(), "kafka").unwrap().last_ports(), [9092, 9093]);
    }

    #[test]
    fn a_child_of_the_former_holder_that_is_still_ending_is_awaited() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("0.5").spawn().unwrap();
        let claim = Claim::take(dir.path(), "kafka").unwrap();
        claim.note(child.id(), &[]).unwrap();
        drop(claim);
        Claim::take(dir.path(), "kafka").unwrap();
        assert_eq!(Identity::of(child.id()), None);
        assert!(child.wait().unwrap().success(), "it was left to end by itself");
    }

    #[test]
    fn notes_survive_being_written_and_read_and_a_torn_file_is_no_error() {
        let noted =
            Noted { owner: Some(7), child: Some(Identity { pid: 8, started_at: 99 }), ports: vec![1, 2] };
        assert_eq!(Noted::parse(&noted.to_string()), noted);
        assert_eq!(Noted::parse("owner 7\nchild 8").owner, Some(7));
    }
}
