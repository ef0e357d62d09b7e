//! Which PostgreSQL programs this machine has.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Result, StackError};
use crate::programs;

/// The oldest major version that the SQL of this project runs on.
const OLDEST: u32 = 15;

/// A directory with `initdb` and `postgres` of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    bin: PathBuf,
    major: u32,
}

impl Installation {
    /// The newest version that is installed.
    pub(crate) fn newest() -> Result<Installation> {
        let newest = all().max_by_key(|installation| installation.major);
        newest.ok_or_else(|| {
            StackError::not_installed(format!("PostgreSQL {OLDEST} or newer"), programs::INSTALL)
        })
    }

    /// The version that made the cluster in `data`: no other can run it.
    pub(crate) fn of_cluster(data: &Path) -> Result<Installation> {
        let file = data.join("PG_VERSION");
        let version = fs::read_to_string(&file).map_err(StackError::io("read", &file))?;
        let version = version.trim();
        all().find(|installation| installation.major.to_string() == version).ok_or_else(|| {
            let reason = format!(
                "it was made by version {version}, which is not installed: install postgresql-{version}, \
                 or choose another data directory"
            );
            StackError::unusable_data(data, reason)
        })
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Whether the server can load that library. A server that is told to load one that is not there does not start,
    /// and some systems package PostgreSQL's own further libraries apart.
    pub(crate) fn has_library(&self, name: &str) -> bool {
        let file = format!("{name}.so");
        ["../lib", "../lib/postgresql"].iter().any(|dir| self.bin.join(dir).join(&file).is_file())
    }

    fn in_directory(bin: PathBuf) -> Option<Installation> {
        let complete = programs::is_executable(&bin.join("initdb"));
        let major = complete.then(|| programs::major_version(&bin.join("postgres"), "--version"))??;
        (major >= OLDEST).then_some(Installation { bin, major })
    }
}

/// Debian keeps each version in a directory of its own, off the search path; others put one on the path.
fn all() -> impl Iterator<Item = Installation> {
    let debian = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let on_path = programs::on_path("postgres")
        .and_then(|program| program.canonicalize().ok())
        .and_then(|program| program.parent().map(Path::to_owned));
    debian.chain(on_path).filter_map(Installation::in_directory)
}
