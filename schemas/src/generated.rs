//! Files of the repository that a program generates.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

/// A generated file: where it lies, from the root of the repository, and what is in it.
pub struct Document {
    /// The path from the root of the repository.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Writes what is not up to date of these documents; with the argument `--check` it only says which ones, with what else is
/// not, and the `command` that writes them.
///
/// # Errors
/// Where a file can't be written.
pub fn write_or_check(documents: Vec<Document>, others: Vec<String>, command: &str) -> io::Result<ExitCode> {
    let check = env::args().any(|argument| argument == "--check");
    let mut stale = others;
    for Document { path, text } in documents {
        let file = root().join(&path);
        if fs::read_to_string(&file).is_ok_and(|found| found == text) {
            continue;
        }
        if check {
            stale.push(path);
            continue;
        }
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, text)?;
    }
    if stale.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    stale.iter().for_each(|path| eprintln!("not up to date: {path}"));
    eprintln!("run: {command}");
    Ok(ExitCode::FAILURE)
}
