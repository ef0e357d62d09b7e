//! schemathesis, which asks an API whatever its OpenAPI document allows, and more, and compares the answers with what is promised there.
//! It is a Python program, in a virtual environment of its own in a cache of the user's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Progress;
use crate::cache::Wanted;
use crate::child::Program;
use crate::error::{Result, StackError};
use crate::programs;

/// What pip is to bring.
const REQUIREMENTS: &str = include_str!("schemathesis/requirements.txt");

/// The oldest Python that it runs on.
const OLDEST_PYTHON: (u32, u32) = (3, 10);

/// About what pip transfers.
const MEGABYTES: u32 = 20;

const DEADLINE: Duration = Duration::from_secs(10 * 60);

/// Keeps what the caller's Python is told by its environment from ours, and no bytecode beside what it is given to read.
const ISOLATED: [&str; 2] = ["-I", "-B"];

/// The program as it is started, its output going to `log`; its arguments are still to be added. Where it is not in the cache, it is
/// fetched once.
///
/// # Errors
/// If Python is missing or too old, or pip can't fetch it.
pub fn schemathesis(log: &Path, progress: &Progress) -> Result<Program> {
    let (python, (major, minor)) = find_python()?;
    // A virtual environment is good for the one Python that has made it.
    let environment = format!("{}-python{major}.{minor}", version());
    let step = format!("fetching schemathesis {} by pip (about {MEGABYTES} MB, once)", version());
    let wanted = Wanted { name: "schemathesis", version: &environment, step: &step };
    let home = wanted.fetched(progress, |home| install(&python, home))?;
    Ok(Program::new("schemathesis", python_of(&home), log).args(ISOLATED).args(["-m", "schemathesis.cli"]))
}

fn version() -> &'static str {
    REQUIREMENTS.lines().find_map(|line| line.strip_prefix("schemathesis==")).unwrap_or_default()
}

/// The one of a virtual environment. It finds what is beside it, also where the directory was renamed; scripts would not.
fn python_of(home: &Path) -> PathBuf {
    home.join("bin/python")
}

fn install(python: &Path, home: &Path) -> Result<()> {
    let requirements = home.with_file_name("schemathesis.requirements.txt");
    fs::write(&requirements, REQUIREMENTS).map_err(StackError::io("write", &requirements))?;
    let log = home.with_file_name("schemathesis.pip.log");
    let run = |program: Program| {
        let program = program.telling(|line| line.starts_with("ERROR") || line.contains("ensurepip"));
        program.start()?.finish(DEADLINE)
    };
    let environment = Program::new("Python's venv", python, &log).args(["-I", "-m", "venv"]).arg(home);
    let pip = Program::new("pip", python_of(home), &log)
        .args(["-I", "-m", "pip", "install", "--quiet", "--no-input", "--only-binary=:all:", "--requirement"])
        .arg(&requirements);
    run(environment).and_then(|()| run(pip)).map_err(|error| {
        let remedy = "run scripts/install, check the network, then run this again";
        StackError::Other(format!("schemathesis {} can't be fetched: {error}; {remedy}", version()))
    })
}

/// The first on the search path, with its version.
fn find_python() -> Result<(PathBuf, (u32, u32))> {
    let found = programs::on_path("python3").and_then(|python| {
        let output = Command::new(&python).arg("--version").output().ok()?;
        let version = read_version(&String::from_utf8_lossy(&output.stdout))?;
        Some((python, version))
    });
    found.filter(|(_, version)| *version >= OLDEST_PYTHON).ok_or_else(|| {
        let (major, minor) = OLDEST_PYTHON;
        let python = format!("Python {major}.{minor} or newer (python3), which runs schemathesis,");
        StackError::not_installed(python, "run scripts/install")
    })
}

/// Major and minor of what `python3 --version` prints.
fn read_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("Python ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_fetched_at_one_version() {
        let lines = REQUIREMENTS.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let (name, version) = line.split_once("==").unwrap();
            assert!(!name.is_empty() && version.starts_with(|first: char| first.is_ascii_digit()), "{line}");
        }
        assert!(version().starts_with("4."), "{}", version());
    }

    #[test]
    fn pythons_version_is_read_from_what_it_prints() {
        assert_eq!(read_version("Python 3.11.2\n"), Some((3, 11)));
        assert_eq!(read_version("Python 3.14.0rc1"), Some((3, 14)));
        for wrong in ["", "Python", "3.11.2", "Python 3"] {
            assert_eq!(read_version(wrong), None, "{wrong}");
        }
    }
}
