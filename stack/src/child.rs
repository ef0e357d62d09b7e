//! One program as a child process that can't outlive us.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Uid};

use crate::error::{Result, StackError};
use crate::{processes, programs, spawner, wait};

/// How to start a child: a command line, where its output goes, and how it ends with us.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    path: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    cleared_prefixes: Vec<&'static str>,
    directory: Option<PathBuf>,
    log: PathBuf,
    user: Option<(Uid, Gid)>,
    death_signal: Signal,
    is_private: bool,
    /// Where it listens, which may be in use.
    pub(crate) port: Option<u16>,
    is_telling: fn(&str) -> bool,
}

impl Program {
    /// A program to be called `name` in messages, its output appended to `log`.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Program {
            name: name.into(),
            path: path.into(),
            args: Vec::new(),
            envs: Vec::new(),
            cleared_prefixes: Vec::new(),
            directory: None,
            log: log.into(),
            user: None,
            death_signal: Signal::SIGKILL,
            is_private: false,
            port: None,
            is_telling: |_| false,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment; the rest is ours.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Sets its working directory; else it is ours.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sets the signal that it gets from the kernel when we end without having stopped it; SIGKILL by default.
    #[must_use]
    pub fn death_signal(mut self, signal: Signal) -> Self {
        self.death_signal = signal;
        self
    }

    /// Keeps those variables of our environment from it that begin with `prefix`; what [`Program::env`] sets stays.
    #[must_use]
    pub fn without_env_prefix(mut self, prefix: &'static str) -> Self {
        self.cleared_prefixes.push(prefix);
        self
    }

    /// Sets what tells the line of its output that says why it ended; by default that is the last one.
    #[must_use]
    pub(crate) fn telling(mut self, is_telling: fn(&str) -> bool) -> Self {
        self.is_telling = is_telling;
        self
    }

    /// Has what it makes be its owner's alone.
    #[must_use]
    pub(crate) fn private(mut self) -> Self {
        self.is_private = true;
        self
    }

    /// Runs it as another user. Only root can.
    #[must_use]
    pub(crate) fn user(mut self, user: Option<(Uid, Gid)>) -> Self {
        self.user = user;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// If util-linux' `setpriv` is missing or the log can't be opened. A program that can't be executed shows as a
    /// child that has ended.
    pub fn start(self) -> Result<Child> {
        let setpriv = programs::required("setpriv", "setpriv (package util-linux)")?;
        let log = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.log)
            .map_err(StackError::io("open", &self.log))?;
        let log_start = log.metadata().map_err(StackError::io("read", &self.log))?.len();
        let errors = log.try_clone().map_err(StackError::io("open", &self.log))?;
        let mut command = self.command(&setpriv);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let process = spawner::spawn(command).map_err(StackError::io("start", &self.path))?;
        Ok(Child { program: self, pid: process.id(), log_start, process: Mutex::new(process) })
    }

    /// The command line behind `setpriv`, which sets the death signal and the user and then becomes the program, with
    /// the same process id. Before that, a shell sets the umask: ours is that of all our threads, and not the stack's to change.
    fn command(&self, setpriv: &Path) -> Command {
        let mut command = if self.is_private {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", r#"umask 077; exec "$@""#, "sh"]).arg(setpriv);
            shell
        } else {
            Command::new(setpriv)
        };
        command.arg("--pdeathsig").arg(self.death_signal.as_str());
        if let Some((uid, gid)) = self.user {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
        }
        command.arg("--").arg(&self.path).args(&self.args);
        for (name, _) in std::env::vars_os() {
            if self.cleared_prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        // A group of its own: Ctrl-C in a terminal must reach only us, who stop the children in order.
        command.process_group(0);
        command
    }
}

/// A running child process.
///
/// It is in a process group of its own and gets its death signal from the kernel when this process ends, even by
/// `kill -9`. Dropping the value stops it.
#[derive(Debug)]
pub struct Child {
    program: Program,
    pid: u32,
    log_start: u64,
    process: Mutex<std::process::Child>,
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The file that its output goes to.
    pub fn log(&self) -> &Path {
        &self.program.log
    }

    /// What it has written since it was started.
    pub fn output(&self) -> String {
        let mut bytes = Vec::new();
        // A log that can't be read is shown as an empty one: it only ever decorates an error.
        let _ = File::open(self.log()).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.log_start))?;
            file.read_to_end(&mut bytes)
        });
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        self.exit_status().is_none()
    }

    /// How it ended, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.try_wait().ok().flatten()
    }

    /// Sends a signal to its process group, unless it has ended. Returns from SIGSTOP when it stands still: a process that has many
    /// threads goes on until each of them has had its turn, which takes a while on a busy machine.
    pub fn signal(&self, signal: Signal) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, and only while it is not yet reaped: else the id could already be another process's.
        if let Ok(None) = process.try_wait() {
            let _ = killpg(processes::pid(self.pid), signal);
            if signal == Signal::SIGSTOP {
                processes::wait_until_still(self.pid);
            }
        }
    }

    /// Waits until it has ended.
    pub fn wait(&self, deadline: Duration) -> Option<ExitStatus> {
        wait::until(deadline, || self.exit_status())
    }

    /// Asks it to end by a signal and waits.
    ///
    /// # Errors
    /// If it still runs after the deadline.
    pub fn stop(&self, signal: Signal, deadline: Duration) -> Result<ExitStatus> {
        self.signal(signal);
        // One that is paused would not notice.
        self.signal(Signal::SIGCONT);
        self.wait(deadline).ok_or_else(|| self.too_slow("did not end", deadline))
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub fn kill9(&self) {
        self.signal(Signal::SIGKILL);
        self.wait(Duration::from_secs(30));
    }

    /// Waits until it has printed a line that begins with `prefix`, and returns the rest of that line.
    ///
    /// # Errors
    /// If it ends before, or prints nothing of the kind within the deadline.
    pub fn wait_for_line(&self, prefix: &str, deadline: Duration) -> Result<String> {
        self.wait_until_ready(deadline, || {
            let output = self.output();
            // A last line without its end may still be growing.
            let complete = output.rfind('\n').map_or("", |end| &output[..end]);
            let rest = complete.lines().find_map(|line| line.strip_prefix(prefix))?;
            Some(Ok(rest.trim().to_owned()))
        })
    }

    /// Waits until `look` sees that it is ready, or why it never will be.
    pub(crate) fn wait_until_ready<T>(
        &self,
        deadline: Duration,
        mut look: impl FnMut() -> Option<Result<T>>,
    ) -> Result<T> {
        let look = || {
            let alive = self.is_alive();
            look().or_else(|| (!alive).then(|| Err(self.ended())))
        };
        wait::until(deadline, look).unwrap_or_else(|| Err(self.too_slow("was not ready", deadline)))
    }

    /// Waits until it has ended well.
    pub(crate) fn finish(&self, deadline: Duration) -> Result<()> {
        match self.wait(deadline) {
            Some(status) if status.success() => Ok(()),
            Some(_) => Err(self.ended()),
            None => Err(self.too_slow("did not end", deadline)),
        }
    }

    /// The error for a child that ended though it should not, with the line it wrote that says why.
    pub(crate) fn ended(&self) -> StackError {
        let (what, output) = (self.program.name.clone(), self.output());
        if let Some(port) = self.program.port
            && output.contains("Address already in use")
        {
            return StackError::PortInUse { what, port };
        }
        let mut lines = output.lines().map(str::trim).filter(|line| !line.is_empty());
        let telling = lines.clone().find(|line| (self.program.is_telling)(line));
        let reason = telling.or_else(|| lines.next_back()).unwrap_or("no output");
        let status = self.exit_status().map_or_else(|| "running".into(), |status| status.to_string());
        StackError::Other(format!("{what} ended ({status}): {reason} (its log: {})", self.log().display()))
    }

    /// The error for a deadline that has passed.
    fn too_slow(&self, not_done: &str, deadline: Duration) -> StackError {
        let (what, within, log) = (&self.program.name, deadline.as_secs(), self.log().display());
        StackError::Other(format!("{what} {not_done} within {within} s: see its log {log}"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.is_alive() && self.stop(self.program.death_signal, Duration::from_secs(5)).is_err() {
            self.kill9();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(dir: &tempfile::TempDir, script: &str) -> Child {
        Program::new("the shell", "/bin/sh", dir.path().join("log")).args(["-c", script]).start().unwrap()
    }

    #[test]
    fn a_readiness_line_is_awaited_and_its_rest_returned() {
        let dir = tempfile::tempdir().unwrap();
        let child = shell(&dir, "echo hello; echo listening on http://x:1; sleep 60");
        assert_eq!(child.wait_for_line("listening on ", SOON).unwrap(), "http://x:1");
        assert!(child.is_alive());
    }

    #[test]
    fn what_a_private_child_makes_is_its_owners_alone_and_it_keeps_its_words_and_its_process_id() {
        let dir = tempfile::tempdir().unwrap();
        let (log, made) = (dir.path().join("log"), dir.path().join("made"));
        let program = Program::new("the shell", "/bin/sh", log).private();
        let script = r#"echo "ready $$ $1"; mkdir "$0"; : > "$0/file"; echo made"#;
        let child = program.args(["-c", script]).arg(&made).arg("two  words").start().unwrap();
        assert_eq!(child.wait_for_line("ready ", SOON).unwrap(), format!("{} two  words", child.pid()));
        child.wait_for_line("made", SOON).unwrap();
        let modes = [&made, &made.join("file")].map(|path| path.metadata().unwrap().mode() & 0o777);
        assert_eq!(modes, [0o700, 0o600]);
    }

    #[test]
    fn a_child_that_ends_instead_of_being_ready_is_an_error_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let child = shell(&dir, "echo no luck >&2; exit 3");
        let error = child.wait_for_line("listening on ", SOON).unwrap_err().to_string();
        assert!(error.contains("the shell ended (exit status: 3): no luck"), "{error}");
    }

    #[test]
    fn a_child_that_ignores_the_signal_is_reported_and_can_be_killed() {
        let dir = tempfile::tempdir().unwrap();
        let child = shell(&dir, "trap '' TERM; echo ready; while :; do sleep 0.1; done");
        child.wait_for_line("ready", SOON).unwrap();
        let error = child.stop(Signal::SIGTERM, Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        child.kill9();
        assert!(!child.is_alive());
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let child = std::thread::spawn(move || {
            Program::new("the shell", "/bin/sh", path).args(["-c", "echo ready; sleep 60"]).start().unwrap()
        })
        .join()
        .unwrap();
        child.wait_for_line("ready", SOON).unwrap();
        assert_eq!(child.wait(Duration::from_millis(300)), None);
    }

    #[test]
    fn dropping_a_child_stops_it() {
        let dir = tempfile::tempdir().unwrap();
        let child = shell(&dir, "echo ready; sleep 60");
        child.wait_for_line("ready", SOON).unwrap();
        let identity = processes::Identity::of(child.pid()).unwrap();
        drop(child);
        assert!(!identity.is_alive());
    }
}
