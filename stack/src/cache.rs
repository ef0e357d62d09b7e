//! What is fetched once and found by whoever comes later, in a cache of the user's.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::Progress;
use crate::error::{Result, StackError};
use crate::files::remove_if_there;

/// What belongs into the cache.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// Its name, as messages have it: `Kafka`.
    pub(crate) name: &'a str,
    /// What tells it from others of that name; a directory of name and version is complete.
    pub(crate) version: &'a str,
    /// What is done to get it, for whoever waits for that.
    pub(crate) step: &'a str,
}

impl Wanted<'_> {
    /// Makes sure that it is in the cache, and returns its directory. Where it is missing, `fetch` fills an empty directory. One process
    /// fetches; others wait for it and then find it.
    ///
    /// The cache is `$ORDERMILL_CACHE_DIR`, else `$XDG_CACHE_HOME/ordermill`, else `$HOME/.cache/ordermill`.
    ///
    /// # Errors
    /// Those of `fetch`, or where the cache can't be found or written to.
    pub(crate) fn fetched(
        &self,
        progress: &Progress,
        fetch: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let cache = cache_dir()?;
        let directory = cache.join(format!("{}-{}", self.file_name(), self.version));
        if directory.is_dir() {
            return Ok(directory);
        }
        fs::create_dir_all(&cache).map_err(StackError::io("create", &cache))?;
        let _turn = self.wait_for_turn(&cache, progress)?;
        if !directory.is_dir() {
            progress.begin(self.step).end(self.fill(&directory, fetch))?;
        }
        Ok(directory)
    }

    /// Under another name, then renamed: a directory with the right name is complete.
    fn fill(&self, directory: &Path, fetch: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let unfinished = directory.with_file_name(format!("{}.unfinished", self.file_name()));
        remove_if_there(&unfinished)?;
        fs::create_dir(&unfinished).map_err(StackError::io("create", &unfinished))?;
        fetch(&unfinished)?;
        fs::rename(&unfinished, directory).map_err(StackError::io("rename", &unfinished))
    }

    fn wait_for_turn(&self, cache: &Path, progress: &Progress) -> Result<File> {
        let path = cache.join(format!("{}.lock", self.file_name()));
        let file = File::create(&path).map_err(StackError::io("create", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                let step = format!("waiting for another process that fetches {}", self.name);
                progress.begin(&step).end(file.lock().map_err(StackError::io("lock", &path)))?;
                Ok(file)
            }
            Err(TryLockError::Error(error)) => Err(StackError::io("lock", &path)(error)),
        }
    }

    fn file_name(&self) -> String {
        self.name.to_lowercase()
    }
}

fn cache_dir() -> Result<PathBuf> {
    let from = |name: &str, below: &str| {
        env::var_os(name).filter(|value| !value.is_empty()).map(|value| PathBuf::from(value).join(below))
    };
    from("ORDERMILL_CACHE_DIR", "")
        .or_else(|| from("XDG_CACHE_HOME", "ordermill"))
        .or_else(|| from("HOME", ".cache/ordermill"))
        .map(|dir| std::path::absolute(&dir).unwrap_or(dir))
        .ok_or_else(|| {
            let what = "can't find a cache directory (set ORDERMILL_CACHE_DIR): entity not found";
            StackError::Other(what.to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fetched_in_part_does_not_look_finished_and_is_fetched_anew() {
        let cache = tempfile::tempdir().unwrap();
        let directory = cache.path().join("tea-1");
        let wanted = Wanted { name: "Tea", version: "1", step: "fetching tea" };
        let failed = wanted.fill(&directory, |home| {
            fs::write(home.join("half"), "").unwrap();
            Err(StackError::Other("no water".to_owned()))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no water");
        assert!(!directory.exists());
        let fetched = wanted.fill(&directory, |home| {
            fs::write(home.join("whole"), "").unwrap();
            Ok(())
        });
        fetched.unwrap();
        assert!(directory.join("whole").exists() && !directory.join("half").exists());
    }
}
