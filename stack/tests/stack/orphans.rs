//! What happens to the children when their parent is killed.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

use ordermill_stack::{Kafka, KafkaOptions, Postgres, PostgresOptions, Quiet};

use crate::{eventually, is_running, scratch};

/// Set in the process that this test runs as a parent to be killed.
const DIRECTORY: &str = "ORDERMILL_TEST_PARENT_DIR";

#[test]
fn children_die_with_a_parent_that_is_killed_and_their_data_can_be_used_again() {
    let scratch = scratch();
    let mut parent = Command::new(env::current_exe().unwrap())
        .args(["--exact", "orphans::helper_that_starts_servers_and_waits", "--ignored"])
        .env(DIRECTORY, scratch.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready = scratch.path().join("ready");
    eventually("the servers of the parent are ready", || ready.exists());
    let pids: Vec<u32> =
        fs::read_to_string(&ready).unwrap().lines().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| is_running(*pid)));

    parent.kill().unwrap();
    parent.wait().unwrap();
    // Before anything of ours could see them off.
    eventually("all children have died", || pids.iter().all(|pid| !is_running(*pid)));
    Postgres::start(scratch.path(), PostgresOptions::default(), &Quiet).unwrap().stop().unwrap();
}

#[test]
#[ignore = "not a test: the parent that another test kills"]
fn helper_that_starts_servers_and_waits() {
    let Some(dir) = env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    // The servers are started on threads that end, as those of a runtime may.
    let postgres = std::thread::scope(|scope| {
        scope.spawn(|| Postgres::start(&dir, PostgresOptions::default(), &Quiet)).join().unwrap().unwrap()
    });
    let kafka = std::thread::scope(|scope| {
        scope.spawn(|| Kafka::start(&dir, KafkaOptions::default(), &Quiet)).join().unwrap().unwrap()
    });
    let pids = format!("{}\n{}\n", postgres.pid().unwrap(), kafka.pid().unwrap());
    fs::write(dir.join("ready.new"), pids).unwrap();
    fs::rename(dir.join("ready.new"), dir.join("ready")).unwrap();
    loop {
        std::thread::park();
    }
}
