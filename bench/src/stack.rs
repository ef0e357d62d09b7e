//! The stack that is measured: `ordermill up` as a child process, in a data directory of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use ordermill::connections::Connections;
use ordermill::stack_file::StackFile;
use ordermill_stack::{Child, Program, Scratch, Signal, sibling_program};

use crate::args::StackArgs;
use crate::cost::KAFKA_SETTING;

/// How long the stack may take to become ready: the first time of all, Kafka is fetched.
const READY_WITHIN: Duration = Duration::from_secs(20 * 60);
/// How long the stack may take to stop: databases write what they have in memory.
const STOP_WITHIN: Duration = Duration::from_secs(90);
/// How often it is looked whether a child has got there.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What would make `ordermill up` use servers or a wire secret that are there already instead of its own.
pub(crate) const ADDRESSES: [&str; 5] = [
    "DATABASE_URL",
    "KAFKA_",
    "ORDERMILL_TOPIC_PREFIX",
    "ORDERMILL_GATEWAY_URL",
    "ORDERMILL_WIRE_SECRET_FILE",
];

/// A running stack. Dropping it stops it less gently than [`OwnStack::stop`].
#[derive(Debug)]
pub(crate) struct OwnStack {
    // The order of the fields is that of their dropping: the stack ends before its directory goes.
    /// The process that runs API, relay and workers.
    pub(crate) up: Child,
    /// Where its parts are.
    pub(crate) file: StackFile,
    pub(crate) admin_key: String,
    path: PathBuf,
    /// None where the data is kept.
    scratch: Option<Scratch>,
}

impl OwnStack {
    /// Starts a stack on ports that are free; returns when it is ready.
    ///
    /// # Errors
    /// Where it does not become ready; the message is its own last line.
    pub(crate) async fn start(args: &StackArgs) -> Result<OwnStack> {
        let scratch = if args.keep { None } else { Some(Scratch::new()?) };
        let path = scratch.as_ref().map_or_else(kept_directory, |scratch| Ok(scratch.path().to_owned()))?;
        let mut program = Program::new("the stack", sibling_program("ordermill")?, path.join("up.log"));
        for address in ADDRESSES {
            program = program.without_env_prefix(address);
        }
        let partitions = args.partitions.map(|count| format!("--partitions={count}"));
        let (name, value) = KAFKA_SETTING;
        let up = program
            .death_signal(Signal::SIGTERM)
            .args(["up", "--port", "0", "--data-dir"])
            .arg(&path)
            .arg(format!("--kafka-setting={name}={value}"))
            .args(partitions)
            .args(args.secure.then_some("--secure"))
            .start()?;
        let file = wait_until_ready(&up, &path).await?;
        let admin_key = fs::read_to_string(&file.admin_key_file).context("can't read the admin's key")?;
        Ok(OwnStack { up, file, admin_key: admin_key.trim().to_owned(), path, scratch })
    }

    /// The data directory.
    #[must_use]
    pub(crate) fn directory(&self) -> &Path {
        &self.path
    }

    /// A file in the data directory.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where everything is.
    ///
    /// # Errors
    /// Where the wire secret can't be read.
    pub(crate) fn connections(&self) -> Result<Connections> {
        Ok(Connections {
            database_url: self.file.database_url.clone(),
            kafka: self.file.kafka(&self.file.topic_prefix)?,
            gateway_url: Some(self.file.gateway_url.clone()),
            gateway_ca_file: self.file.ca_file.clone(),
        })
    }

    /// Stops everything in order. Answers the data directory if that is kept.
    ///
    /// # Errors
    /// Where the stack does not end, or not well.
    pub(crate) async fn stop(self) -> Result<Option<PathBuf>> {
        self.up.signal(Signal::SIGTERM);
        finish(self.up, "the stack", STOP_WITHIN).await?;
        Ok(self.scratch.is_none().then_some(self.path))
    }
}

/// A directory that nobody removes.
fn kept_directory() -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("ordermill-bench-{}", std::process::id()));
    fs::create_dir(&path)
        // PostgreSQL's user must be able to pass.
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o711)))
        .with_context(|| format!("can't make the data directory {}", path.display()))?;
    Ok(path)
}

async fn wait_until_ready(up: &Child, data_dir: &Path) -> Result<StackFile> {
    let found = until(READY_WITHIN, || match StackFile::read(data_dir) {
        Ok(None) if up.is_alive() => None,
        Ok(None) => Some(Err(anyhow!("the stack did not start: {}", last_line(up)))),
        Ok(Some(file)) => Some(Ok(file)),
        Err(error) => Some(Err(error)),
    });
    found.await.unwrap_or_else(|| {
        bail!("the stack was not ready within {} s: {}", READY_WITHIN.as_secs(), last_line(up))
    })
}

/// Waits until a child has ended well, and answers what it has written.
///
/// # Errors
/// Where it ends badly or not in time; the message is its own last line.
pub(crate) async fn finish(child: Child, what: &str, within: Duration) -> Result<String> {
    match until(within, || child.exit_status()).await {
        Some(status) if status.success() => Ok(child.output()),
        Some(_) => bail!("{what} failed: {}", last_line(&child)),
        None => bail!("{what} did not end within {} s: {}", within.as_secs(), last_line(&child)),
    }
}

/// Looks until there is something to be seen; none where that takes too long.
async fn until<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let seen = async {
        loop {
            match look() {
                Some(seen) => return seen,
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    };
    tokio::time::timeout(within, seen).await.ok()
}

/// The last line that a child has written.
pub(crate) fn last_line(child: &Child) -> String {
    let output = child.output();
    let line = output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    line.trim().to_owned()
}
