//! How much memory the pipeline's process takes.

use anyhow::{Context as _, Result};
use procfs::process::Process;
use serde::Serialize;

/// What a process takes, in megabytes of a million bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Now.
    pub rss_mb: f64,
    /// At most, up to now.
    pub rss_max_mb: f64,
}

impl Memory {
    /// Of that process.
    ///
    /// # Errors
    /// Where the system does not say.
    pub(crate) fn of(pid: u32) -> Result<Memory> {
        let status = Process::new(pid.try_into()?)?.status()?;
        // The system counts in KiB.
        let mb = |kib: Option<u64>| kib.map(|kib| kib as f64 * 1_024.0 / 1e6).context("no memory is told");
        Ok(Memory { rss_mb: mb(status.vmrss)?, rss_max_mb: mb(status.vmhwm)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_some_and_took_no_less_at_most() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.rss_mb > 0.5 && memory.rss_max_mb >= memory.rss_mb, "{memory:?}");
    }
}
