//! What an order may cost, in things that are counted: they are the same on every machine, and nearly the same on a busy
//! one.

use std::time::Duration;

use crate::pipeline::Pipeline;

/// Orders that are counted, so many a second.
const ORDERS: usize = 200;
const RATE_PER_S: usize = 20;
/// Orders before them, so that connections, statements and pages are there.
const ORDERS_BEFORE: usize = 40;
/// How long the pipeline is watched at rest.
const REST: Duration = Duration::from_secs(6);

/// What an order may cost at most at 20 a second, less what the same time costs at rest: about 15 % more than it does on
/// a machine that has nothing else to do. A busy machine makes larger batches, which cost less, so the bounds hold there,
/// too, and bind less. Whoever makes an order cheaper lowers them.
const BUDGET: Budget = Budget {
    statements: 11.0,
    commits: 9.5,
    // Without whole pages. Every transaction adds about 200 bytes, so the fewer orders share one, the more it is.
    wal_bytes: 17_500.0,
    // Of nine events in a saga some are written together.
    log_rows: 8.0,
    // `Produce`; `Fetch` costs what it costs at rest.
    kafka_requests: 10.0,
};

struct Budget {
    statements: f64,
    commits: f64,
    wal_bytes: f64,
    log_rows: f64,
    kafka_requests: f64,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_stays_within_its_budget_at_twenty_a_second() {
    let pipeline = Pipeline::open().await;
    pipeline.place("before", ORDERS_BEFORE, RATE_PER_S).await;
    let begin = pipeline.meter.read().await.unwrap();
    tokio::time::sleep(REST).await;
    let rested = pipeline.meter.read().await.unwrap();
    let load = pipeline.place("budget", ORDERS, RATE_PER_S).await;
    let placed = pipeline.meter.read().await.unwrap();
    pipeline.stop().await;

    assert_eq!((load.accepted, load.errors.is_empty()), (ORDERS as u64, true), "{load:?}");
    let at_rest = rested.since(&begin);
    let order = placed.since(&rested).per_order(ORDERS as f64, &at_rest);
    println!("an order costs {order:#?}, and a second of rest {:#?}", at_rest.per_second());
    for (what, cost, budget) in [
        ("statements", order.statements, BUDGET.statements),
        ("commits", order.commits, BUDGET.commits),
        ("bytes of the write-ahead log", order.wal_bytes, BUDGET.wal_bytes),
        ("rows of the event log", order.log_rows, BUDGET.log_rows),
        ("requests to Kafka, Produce and Fetch", order.kafka_requests, BUDGET.kafka_requests),
    ] {
        assert!(cost > 0.0 && cost <= budget, "an order costs {cost:.1} {what}; its budget is {budget}");
    }
}
