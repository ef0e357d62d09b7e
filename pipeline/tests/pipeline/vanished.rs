//! A database that vanishes: what is sent to it is dropped, and nobody is told. In a network namespace of the test's own.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::str::FromStr as _;
use std::time::Duration;

use ordermill_pipeline::database::{self, Next, next_after};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::support::{Log, until};

/// Names the way out of the namespace, for the test's other half.
const BRIDGE: &str = "ORDERMILL_TEST_BRIDGE";
/// Names the database, likewise.
const DATABASE: &str = "ORDERMILL_TEST_DATABASE";
/// How soon whoever waits must be told.
const TOLD_WITHIN: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_database_that_has_vanished_is_told_and_goes_on_once_it_is_back() {
    if let (Ok(bridge), Ok(url)) = (std::env::var(BRIDGE), std::env::var(DATABASE)) {
        return in_the_namespace(Path::new(&bridge), &url).await;
    }
    let log = Log::new().await;
    let directory = tempfile::tempdir().unwrap();
    let bridge = directory.path().join("bridge");
    let listener = UnixListener::bind(&bridge).unwrap();
    let port = port_of(&log.url);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            join(near, far);
        }
    });
    let name = "vanished::who_waits_for_a_database_that_has_vanished_is_told_and_goes_on_once_it_is_back";
    // Whoever is not root is it in a namespace of users.
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let inside = tokio::process::Command::new("unshare")
        .args(if is_root { ["--net"].as_slice() } else { &["--net", "--map-root-user"] })
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(BRIDGE, &bridge)
        .env(DATABASE, &log.url)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), inside).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

async fn in_the_namespace(bridge: &Path, url: &str) {
    set_loopback("up");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let bridge = bridge.to_owned();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            join(near, UnixStream::connect(&bridge).await.unwrap());
        }
    });
    let url = url.replace(&format!(":{}/", port_of(url)), &format!(":{port}/"));
    let pool = database::connect(&url, "test", 2).await.unwrap();
    let waits = tokio::spawn(ask(pool.clone(), "SELECT pg_sleep(600)"));
    // Once it is at work, the server has acknowledged all that was sent, so nothing is sent again that could fail.
    until("the statement is at work", async || {
        let at_work = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'";
        sqlx::query_scalar::<_, i64>(at_work).fetch_one(&pool).await.unwrap() == 1
    })
    .await;
    set_loopback("down");
    let told = tokio::time::timeout(TOLD_WITHIN, waits).await.expect("nobody was told").unwrap();
    assert!(matches!(told, Err(sqlx::Error::Io(_))), "{told:?}");
    let told =
        tokio::time::timeout(TOLD_WITHIN, ask(pool.clone(), "SELECT 1")).await.expect("nobody was told");
    assert_eq!(next_after(&told.unwrap_err()), Next::Retry);
    set_loopback("up");
    until("the database answers again", async || ask(pool.clone(), "SELECT 1").await.is_ok()).await;
}

async fn ask(pool: PgPool, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(&pool).await.map(|_| ())
}

fn join(
    mut near: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut far: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    // How a connection ends is for its ends to see.
    tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await.map(|_| ()) });
}

fn port_of(url: &str) -> u16 {
    PgConnectOptions::from_str(url).unwrap().get_port()
}

fn set_loopback(state: &str) {
    let set = Command::new("ip").args(["link", "set", "lo", state]).status().unwrap();
    assert!(set.success());
}
