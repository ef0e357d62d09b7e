use super::table::grouped;
use super::*;
use crate::args::StackArgs;
use crate::figures::Batches;
use crate::machine::{IDLE, KAFKA, OTHERS, POSTGRESQL};

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
        connections: 64,
        orders: 20_000.0,
        accepted_per_s: 0.0,
        settled_per_s: 0.0,
        accepted_per_t: None,
        settled_per_t: None,
        settled_in_s: Some(7.27),
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
        settle_in_database: percentiles(settle.p50_ms / 2.0),
        delay: percentiles(0.05),
        batches: BTreeMap::new(),
        work: work(),
    }
}

fn closed() -> Loop {
    Loop {
        accepted_per_s: 11_000.0,
        settled_per_s: 2_750.0,
        accepted_per_t: Some(2.0),
        settled_per_t: Some(0.5),
        wal_bytes_per_order: 13_400.0,
        batches: [("stock".to_owned(), Batches { count: 80.0, size_mean: 500.0, ms_mean: Some(41.26) })]
            .into(),
        ..looped(counts(13.5), percentiles(5.0), percentiles(500.0))
    }
}

pub(crate) fn measured() -> Measured {
    let at = |rate_per_s, per_order, settle| Loop {
        rate_per_s: Some(rate_per_s),
        ..looped(counts(per_order), percentiles(4.0), percentiles(settle))
    };
    let settled = |settled_per_s| Some(Loop { settled_per_s, ..closed() });
    let alone = |connections, accepted_per_s| Loop {
        connections,
        accepted_per_s,
        settled_in_s: None,
        settle_in_database: Percentiles::default(),
        ..looped(counts(1.0), percentiles(5.0), Percentiles::default())
    };
    Measured {
        pgbench: Some(PgbenchRates {
            before_per_s: 5_000.0,
            after_per_s: 6_000.0,
            t_per_s: 5_500.0,
            others_cores: [0.25, 0.5],
        }),
        at_rest: Some(AtRest { seconds: 10.0, per_s: counts(90.0), work: work() }),
        rates: vec![at(20.0, 133.0, 98.0), at(1_375.0, 13.5, 60.0)],
        open_loop: Some(at(1_375.0, 13.5, 60.0)),
        closed_loop: Some(closed()),
        closed_loop_256: Some(Loop { connections: 256, ..closed() }),
        hot_product: settled(2_500.0),
        hot_user: settled(2_800.0),
        long_orders: Some(Loop {
            lines: Some(50),
            accepted_per_s: 1_000.0,
            settled_per_s: 550.0,
            ..looped(counts(5.0), percentiles(40.0), percentiles(400.0))
        }),
        claims: Some(Claims {
            claims: 20_000,
            coupons: 200,
            decided_by_worker: 5_000,
            refused_at_once: 15_000,
            claims_per_s: 5_500.0,
            work: work(),
            errors: Vec::new(),
        }),
        accepted_alone: vec![alone(64, 8_000.0), alone(256, 11_000.0)],
        backlog: Some(Backlog {
            events: 40_000,
            bytes: 50_000_000,
            relayed_per_s: 40_000.0,
            produced_per_s: 160_000.0,
            relayed_per_produced: 0.25,
        }),
        round_trip: Some(percentiles(0.5)),
        replay: Some(ReplayRates {
            events: 400_000,
            jobs: 2,
            read_per_s: 500_000.0,
            replayed_per_s: 100_000.0,
            replayed_per_read: 0.2,
        }),
        memory: Memory { rss_mb: 200.0, rss_max_mb: 240.0 },
        shares: Some(Shares { postgres_share: 0.8, ordermill_share: 0.9, kafka_share: 0.3 }),
    }
}

fn report() -> Report {
    report_of(measured())
}

fn report_of(measured: Measured) -> Report {
    Report {
        ok: true,
        at: Timestamp::UNIX_EPOCH,
        parameters: Parameters {
            args: RunArgs {
                only: Vec::new(),
                orders: 20_000,
                warm_up: 2_000,
                hot_orders: 10_000,
                long_orders: 1_000,
                alone_orders: 20_000,
                concurrency: 64,
                seconds: 10,
                rest_seconds: 10,
                rate: None,
                open_seconds: 20,
                open_orders: 1_000,
                users: 500,
                products: 1_000,
                claimants: 20_000,
                coupons: 200,
                round_trips: 2_000,
                seed: 1,
                stack: StackArgs { partitions: Some(12), secure: false, keep: false },
                json: None,
                svg: None,
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
        steps: vec![Took { name: "closed-64".to_owned(), seconds: 12.34 }],
        headline: Headline::of(&measured),
        measured,
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
    assert_eq!(row(&text, "pgbench before"), ["5,000/s", "others took 0.25 cores"]);
    assert_eq!(row(&text, "T, their mean"), ["5,500/s", "1.00 T"]);
    assert_eq!(row(&text, "accepted, 64 connections"), ["11,000/s", "2.00 T"]);
    assert_eq!(row(&text, "settled, 256 connections"), ["2,750/s", "0.50 T"]);
    assert_eq!(row(&text, "settled, one user"), ["2,800/s", "0.51 T"]);
    assert_eq!(row(&text, "accepted alone, 256 connections"), ["11,000/s", "2.00 T"]);
    assert_eq!(row(&text, "claims decided, 200 of 20,000"), ["5,500/s", "1.00 T"]);
    assert_eq!(row(&text, "CONFIRMED, all phases"), ["38,500 of 38,500"]);
    assert!(text.ends_with("\nok"), "{text}");
}

#[test]
fn what_has_something_bare_to_be_compared_with_is_shown_as_its_share() {
    let text = report().to_string();
    assert_eq!(row(&text, "relayed, 40,000 records that waited"), ["40,000/s", "0.25 of the bare producer"]);
    assert_eq!(row(&text, "replayed, 2 jobs"), ["100,000/s", "0.20 of plain reading"]);
    assert_eq!(row(&text, "Kafka and back, one record, p50"), ["0.50 ms", "p99 2.00 ms"]);
    assert_eq!(row(&text, "memory of the pipeline"), ["200 MB", "at most 240 MB"]);
    assert_eq!(row(&text, "cores at rest, all parts"), ["0.60"]);
}

#[test]
fn latencies_are_in_milliseconds_and_say_how_many_were_measured() {
    let text = report().to_string();
    assert_eq!(row(&text, "1,375/s: settle"), ["1,000", "60.0", "120.0", "240.0", "480.0"]);
    assert_eq!(row(&text, "20/s: accept"), ["1,000", "4.0", "8.0", "16.0", "32.0"]);
    assert_eq!(row(&text, "20/s: settle, in the database"), ["1,000", "49.0", "98.0", "196.0", "392.0"]);
    assert!(!text.contains("alone, 64 connections: settle"), "nobody settles them: {text}");
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
    assert_eq!(row(cost, "64 connections")[0], "13.5");
    assert_eq!(row(cost, "orders of 50 lines")[0], "5.0");
    assert_eq!(row(cost, "at rest, a second (taken off above)")[0], "90.0");
    let cores = &text[text.find("busy cores").unwrap()..];
    assert_eq!(row(cores, "20/s"), ["0.60", "0.00", "0.20", "0.40", "0.00", "0.00", "0.10"]);
}

#[test]
fn a_share_is_the_time_of_an_order_by_that_of_a_transaction_on_all_processors() {
    let closed = Loop { orders: 10_000.0, ..closed() };
    let shares = Shares::of(&closed, 2, 5_000.0);
    // 400 and 200 µs of an order by 400 µs of a transaction.
    assert_eq!(shares, Shares { postgres_share: 0.5, ordermill_share: 0.0, kafka_share: 1.0 });
}

#[test]
fn the_report_says_how_long_each_step_took() {
    assert_eq!(row(&report().to_string(), "closed-64"), ["12.3"]);
}

#[test]
fn of_what_was_not_measured_nothing_is_said() {
    let report = report_of(Measured { closed_loop: Some(closed()), ..Measured::default() });
    let text = report.to_string();
    assert_eq!(row(&text, "settled, 64 connections"), ["2,750/s"]);
    for name in ["pgbench", "claims", "replayed", "at rest", "20/s", "256"] {
        assert!(!text.contains(&format!("| {name}")), "{name}: {text}");
    }
    let json = serde_json::to_value(report).unwrap();
    assert_eq!(json["settled_per_s"], 2_750.0);
    for name in ["tpcb_tps", "claims_per_s", "idle_cores", "hot_user", "postgres_share"] {
        assert!(json.get(name).is_none(), "{name}");
    }
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
    assert_eq!(json["replay"]["replayed_per_read"], 0.2);
    assert_eq!(json["parameters"]["connections"], 64);
    assert_eq!(json["postgres_share"], 0.8);
    assert_eq!(json["wal_bytes_per_order"], 13_400.0);
    for (name, value) in [
        ("tpcb_tps", 5_500.0),
        ("accepted_per_s", 11_000.0),
        ("accepted_alone_per_s", 11_000.0),
        ("settled_per_s", 2_750.0),
        ("hot_product_settled_per_s", 2_500.0),
        ("hot_user_settled_per_s", 2_800.0),
        ("claims_per_s", 5_500.0),
        ("relay_events_per_s", 40_000.0),
        ("raw_produce_per_s", 160_000.0),
        ("raw_round_trip_p50_ms", 0.5),
        ("raw_round_trip_p99_ms", 2.0),
        ("replay_events_per_s", 100_000.0),
        ("log_read_events_per_s", 500_000.0),
        ("rss_mb", 200.0),
        ("idle_cores", 0.6),
    ] {
        let found = json[name].as_f64().unwrap_or_else(|| panic!("{name}"));
        assert!((found - value).abs() < 1e-9, "{name}: {found}");
    }
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
