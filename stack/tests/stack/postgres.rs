//! PostgreSQL starts, stops, and recovers from what can happen to it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ordermill_stack::{Postgres, PostgresOptions, Private, Quiet, StackError, free_port};
use sqlx::{Connection, PgConnection, raw_sql};

use crate::{eventually, is_running, scratch};

fn start(dir: &Path) -> Result<Postgres, StackError> {
    Postgres::start(dir, PostgresOptions::default(), &Quiet)
}

async fn execute(postgres: &Postgres, statement: &'static str) {
    let mut connection = PgConnection::connect(&postgres.url("ordermill")).await.unwrap();
    raw_sql(statement).execute(&mut connection).await.unwrap();
}

async fn query(postgres: &Postgres, statement: &'static str) -> String {
    let mut connection = PgConnection::connect(&postgres.url("ordermill")).await.unwrap();
    sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn a_second_start_finds_the_data_and_the_port_of_the_first() {
    let scratch = scratch();
    let first = start(scratch.path()).unwrap();
    execute(&first, "CREATE TABLE t AS SELECT 'kept' AS v").await;
    first.stop().unwrap();
    let port = first.port();
    drop(first);

    let second = start(scratch.path()).unwrap();
    assert_eq!(query(&second, "SELECT v FROM t").await, "kept");
    assert_eq!(second.port(), port);
}

#[tokio::test]
async fn the_cluster_is_safe_and_set_up_for_many_connections() {
    let postgres = Private::postgres().unwrap();
    for (setting, expected) in [
        ("SHOW fsync", "on"),
        ("SHOW synchronous_commit", "on"),
        ("SHOW full_page_writes", "on"),
        ("SHOW wal_compression", "lz4"),
        ("SHOW shared_buffers", "256MB"),
        ("SHOW max_wal_size", "4GB"),
        ("SHOW shared_preload_libraries", "pg_stat_statements"),
        ("SHOW server_encoding", "UTF8"),
        ("SHOW max_connections", "500"),
        ("SHOW listen_addresses", "127.0.0.1"),
        ("SHOW unix_socket_directories", ""),
        ("SHOW timezone", "UTC"),
        ("SELECT current_user::text", "ordermill"),
    ] {
        assert_eq!(query(&postgres, setting).await, expected, "{setting}");
    }
    let without_password = format!("postgres://ordermill@127.0.0.1:{}/ordermill", postgres.port());
    assert!(PgConnection::connect(&without_password).await.is_err());
}

#[tokio::test]
async fn settings_of_the_caller_win() {
    let scratch = scratch();
    let settings = vec![("max_connections".to_owned(), "17".to_owned())];
    let options = PostgresOptions { settings, ..PostgresOptions::default() };
    let postgres = Postgres::start(scratch.path(), options, &Quiet).unwrap();
    assert_eq!(query(&postgres, "SHOW max_connections").await, "17");
}

#[tokio::test]
async fn a_killed_server_comes_back_on_its_port_with_what_was_committed() {
    let postgres = Private::postgres().unwrap();
    execute(&postgres, "CREATE TABLE t AS SELECT 'committed' AS v").await;
    // A backend in mid-statement is there when the server is killed.
    let url = postgres.url("ordermill");
    let sleeper = tokio::spawn(async move {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        raw_sql("SELECT pg_sleep(600)").execute(&mut connection).await
    });
    let sleeping = "SELECT (count(*) > 0)::text FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
    while query(&postgres, sleeping).await == "false" {}
    let (pid, port) = (postgres.pid().unwrap(), postgres.port());
    postgres.kill9();
    assert!(!is_running(pid));
    assert!(sleeper.await.unwrap().is_err());

    postgres.restart().unwrap();
    assert_eq!(postgres.port(), port);
    assert_eq!(query(&postgres, "SELECT v FROM t").await, "committed");
}

#[test]
fn a_half_initialised_cluster_is_made_anew() {
    let scratch = scratch();
    let unfinished = scratch.path().join("postgres.unfinished/data");
    fs::create_dir_all(&unfinished).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15").unwrap();
    start(scratch.path()).unwrap().stop().unwrap();
    assert!(!scratch.path().join("postgres.unfinished").exists());
}

#[test]
fn a_cluster_whose_files_are_gone_is_reported_with_what_to_do() {
    let scratch = scratch();
    start(scratch.path()).unwrap().stop().unwrap();
    fs::remove_dir_all(scratch.path().join("postgres/data")).unwrap();
    let error = start(scratch.path()).unwrap_err().to_string();
    assert!(error.contains("its cluster is gone: restore it, or remove"), "{error}");
}

#[test]
fn as_root_the_cluster_lies_elsewhere_where_its_user_can_not_enter() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let scratch = scratch();
    let closed = scratch.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let first = start(&closed).unwrap();
    let home = first.data_dir().parent().unwrap().to_owned();
    assert!(home.starts_with("/var/lib/ordermill"), "{}", home.display());
    first.stop().unwrap();
    drop(first);
    assert_eq!(start(&closed).unwrap().data_dir(), home.join("data"));

    // A data directory that was deleted and made again begins with an empty cluster.
    fs::write(home.join("sign"), "of the old cluster").unwrap();
    fs::remove_file(closed.join("postgres")).unwrap();
    start(&closed).unwrap().stop().unwrap();
    assert!(!home.join("sign").exists());
    let orphan = home.with_extension("orphan");
    assert!(orphan.join("sign").exists());
    fs::remove_dir_all(orphan).unwrap();
    fs::remove_dir_all(home).unwrap();
}

#[test]
fn a_port_in_use_is_reported_before_anything_is_started() {
    let scratch = scratch();
    let port = free_port().unwrap();
    let _holder = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let options = PostgresOptions { port: Some(port), ..PostgresOptions::default() };
    let error = Postgres::start(scratch.path(), options, &Quiet).unwrap_err();
    assert!(matches!(error, StackError::PortInUse { .. }), "{error}");
    assert!(!scratch.path().join("postgres").exists());
}

#[test]
fn a_data_directory_that_is_in_use_is_refused() {
    let scratch = scratch();
    let _first = start(scratch.path()).unwrap();
    let error = start(scratch.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
}

#[test]
fn a_lock_file_left_by_a_crash_does_not_hinder_even_if_its_process_id_is_in_use_again() {
    let scratch = scratch();
    let first = start(scratch.path()).unwrap();
    first.stop().unwrap();
    let data = first.data_dir().to_owned();
    drop(first);
    let stale = format!("{}\n{}\n0\n5432\n\n127.0.0.1\n", std::process::id(), data.display());
    fs::write(data.join("postmaster.pid"), stale).unwrap();
    start(scratch.path()).unwrap().stop().unwrap();
}

#[test]
fn a_setting_that_the_server_refuses_is_in_the_error() {
    let scratch = scratch();
    let settings = vec![("max_connections".to_owned(), "many".to_owned())];
    let options = PostgresOptions { settings, ..PostgresOptions::default() };
    let error = Postgres::start(scratch.path(), options, &Quiet).unwrap_err().to_string();
    assert!(error.contains("invalid value for parameter \"max_connections\""), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn dropping_a_server_ends_it() {
    let scratch = scratch();
    let postgres = start(scratch.path()).unwrap();
    let pid = postgres.pid().unwrap();
    drop(postgres);
    assert!(!is_running(pid));
}

#[tokio::test]
async fn a_paused_server_answers_again_when_resumed() {
    let postgres = Private::postgres().unwrap();
    postgres.pause();
    let url = postgres.url("ordermill");
    let waiting = tokio::spawn(async move { PgConnection::connect(&url).await });
    eventually("the server is stopped", || state(postgres.pid().unwrap()) == Some('T'));
    assert!(!waiting.is_finished());
    postgres.resume();
    waiting.await.unwrap().unwrap();
}

#[test]
fn a_paused_server_can_be_stopped() {
    let postgres = Private::postgres().unwrap();
    let pid = postgres.pid().unwrap();
    postgres.pause();
    postgres.stop().unwrap();
    assert!(!is_running(pid));
}

fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}
