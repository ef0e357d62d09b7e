//! How fast the relay publishes what waits, against a bare producer that sends the same records.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ordermill_pipeline::audit;
use ordermill_schemas::Topic;
use ordermill_stack::Child;
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::apart::{self, Apart};
use crate::bare::{self, Reader};
use crate::stack::last_line;

/// How long the relay may take.
const WITHIN: Duration = Duration::from_secs(300);
/// How often it is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Where the bare producer sends to.
const BARE_TOPIC: &str = "bare";

/// A backlog as it was published.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Backlog {
    /// Events that waited.
    pub events: u64,
    /// Bytes of their records: keys, payloads and headers.
    pub bytes: u64,
    /// Events a second, from the first that was in Kafka to the last.
    pub relayed_per_s: f64,
    /// The same records a second, sent by a bare producer.
    pub produced_per_s: f64,
    /// The former as a share of the latter.
    pub relayed_per_produced: f64,
}

/// Has a relay publish what was accepted, then sends it again without one.
///
/// # Errors
/// Where it can't be measured.
pub(crate) async fn measure(apart: &mut Apart) -> Result<Backlog> {
    let mut connection = apart.ground.pool.acquire().await?;
    let events = audit::count(&mut connection).await?;
    drop(connection);
    let (kafka, partitions) = (apart.connections().kafka.clone(), apart.partitions);
    let topics: Vec<String> = Topic::ALL.iter().map(|topic| kafka.full_name(topic.name())).collect();
    let relay = apart.start_relay().await?;
    let reader = Reader::new(&kafka, &topics, partitions)?;
    let watch = move || watch(&reader, &relay, events).map(|rate| (rate, reader, relay));
    let (relayed_per_s, reader, relay) = spawn_blocking(watch).await.context("the watch broke off")??;
    apart::stop(relay, "the relay").await?;
    let topic = kafka.full_name(BARE_TOPIC);
    bare::make_topic(&kafka, &topic, partitions).await?;
    let produce = move || {
        let records = reader.read(events)?;
        let bytes = records.iter().map(bytes).sum::<u64>();
        Ok::<_, anyhow::Error>((bytes, bare::produce(&kafka, &topic, records, partitions)?))
    };
    let (bytes, produced_per_s) = spawn_blocking(produce).await.context("the producer broke off")??;
    let relayed_per_produced = relayed_per_s / produced_per_s;
    Ok(Backlog { events, bytes, relayed_per_s, produced_per_s, relayed_per_produced })
}

/// Looks until so many records are in Kafka, and answers how many came a second after the first ones were seen: what the
/// relay does before is starting, not publishing.
fn watch(reader: &Reader, relay: &Child, events: u64) -> Result<f64> {
    let began_at = Instant::now();
    let mut first: Option<(Instant, u64)> = None;
    loop {
        let count = reader.count()?;
        let now = Instant::now();
        if count >= events {
            return Ok(first.map_or(f64::INFINITY, |(at, seen)| rate(events - seen, now - at)));
        }
        if count > 0 && first.is_none() {
            first = Some((now, count));
        }
        if !relay.is_alive() {
            bail!("the relay has stopped: {}", last_line(relay));
        }
        if began_at.elapsed() > WITHIN {
            bail!("after {} s the relay has published {count} of {events} events", WITHIN.as_secs());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(f64::EPSILON)
}

/// What a record carries.
fn bytes(record: &OwnedMessage) -> u64 {
    let headers: usize = record.headers().map_or(0, |headers| {
        headers.iter().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum()
    });
    (record.key().map_or(0, <[u8]>::len) + record.payload().map_or(0, <[u8]>::len) + headers) as u64
}
