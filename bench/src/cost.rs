//! What orders cost, in things that can be counted: statements, commits, bytes of the write-ahead log, rows of the event
//! log, requests to Kafka and records from it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use derive_more::{Div, Mul, Sub};
use reqwest::Client;
use serde::Serialize;
use sqlx::PgPool;

use crate::figures::Figures;
use crate::server;

/// So that figures of Kafka's clients are at most so old, `ordermill up` is to be given this.
pub const KAFKA_SETTING: (&str, &str) = ("statistics.interval.ms", "1000");
/// A report that arrives just after a moment may have been written just before it; the second one was not.
const REPORTS: f64 = 2.0;
/// How long every client may take for that.
const REPORTS_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// By when every backend has told what it has committed: it tells when it goes idle, and at rest the pool of the
/// pipeline still goes through all its connections within a second.
const COMMITS_TOLD_WITHIN: Duration = Duration::from_secs(2);

/// Counts of something: of a phase, of a second, of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Sub, Mul, Div)]
pub struct Counts {
    /// Statements that PostgreSQL executed, those that begin and end transactions among them.
    pub statements: f64,
    /// Transactions that it committed, those of single statements among them.
    pub commits: f64,
    /// Bytes of its write-ahead log.
    pub wal_bytes: f64,
    /// Events.
    pub events: f64,
    /// Rows of the event log, each of which has the events of one statement.
    pub log_rows: f64,
    /// `Produce` and `Fetch` requests of relay and consumers: the two below together.
    pub kafka_requests: f64,
    /// `Produce` requests.
    pub kafka_produce: f64,
    /// `Fetch` requests.
    pub kafka_fetch: f64,
    /// Requests of all kinds: heartbeats, metadata, committed offsets, too.
    pub kafka_requests_of_all_kinds: f64,
    /// Records sent.
    pub kafka_sent: f64,
    /// Records delivered to consumers; several groups read the same one.
    pub kafka_delivered: f64,
}

/// Counts between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spent {
    /// How long that was.
    pub seconds: f64,
    /// What was counted.
    pub counts: Counts,
}

/// Everything that was counted up to a moment.
#[derive(Clone, Debug)]
pub struct Reading {
    at: Instant,
    counts: Counts,
    pub(crate) figures: Figures,
}

/// Where the counts are read.
#[derive(Clone, Debug)]
pub struct Meter {
    pool: PgPool,
    client: Client,
    api_url: String,
    /// Whether clients of Kafka run there that tell their figures.
    has_kafka: bool,
}

impl Counts {
    /// What Kafka's clients have counted so far.
    fn of_kafka(figures: &Figures) -> Counts {
        let requests = |label| figures.total("ordermill_kafka_requests_total", label);
        let (produce, fetch) = (requests(r#"request="Produce""#), requests(r#"request="Fetch""#));
        Counts {
            kafka_requests: produce + fetch,
            kafka_produce: produce,
            kafka_fetch: fetch,
            kafka_requests_of_all_kinds: requests(""),
            kafka_sent: figures.total("ordermill_kafka_records_sent_total", ""),
            kafka_delivered: figures.total("ordermill_kafka_records_received_total", ""),
            ..Counts::default()
        }
    }
}

impl Spent {
    /// Counts of one second.
    #[must_use]
    pub fn per_second(&self) -> Counts {
        self.counts / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Counts of one of `orders`, less what the same time costs at rest. What waits less while it works may come out
    /// below 0, as the requests for records do: at rest every consumer asks in vain.
    #[must_use]
    pub fn per_order(&self, orders: f64, at_rest: &Spent) -> Counts {
        (self.counts - at_rest.per_second() * self.seconds) / orders.max(1.0)
    }
}

impl Reading {
    /// What was counted from then to now.
    #[must_use]
    pub fn since(&self, then: &Reading) -> Spent {
        Spent { seconds: self.at.duration_since(then.at).as_secs_f64(), counts: self.counts - then.counts }
    }
}

impl Meter {
    /// Has the server's statements be counted, in the database of `pool`; the rest is counted by the pipeline whose API
    /// is at `api_url`, and which must run as a whole in that process.
    ///
    /// # Errors
    /// Where the server does not count statements.
    pub async fn new(pool: PgPool, api_url: &str) -> Result<Meter> {
        server::count_statements(&pool).await?;
        let client = Client::builder().no_proxy().timeout(REPORTS_WITHIN).build()?;
        let api_url = api_url.to_owned();
        Ok(Meter { pool, client, api_url, has_kafka: true })
    }

    /// The same where the API runs alone, and no client of Kafka that tells its figures.
    ///
    /// # Errors
    /// Where the server does not count statements.
    pub(crate) async fn of_api_alone(pool: PgPool, api_url: &str) -> Result<Meter> {
        Ok(Meter { has_kafka: false, ..Meter::new(pool, api_url).await? })
    }

    /// What has been counted, once everything is told that has happened up to now; so it takes some seconds. The
    /// pipeline is to be at rest, or what it does meanwhile is counted in part.
    ///
    /// # Errors
    /// Where the server or the pipeline does not answer, or Kafka's clients tell nothing.
    pub async fn read(&self) -> Result<Reading> {
        let asked = Instant::now();
        let first = self.figures().await?.by_client("ordermill_kafka_client_reports_total");
        let figures = loop {
            let figures = self.figures().await?;
            let reports = figures.by_client("ordermill_kafka_client_reports_total");
            let has_told = !self.has_kafka || has_told(&first, &reports);
            if has_told && asked.elapsed() >= COMMITS_TOLD_WITHIN {
                break figures;
            }
            if asked.elapsed() > REPORTS_WITHIN {
                bail!("not every client of Kafka tells its figures: {first:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let (statements, commits, wal_bytes, events, log_rows) = server::counts(&self.pool).await?;
        let of_kafka = Counts::of_kafka(&figures);
        let counts = Counts { statements, commits, wal_bytes, events, log_rows, ..of_kafka };
        Ok(Reading { at: Instant::now(), counts, figures })
    }

    async fn figures(&self) -> Result<Figures> {
        Figures::read(&self.client, &self.api_url).await
    }
}

/// Whether every client of Kafka has told its figures since.
fn has_told(then: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>) -> bool {
    let told = |(client, now): (&String, &f64)| now - then.get(client).copied().unwrap_or(0.0) >= REPORTS;
    !now.is_empty() && now.iter().all(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(seconds: f64, statements: f64) -> Spent {
        Spent { seconds, counts: Counts { statements, ..Counts::default() } }
    }

    #[test]
    fn what_the_same_time_costs_at_rest_is_taken_off_every_order() {
        let at_rest = spent(10.0, 400.0);
        let per_order = spent(20.0, 2_800.0).per_order(100.0, &at_rest);
        assert_eq!(per_order, Counts { statements: 20.0, ..Counts::default() });
    }

    #[test]
    fn no_order_costs_nothing_rather_than_infinitely_much() {
        assert_eq!(spent(10.0, 400.0).per_order(0.0, &spent(10.0, 400.0)), Counts::default());
    }

    #[test]
    fn a_reading_waits_for_two_reports_of_every_client() {
        let reports = |stock: f64, relay: f64| {
            BTreeMap::from([("stock".to_owned(), stock), ("relay".to_owned(), relay)])
        };
        assert!(!has_told(&reports(5.0, 1.0), &reports(7.0, 2.0)));
        assert!(has_told(&reports(5.0, 1.0), &reports(7.0, 3.0)));
        assert!(!has_told(&BTreeMap::new(), &BTreeMap::new()), "nothing tells nothing");
    }

    #[test]
    fn requests_of_all_clients_are_added_up_by_kind() {
        let reading = |fetches: u32| {
            let figures = Figures::parse(&format!(
                "ordermill_kafka_requests_total{{client=\"stock\",request=\"Fetch\"}} {fetches}\n\
                 ordermill_kafka_requests_total{{client=\"orders\",request=\"Fetch\"}} {fetches}\n\
                 ordermill_kafka_requests_total{{client=\"orders\",request=\"Heartbeat\"}} {fetches}\n\
                 ordermill_kafka_requests_total{{client=\"relay\",request=\"Produce\"}} 7\n"
            ));
            Reading { at: Instant::now(), counts: Counts::of_kafka(&figures), figures }
        };
        let counts = reading(30).since(&reading(10)).counts;
        let told = (counts.kafka_fetch, counts.kafka_produce, counts.kafka_requests_of_all_kinds);
        assert_eq!(told, (40.0, 0.0, 60.0));
        assert_eq!(counts.kafka_requests, 40.0);
    }
}
