//! Finding programs on this machine.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Result, StackError};

/// What installs everything that the stack needs.
pub(crate) const INSTALL: &str =
    "run scripts/install, or, where there is Docker, use 'docker compose up' instead";

/// The first program of that name on the search path.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| is_executable(path))
}

/// The first program of that name on the search path, or the error that names it.
pub(crate) fn required(name: &str, shown: &str) -> Result<PathBuf> {
    on_path(name).ok_or_else(|| StackError::not_installed(shown, INSTALL))
}

pub(crate) fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// The first number of the version in what the program prints, on either stream, when asked for it: 15 of
/// `postgres (PostgreSQL) 15.10`, 17 of `openjdk version "17.0.1"`, also where Java says before that which options it has picked up.
pub(crate) fn major_version(program: &Path, flag: &str) -> Option<u32> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    first_version_number(&String::from_utf8_lossy(&text))
}

fn first_version_number(text: &str) -> Option<u32> {
    let text = text.split_once(" version ").map_or(text, |(_, version)| version);
    let start = text.find(|letter: char| letter.is_ascii_digit())?;
    text[start..].split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// The program of this workspace that lies beside the running one: `ordermill-gateway` beside `ordermill`, also when
/// the running one is a test in `target/debug/deps`.
///
/// # Errors
/// If it was not built.
pub fn sibling_program(name: &str) -> Result<PathBuf> {
    let us = env::current_exe().map_err(StackError::io("find", Path::new("this program's path")))?;
    let mut candidates = us.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    candidates.find(|path| is_executable(path)).ok_or_else(|| {
        StackError::not_installed(
            format!("the program {name} (it belongs beside this one)"),
            "build it with 'make build' (for tests: cargo build --workspace --bins)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_print() {
        assert_eq!(first_version_number("postgres (PostgreSQL) 15.10 (Debian 15.10-0)"), Some(15));
        assert_eq!(first_version_number("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        let picked_up = "Picked up JAVA_TOOL_OPTIONS: -Xmx64m\nopenjdk version \"17.0.15\" 2025-04-15";
        assert_eq!(first_version_number(picked_up), Some(17));
        assert_eq!(first_version_number("no number"), None);
    }

    #[test]
    fn a_missing_program_is_named_with_its_remedy() {
        let error = required("no-such-program", "No Such Program").unwrap_err().to_string();
        assert!(error.starts_with("No Such Program is not installed: run scripts/install"));
    }
}
