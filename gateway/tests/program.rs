//! The gateway as a program of its own: its start, its stop, and what a crash leaves.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A running gateway, killed at the end of the test.
struct Gateway {
    child: Child,
    url: String,
    client: Client,
}

impl Gateway {
    fn start(ledger: &Path) -> Self {
        let mut child = command(ledger, "127.0.0.1:0").spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let url = line.strip_prefix("listening on ").unwrap();
        Self { child, url: url.trim_end().to_owned(), client: Client::builder().no_proxy().build().unwrap() }
    }

    async fn behave(&self, behaviour: Value) {
        let url = format!("{}/behaviour", self.url);
        let answer = self.client.put(url).json(&behaviour).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }

    async fn charge(&self, id: &str) -> reqwest::Result<Value> {
        let url = format!("{}/charges", self.url);
        let answer = self.client.post(url).json(&order(id)).send().await?;
        answer.json().await
    }

    async fn listed(&self) -> Vec<Value> {
        let url = format!("{}/charges?limit=10000", self.url);
        let answer = self.client.get(url).send().await.unwrap();
        let mut list: Value = answer.json().await.unwrap();
        serde_json::from_value(list["items"].take()).unwrap()
    }

    async fn wait_for_a_charge(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.listed().await.is_empty() {
            assert!(Instant::now() < deadline, "no charge has come");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(ledger: &Path, listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ordermill-gateway"));
    command.arg("--ledger").arg(ledger);
    command.args(["--listen", listen]);
    command.env_remove("ORDERMILL_CALLBACK_SECRET");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn order(id: &str) -> Value {
    json!({"charge_id": id, "amount": 1000, "method": "BALANCE", "reference": "order"})
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger.jsonl");
    (dir, ledger)
}

/// The program's exit code 1 and its one line of complaint.
fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "it said that it listens");
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let complaints: Vec<_> =
        stderr.lines().filter_map(|line| line.strip_prefix("ordermill-gateway: ")).collect();
    let [complaint] = complaints[..] else {
        panic!("not one complaint: {stderr}");
    };
    complaint.to_owned()
}

#[tokio::test]
async fn a_killed_gateway_has_every_answered_charge_after_its_restart() {
    let (_dir, ledger) = place();
    let mut gateway = Gateway::start(&ledger);
    gateway.behave(json!({"latency_ms": [0, 0]})).await;
    for n in 0..50 {
        gateway.charge(&format!("c{n}")).await.unwrap();
    }
    let before = gateway.listed().await;
    gateway.child.kill().unwrap();
    gateway.child.wait().unwrap();

    let gateway = Gateway::start(&ledger);
    assert_eq!(before.len(), 50);
    assert_eq!(gateway.listed().await, before);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_requests_that_are_never_answered() {
    let (_dir, ledger) = place();
    let mut gateway = Gateway::start(&ledger);
    gateway.behave(json!({"timeout_after": 1})).await;
    let url = format!("{}/charges", gateway.url);
    let silent = tokio::spawn(gateway.client.post(url).json(&order("a")).send());
    gateway.wait_for_a_charge().await;

    let pid = Pid::from_raw(gateway.child.id().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(silent.await.unwrap().is_err(), "it was answered");
    assert_eq!(gateway.child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_address_in_use_is_complained_about() {
    let (_dir, ledger) = place();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let output = command(&ledger, &address).output().unwrap();
    let complaint = complaint(&output);
    assert!(complaint.contains(&address) && complaint.contains("--listen"), "{complaint}");
}

#[test]
fn a_ledger_that_cannot_be_used_is_complained_about() {
    let (dir, ledger) = place();
    let _holder = Gateway::start(&ledger);
    let nowhere = dir.path().join("nowhere").join("ledger.jsonl");
    for (ledger, reason) in [(ledger, "in use by another gateway"), (nowhere, "cannot use")] {
        let output = command(&ledger, "127.0.0.1:0").output().unwrap();
        let complaint = complaint(&output);
        assert!(complaint.contains(reason) && complaint.contains("--ledger"), "{complaint}");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_complained_about() {
    let (dir, ledger) = place();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for (certificate, reason) in
        [(dir.path().join("nowhere.pem"), "cannot use"), (empty, "there is no certificate in it")]
    {
        let mut command = command(&ledger, "127.0.0.1:0");
        command.arg("--tls-certificate").arg(&certificate).arg("--tls-key").arg(&certificate);
        let complaint = complaint(&command.output().unwrap());
        assert!(complaint.contains(reason) && complaint.contains("--tls-certificate"), "{complaint}");
    }
}

#[test]
fn callbacks_want_a_plain_http_url_and_a_secret_unless_they_are_off() {
    let (_dir, ledger) = place();
    let complaint_about = |arguments: &[&str]| {
        let mut command = command(&ledger, "127.0.0.1:0");
        complaint(&command.args(arguments).output().unwrap())
    };
    let no_secret = complaint_about(&["--callback-url", "http://127.0.0.1:1/"]);
    assert!(no_secret.contains("--callback-secret"), "{no_secret}");
    let tls = ["--callback-url", "https://shop.test/", "--callback-secret", "s"];
    let no_http = complaint_about(&tls);
    assert!(no_http.contains("plain http"), "{no_http}");
    let off = ["--callback-url", "nonsense", "--callbacks", "off"];
    let mut child = command(&ledger, "127.0.0.1:0").args(off).spawn().unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("listening on "), "{line}");
}
