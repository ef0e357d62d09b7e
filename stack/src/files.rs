//! Files and directories.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Result, StackError};

/// Writes a file that the owner alone may read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    // One that is there keeps its mode when it is written to; so it goes first.
    let _ = fs::remove_file(path);
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(StackError::io("write", path))
}

/// Removes a directory and all that is in it.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StackError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
