//! The launcher against real programs. One binary, so that the tests share what they can.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod gateway;
mod kafka;
mod orphans;
mod postgres;
mod shared;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ordermill_stack::Scratch;

/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Looks until the condition holds; fails when the deadline has passed.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "not within {} s: {what}", SOON.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, state)| !state.trim_start().starts_with('Z'))
}

/// What of a file, or of a directory and all that is in it, others may do something with.
fn open_to_others(path: &Path) -> String {
    let find = Command::new("find").arg(path).args(["!", "-type", "l", "-perm", "/077"]).output().unwrap();
    String::from_utf8(find.stdout).unwrap()
}

/// Opens a file, or a directory and all that is in it, as an earlier version has left it.
fn open_up(path: &Path) {
    assert!(Command::new("chmod").args(["-R", "go+rX"]).arg(path).status().unwrap().success());
}

fn scratch() -> Scratch {
    Scratch::new().unwrap()
}
