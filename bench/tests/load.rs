//! `ordermill-bench load` as a program, against an API that only counts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

/// How long a load of these may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
/// What the contract says of the last line.
const MEMBERS: [&str; 8] = [
    "accept",
    "accepted",
    "errors",
    "first_accepted_us",
    "first_sent_us",
    "last_accepted_us",
    "sent",
    "settle",
];

/// An API that takes every order and settles it at once, as far as it answers.
#[derive(Default)]
struct Api {
    orders: AtomicUsize,
    /// The idempotency keys of those that are to be held, as they came.
    held: Mutex<Vec<String>>,
    bodies: Mutex<Vec<Value>>,
    /// How long every answer takes.
    delay: Duration,
    /// So many orders are refused first.
    refused: usize,
}

impl Api {
    async fn serve(self) -> (SocketAddr, Arc<Api>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = Arc::new(self);
        let shared = api.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(shared.clone().answer(BufReader::new(stream)));
            }
        });
        (address, api)
    }

    async fn answer(self: Arc<Self>, mut stream: BufReader<TcpStream>) {
        while let Some((head, body)) = request(&mut stream).await {
            let number = self.orders.fetch_add(1, Ordering::SeqCst);
            self.bodies.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            if head.iter().any(|line| line == "prefer: wait=30") {
                let key = head.iter().find_map(|line| line.strip_prefix("idempotency-key: "));
                self.held.lock().unwrap().push(key.unwrap().to_owned());
            }
            tokio::time::sleep(self.delay).await;
            let (status, body) = if number < self.refused {
                ("503 Busy", r#"{"code":"OVERLOADED"}"#)
            } else {
                ("202 Accepted", r#"{"status":"CONFIRMED"}"#)
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// The lines of a request's head, and its body; none where the client has gone.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<(Vec<String>, Vec<u8>)> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

/// Runs a load of 100 orders and answers its last line.
async fn load(address: SocketAddr, further: &[&str]) -> Value {
    load_within(60, address, further).await
}

async fn load_within(within_s: u64, address: SocketAddr, further: &[&str]) -> Value {
    let shop = tempfile::NamedTempFile::new().unwrap();
    let users: Vec<Value> =
        (1..=3).map(|n| json!({"user_id": uuid(n), "api_key": format!("om_{n}")})).collect();
    let products: Vec<String> = (100..160).map(uuid).collect();
    std::fs::write(shop.path(), json!({"users": users, "products": products}).to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ordermill-bench"))
        .args(["load", "--address", &format!("localhost:{}", address.port()), "--shop"])
        .arg(shop.path())
        .args(["--orders", "100", "--connections", "4", "--seed", "7", "--label", "l"])
        .args(["--within-s", &within_s.to_string()])
        .args(further)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output).await.expect("the load ends in time").unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn uuid(n: u32) -> String {
    format!("00000000-0000-7000-8000-{n:012}")
}

fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn the_last_line_has_the_members_of_the_contract_and_no_other() {
    let (address, _) = Api::default().serve().await;
    for further in [&[][..], &["--rate", "500"]] {
        let report = load(address, further).await;
        let mut found = members(&report);
        found.sort_unstable();
        assert_eq!(found, MEMBERS);
        for latencies in ["accept", "settle"] {
            let mut found = members(&report[latencies]);
            found.sort_unstable();
            assert_eq!(found, ["count", "max_ms", "p50_ms", "p90_ms", "p99_ms"]);
        }
        assert_eq!((&report["sent"], &report["accepted"]), (&json!(100), &json!(100)), "{report}");
        assert_eq!(report["errors"], json!({}));
        let time = |name: &str| report[name].as_i64().unwrap();
        assert!(time("first_sent_us") > 1_600_000_000_000_000, "{report}");
        assert!(time("first_sent_us") <= time("first_accepted_us"), "{report}");
        assert!(time("first_accepted_us") <= time("last_accepted_us"), "{report}");
    }
}

#[tokio::test]
async fn one_order_in_ten_is_held_in_both_loops_and_every_order_comes_once() {
    for further in [&[][..], &["--rate", "1000"]] {
        let (address, api) = Api::default().serve().await;
        let report = load(address, further).await;
        assert_eq!(report["settle"]["count"], 10, "{report}");
        assert_eq!(report["accept"]["count"], 90, "{report}");
        assert_eq!(api.orders.load(Ordering::SeqCst), 100);
        let mut held = api.held.lock().unwrap().clone();
        held.sort_unstable();
        let mut expected: Vec<String> = (0..100).step_by(10).map(|n| format!("l-{n}")).collect();
        expected.sort_unstable();
        assert_eq!(held, expected);
    }
}

#[tokio::test]
async fn what_is_refused_is_counted_by_its_code() {
    let (address, _) = Api { refused: 7, ..Api::default() }.serve().await;
    let report = load(address, &[]).await;
    assert_eq!(report["errors"], json!({"503 OVERLOADED": 7}), "{report}");
    assert_eq!((&report["sent"], &report["accepted"]), (&json!(100), &json!(93)));
}

/// 90 orders are due within 90 ms on four connections that are busy for 20 ms with each: the last ones wait for a
/// connection for more than 300 ms.
#[tokio::test]
async fn in_the_open_loop_waiting_for_a_connection_is_part_of_the_latency() {
    let api = || Api { delay: Duration::from_millis(20), ..Api::default() };
    let (address, _) = api().serve().await;
    let open = load(address, &["--rate", "1000"]).await;
    assert!(open["accept"]["max_ms"].as_f64().unwrap() > 300.0, "{open}");
    // Those that are held have connections of their own.
    assert!(open["settle"]["p50_ms"].as_f64().unwrap() < 200.0, "{open}");
    let (address, _) = api().serve().await;
    let closed = load(address, &[]).await;
    assert!(closed["accept"]["p50_ms"].as_f64().unwrap() < 200.0, "{closed}");
}

#[tokio::test]
async fn orders_can_have_many_lines() {
    let (address, api) = Api::default().serve().await;
    load(address, &["--lines", "50"]).await;
    let bodies = api.bodies.lock().unwrap();
    assert!(bodies.iter().all(|body| body["lines"].as_array().unwrap().len() == 50));
}

#[tokio::test]
async fn nothing_is_sent_after_its_time_and_that_is_an_error() {
    let (address, api) = Api { delay: Duration::from_millis(300), ..Api::default() }.serve().await;
    let report = load_within(1, address, &[]).await;
    let sent = api.orders.load(Ordering::SeqCst);
    assert!(sent < 100, "{sent}");
    assert_eq!(report["sent"], sent);
    assert_eq!(report["errors"]["not sent in time"], 100 - sent, "{report}");
}
