use super::text::grouped;
use super::*;
use crate::machine::{IDLE, OTHERS};

fn percentiles(p50_ms: f64) -> Percentiles {
    Percentiles { count: 1_000, p50_ms, p90_ms: 2.0 * p50_ms, p99_ms: 4.0 * p50_ms, max_ms: 8.0 * p50_ms }
}

fn counts(statements: f64) -> Counts {
    Counts {
        statements,
        commits: statements / 10.0,
        wal_bytes: statements * 1_000.0,
        log_rows: statements / 20.0,
        kafka_produce: statements / 5.0,
        ..Counts::default()
    }
}

fn work() -> Work {
    Work { seconds: 10.0, parts: [(KAFKA, 4.0), (POSTGRESQL, 2.0), (OTHERS, 1.0), (IDLE, 3.0)].into() }
}

/// A loop of which only some figures matter.
fn looped(per_order: Counts, accept: Percentiles, settle: Percentiles) -> Loop {
    Loop {
        rate_per_s: None,
        lines: None,
        orders: 400.0,
        accepted_per_s: 0.0,
        settled_per_s: 0.0,
        accepted_per_t: 0.0,
        settled_per_t: 0.0,
        settled_in_s: 7.27,
        settle_p50_ms: 98.0,
        settle_p99_ms: 136.0,
        accept_p50_ms: 4.0,
        cores: 1.25,
        statements_per_order: 133.0,
        commits_per_order: 13.3,
        wal_bytes_per_order: 133_000.0,
        kafka_requests_per_order: 26.6,
        per_order,
        accept,
        settle,
        delay: percentiles(0.05),
        batches: BTreeMap::new(),
        work: work(),
    }
}

fn report() -> Report {
    Report {
        ok: true,
        at: Timestamp::UNIX_EPOCH,
        parameters: Parameters {
            args: RunArgs {
                orders: 20_000,
                warm_up: 2_000,
                long_orders: 1_000,
                concurrency: 64,
                seconds: 10,
                rest_seconds: 10,
                rate: None,
                open_seconds: 20,
                users: 500,
                products: 1_000,
                seed: 1,
                partitions: Some(12),
                json: None,
                keep: false,
            },
            pgbench_scale: 20,
            pgbench_clients: 8,
            pgbench_threads: 2,
            pgbench_protocol: "prepared",
            sample_every: 10,
        },
        versions: Versions {
            ordermill: "0.1.0",
            postgresql: "15.1".to_owned(),
            postgresql_settings: BTreeMap::new(),
            kafka: "4.0.0",
        },
        machine: Machine { cores: 2, memory_mib: 24_000, processor: "a processor".to_owned() },
        pgbench: PgbenchRates {
            before_per_s: 5_000.0,
            after_per_s: 6_000.0,
            t_per_s: 5_500.0,
            others_cores: [0.25, 0.5],
        },
        at_rest: AtRest { seconds: 10.0, per_s: counts(90.0), work: work() },
        rates: vec![Loop {
            rate_per_s: Some(20.0),
            ..looped(counts(133.0), percentiles(4.0), percentiles(98.0))
        }],
        shares: Shares { postgres_share: 0.8, ordermill_share: 0.9, kafka_share: 0.3 },
        wal_bytes_per_order: 13_400.0,
        long_orders: Loop {
            lines: Some(50),
            accepted_per_s: 1_000.0,
            settled_per_s: 550.0,
            ..looped(counts(5.0), percentiles(40.0), percentiles(400.0))
        },
        closed_loop: Loop {
            accepted_per_s: 11_000.0,
            settled_per_s: 2_750.0,
            accepted_per_t: 2.0,
            settled_per_t: 0.5,
            batches: [("stock".to_owned(), Batches { count: 80.0, size_mean: 500.0, ms_mean: Some(41.26) })]
                .into(),
            ..looped(counts(13.5), percentiles(5.0), percentiles(500.0))
        },
        open_loop: Loop {
            rate_per_s: Some(825.0),
            orders: 16_500.0,
            ..looped(counts(13.5), percentiles(1.25), percentiles(60.0))
        },
        replay: ReplayRates {
            events: 400_000,
            jobs: 2,
            read_per_s: 500_000.0,
            replayed_per_s: 100_000.0,
            replayed_per_read: 0.2,
        },
        orders: OrderCounts { sent: 38_500, accepted: 38_500, confirmed: 38_500, by_status: BTreeMap::new() },
        errors: BTreeMap::new(),
        verify: Verified { ok: true, checks: 9, failed: Vec::new() },
    }
}

/// The cells of the row that begins with `name`.
fn row(text: &str, name: &str) -> Vec<String> {
    let prefix = format!("| {name} ");
    let line =
        text.lines().find(|line| line.starts_with(&prefix)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.split('|').skip(2).map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn rates_are_shown_as_multiples_of_what_postgresql_does() {
    let text = report().to_string();
    assert_eq!(row(&text, "pgbench before"), ["5,000/s", "0.91 T", "0.25"]);
    assert_eq!(row(&text, "T, their mean"), ["5,500/s", "1.00 T"]);
    assert_eq!(row(&text, "accepted, closed loop"), ["11,000/s", "2.00 T", "0.10"]);
    assert_eq!(row(&text, "settled, closed loop"), ["2,750/s", "0.50 T", "0.10"]);
    assert_eq!(row(&text, "CONFIRMED, all phases"), ["38,500 of 38,500"]);
    assert!(text.ends_with("\nok"), "{text}");
}

#[test]
fn latencies_are_in_milliseconds_and_say_how_many_were_measured() {
    let text = report().to_string();
    assert_eq!(row(&text, "accept, open loop, 825/s"), ["1,000", "1.2", "2.5", "5.0", "10.0"]);
    assert_eq!(row(&text, "settle, open loop, 825/s"), ["1,000", "60.0", "120.0", "240.0", "480.0"]);
    assert_eq!(row(&text, "settle, 20/s"), ["1,000", "98.0", "196.0", "392.0", "784.0"]);
}

#[test]
fn processors_are_shown_as_busy_cores_and_by_order_with_the_others_last() {
    let text = report().to_string();
    let text = &text[text.find("processors, closed loop").unwrap()..];
    assert_eq!(row(text, "Kafka"), ["0.40", "200", "0.30"]);
    assert_eq!(row(text, "idle"), ["0.30", "150"]);
    let at = |part: &str| text.find(part).unwrap();
    assert!(at("| Kafka") < at("| others on this machine") && at("| others on this machine") < at("| idle"));
}

#[test]
fn the_cost_of_an_order_is_shown_for_each_phase_with_what_rest_costs() {
    let text = report().to_string();
    let cost = &text[text.find("counts for each order").unwrap()..];
    assert_eq!(row(cost, "20/s"), ["133.0", "13.3", "133,000", "0.0", "6.7", "26.6", "0.0", "0.0"]);
    assert_eq!(row(cost, "closed loop")[0], "13.5");
    assert_eq!(row(cost, "orders of 50 lines")[0], "5.0");
    assert_eq!(row(cost, "at rest, a second (taken off above)")[0], "90.0");
    let cores = &text[text.find("busy cores").unwrap()..];
    assert_eq!(row(cores, "20/s"), ["0.60", "0.00", "0.20", "0.40", "0.00", "0.10"]);
}

#[test]
fn a_share_is_the_time_of_an_order_by_that_of_a_transaction_on_all_processors() {
    let closed = report().closed_loop;
    let shares = Shares::of(&closed, 10_000, 2, 5_000.0);
    // 400 and 200 µs of an order by 400 µs of a transaction.
    assert_eq!(shares, Shares { postgres_share: 0.5, ordermill_share: 0.0, kafka_share: 1.0 });
}

#[test]
fn the_settings_of_the_server_are_shown() {
    let mut report = report();
    report.versions.postgresql_settings =
        [("fsync".to_owned(), "on".to_owned()), ("max_wal_size".to_owned(), "4GB".to_owned())].into();
    assert!(report.to_string().contains("\nfsync=on, max_wal_size=4GB\n"));
}

#[test]
fn batches_are_shown_with_their_mean_size() {
    assert_eq!(row(&report().to_string(), "stock"), ["80", "500.0", "41.3"]);
}

#[test]
fn the_replay_is_shown_as_a_share_of_plain_reading() {
    let text = report().to_string();
    assert_eq!(row(&text, "plainly read"), ["400,000", "500,000", "1.00"]);
    assert_eq!(row(&text, "replayed, 2 jobs"), ["400,000", "100,000", "0.20"]);
    assert_eq!(serde_json::to_value(report()).unwrap()["replay"]["replayed_per_read"], 0.2);
}

#[test]
fn what_went_wrong_is_named_and_the_verdict_is_last() {
    let mut report = report();
    report.ok = false;
    report.errors = [("503 OVERLOADED".to_owned(), 1_234)].into();
    report.verify = Verified { ok: false, checks: 9, failed: vec!["stock: product 1: …".to_owned()] };
    let text = report.to_string();
    assert_eq!(row(&text, "errors"), ["1,234"]);
    assert_eq!(row(&text, "verify"), ["NOT OK, 9 checks"]);
    let last: Vec<&str> = text.lines().rev().take(3).collect();
    assert_eq!(last, ["NOT OK", "verify: stock: product 1: …", "error: 503 OVERLOADED: 1,234"]);
}

#[test]
fn the_json_has_the_figures_unrounded() {
    let json = serde_json::to_value(report()).unwrap();
    assert_eq!(json["closed_loop"]["settled_per_t"], 0.5);
    assert_eq!(json["closed_loop"]["batches"]["stock"]["ms_mean"], 41.26);
    assert_eq!(json["open_loop"]["settle"]["p99_ms"], 240.0);
    assert_eq!(json["parameters"]["connections"], 64);
    assert_eq!(json["postgres_share"], 0.8);
    assert_eq!(json["wal_bytes_per_order"], 13_400.0);
    let rate = &json["rates"][0];
    for (name, value) in [
        ("rate_per_s", 20.0),
        ("settle_p50_ms", 98.0),
        ("settle_p99_ms", 136.0),
        ("accept_p50_ms", 4.0),
        ("cores", 1.25),
        ("statements_per_order", 133.0),
        ("commits_per_order", 13.3),
        ("wal_bytes_per_order", 133_000.0),
        ("kafka_requests_per_order", 26.6),
    ] {
        assert_eq!(rate[name], value, "{name}");
    }
}

#[test]
fn thousands_are_set_apart() {
    for (figure, text) in [(0.4, "0"), (999.0, "999"), (1_000.0, "1,000"), (1_234_567.8, "1,234,568")] {
        assert_eq!(grouped(figure), text);
    }
}
