//! Files and directories.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Result, StackError};

/// Writes a file that only its owner can read, whole or not at all.
///
/// # Errors
/// Where it can't be written.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let half = path.with_extension("new");
    // One that is there keeps its mode when it is written to; so it goes first.
    let _ = fs::remove_file(&half);
    let file = File::options().write(true).create_new(true).mode(0o600).open(&half);
    // It is there before its name is: half of a secret would be none.
    file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&half, path))
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
