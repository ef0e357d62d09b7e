//! Directories for tests and measurements, which go when their process goes.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use uuid::Uuid;

use crate::error::{Result, StackError};
use crate::spawner;

const PREFIX: &str = "ordermill-test-";

/// A directory for one test or one test process. It is removed when the value is dropped, or by a shell that outlives
/// this process, or, if that is killed too, by the next process that makes one.
///
/// Other users may pass through it, so that PostgreSQL can run below it when the tests run as root.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Beside the directory and locked as long as we live: that is how others see that it is in use.
    _lock: File,
    _last_will: LastWill,
}

impl Scratch {
    /// Makes one in the system's directory for temporary files.
    ///
    /// # Errors
    /// If that can't be written to.
    pub fn new() -> Result<Scratch> {
        remove_leftovers();
        let name = format!("{PREFIX}{}-{}", std::process::id(), &Uuid::new_v4().simple().to_string()[..8]);
        let path = std::env::temp_dir().join(name);
        let lock_path = lock_path(&path);
        let lock = File::create(&lock_path).map_err(StackError::io("create", &lock_path))?;
        lock.lock().map_err(StackError::io("lock", &lock_path))?;
        fs::create_dir(&path).map_err(StackError::io("create", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))
            .map_err(StackError::io("open up", &path))?;
        // Servers that die with us may still write for a moment.
        let script =
            r#"for i in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" && rm -f "$2" && exit; sleep 0.5; done"#;
        let last_will = LastWill::new(script, &[&path.to_string_lossy(), &lock_path.to_string_lossy()])?;
        Ok(Scratch { path, _lock: lock, _last_will: last_will })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn lock_path(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// Removes the directories of processes that are gone.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let path = entry.path();
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let in_use = File::open(lock_path(&path)).is_ok_and(|lock| lock.try_lock().is_err());
        if !in_use {
            remove(&path);
        }
    }
}

/// What can't be removed now is left for the next process.
fn remove(path: &Path) {
    // Where PostgreSQL's user could not pass, the cluster lies elsewhere.
    if let Ok(cluster) = fs::read_link(path.join("postgres")) {
        let _ = fs::remove_dir_all(cluster);
    }
    if fs::remove_dir_all(path).is_ok() {
        let _ = fs::remove_file(lock_path(path));
    }
}

/// A shell script that runs when this process has ended, however it ended, or when the value is dropped.
#[derive(Debug)]
pub(crate) struct LastWill {
    /// It reads from its standard input until we or the kernel close that.
    _shell: Child,
}

impl LastWill {
    /// The script finds `args` as its `$1`, `$2` and so on. Variables of our environment are there.
    pub(crate) fn new(script: &str, args: &[&str]) -> Result<LastWill> {
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!("read line; {script}"))
            .arg("ordermill-last-will")
            .args(args)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C must not reach it.
            .process_group(0);
        let shell = spawner::spawn(command).map_err(StackError::io("start", Path::new("/bin/sh")))?;
        Ok(LastWill { _shell: shell })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::time::Duration;

    #[test]
    fn a_scratch_directory_goes_with_its_value() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "text").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_in_use_is_left_alone_and_a_forsaken_one_is_removed() {
        let in_use = Scratch::new().unwrap();
        let forsaken = std::env::temp_dir().join(format!("{PREFIX}0-{}", Uuid::new_v4().simple()));
        fs::create_dir(&forsaken).unwrap();
        let _next = Scratch::new().unwrap();
        assert!(in_use.path().exists());
        assert!(!forsaken.exists());
    }

    #[test]
    fn a_last_will_is_carried_out_when_its_value_is_dropped() {
        let scratch = Scratch::new().unwrap();
        let sign = scratch.path().join("sign");
        let will = LastWill::new(r#"echo done > "$1""#, &[&sign.to_string_lossy()]).unwrap();
        assert!(!sign.exists());
        drop(will);
        wait::until(Duration::from_secs(10), || sign.exists().then_some(())).unwrap();
    }
}
