//! What it costs to sign records and to verify them, in processor time of one thread:
//! `cargo run --release -p ordermill-pipeline --example authentication`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, for people to look at")]

use std::hint::black_box;

use ordermill_pipeline::authenticity::{Covered, Key, RootSecret};

/// How many records are signed and verified for each figure.
const RECORDS: u32 = 200_000;

fn main() {
    let key = Key::derive(&RootSecret::generate().unwrap(), &"1-1-0123456789abcdef".parse().unwrap());
    let headers = [
        "1-1234567800001",
        "1-1234567500001",
        "01a1fbea-82a4-7674-aeda-29815d34b7ad",
        "payment.completed",
        "urn:ordermill:schema:payment.completed:1",
        "2026-11-21T16:09:52.614123Z",
        "3",
        "01a1fbea-82a4-7674-aeda-29815d34b7ad",
        "worker:payments",
        "01a1fbea-82a4-7674-aeda-29815d34b7ad",
        "65762ca2-2b37-5ecf-8d07-53907852f3f4",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ];
    println!("payload   sign    verify  both    (processor time a record, µs)");
    for payload in [100, 250, 500, 1_000, 5_000] {
        let payload = vec![b'x'; payload];
        let covered = Covered {
            topic: "payments",
            partition: 3,
            key: Some(headers[2].as_bytes()),
            payload: Some(&payload),
            headers: headers.map(|value| Some(value.as_bytes())),
        };
        let mac = key.sign(&covered);
        let sign = cost_us(|| {
            black_box(key.sign(black_box(&covered)));
        });
        let verify = cost_us(|| assert!(key.verifies(black_box(&covered), mac.as_bytes())));
        println!("{:>5} B  {sign:6.3}  {verify:6.3}  {:6.3}", payload.len(), sign + verify);
    }
}

fn cost_us(mut work: impl FnMut()) -> f64 {
    let before = processor_ns();
    for _ in 0..RECORDS {
        work();
    }
    (processor_ns() - before) / f64::from(RECORDS) / 1_000.0
}

/// How long this thread has been on a processor.
fn processor_ns() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
