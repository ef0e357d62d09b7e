//! `ordermill-bench run` and `long` from beginning to end, with few orders: what nobody runs rots.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

/// How long a run may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(400);
/// A little of everything.
const LITTLE: &[&str] = &[
    "--orders=200",
    "--warm-up=50",
    "--hot-orders=100",
    "--long-orders=10",
    "--alone-orders=300",
    "--seconds=1",
    "--rest-seconds=1",
    "--open-seconds=1",
    "--open-orders=20",
    "--users=20",
    "--products=60",
    "--claimants=300",
    "--coupons=20",
    "--round-trips=50",
];
/// Programs read these.
const FIGURES: [&str; 15] = [
    "tpcb_tps",
    "accepted_per_s",
    "accepted_alone_per_s",
    "settled_per_s",
    "hot_product_settled_per_s",
    "hot_user_settled_per_s",
    "claims_per_s",
    "relay_events_per_s",
    "raw_produce_per_s",
    "raw_round_trip_p50_ms",
    "raw_round_trip_p99_ms",
    "replay_events_per_s",
    "log_read_events_per_s",
    "rss_mb",
    "idle_cores",
];
/// Of each rate, too.
const OF_A_RATE: [&str; 5] = ["rate_per_s", "settle_p50_ms", "settle_p99_ms", "accept_p50_ms", "cores"];
/// What the same time costs at rest is taken off these, so of few orders nothing may be left.
const COUNTS: [&str; 3] = ["statements_per_order", "commits_per_order", "kafka_requests_per_order"];

#[tokio::test]
async fn a_run_measures_everything_and_ends_with_verify() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("bench.json");
    let drawings = directory.path().join("performance");
    let output = bench("run", LITTLE, &[("--json", json.as_path()), ("--svg", drawings.as_path())]).await;
    let (told, progress) = texts(&output);
    assert!(output.status.success(), "{told}\n{progress}");
    let report = read(&json);
    for name in FIGURES {
        assert!(report[name].as_f64().is_some_and(|figure| figure > 0.0), "{name}: {}", report[name]);
    }
    let rates = report["rates"].as_array().unwrap();
    assert_eq!(rates.len(), 4, "20, 100, 300, and half of the closed loop");
    for rate in rates {
        for name in OF_A_RATE {
            assert!(rate[name].as_f64().is_some_and(|figure| figure > 0.0), "{name}: {rate}");
        }
        assert!(COUNTS.iter().all(|name| rate[name].is_number()), "{rate}");
        let (client, database) = (&rate["settle"], &rate["settle_in_database"]);
        assert!(database["count"].as_f64() > client["count"].as_f64(), "{rate}");
        assert!(database["p50_ms"].as_f64() > Some(0.0), "{rate}");
    }
    assert_eq!((&report["ok"], &report["verify"]["ok"]), (&Value::Bool(true), &Value::Bool(true)));
    assert!(told.ends_with("\nok\n"), "{told}");
    assert!(progress.contains(" left] closed-64: "), "{progress}");
    for name in ["latency.svg", "order-time.svg"] {
        assert!(drawings.join(name).exists(), "{name}");
    }
}

#[tokio::test]
async fn a_long_run_tells_memory_after_each_portion() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("long.json");
    let little = ["--orders=300", "--portions=3", "--users=30", "--products=60"];
    let output = bench("long", &little, &[("--json", json.as_path()), ("--svg", directory.path())]).await;
    let (told, progress) = texts(&output);
    assert!(output.status.success(), "{told}\n{progress}");
    let report = read(&json);
    let portions = report["portions"].as_array().unwrap();
    assert_eq!(
        portions.iter().map(|portion| portion["orders"].as_u64().unwrap()).collect::<Vec<_>>(),
        [100, 200, 300]
    );
    assert!(portions.iter().all(|portion| portion["rss_mb"].as_f64().unwrap() > 1.0), "{report}");
    assert!(directory.path().join("memory.svg").exists());
}

/// Runs a command of the program, beside which the others must have been built.
async fn bench(command: &str, flags: &[&str], files: &[(&str, &Path)]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ordermill-bench"));
    program.arg(command).args(flags).stdin(Stdio::null()).kill_on_drop(true);
    for (flag, file) in files {
        program.arg(flag).arg(file);
    }
    tokio::time::timeout(DEADLINE, program.output()).await.expect("the run ends in time").unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
