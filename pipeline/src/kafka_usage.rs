//! How much relay and consumers ask of Kafka, from the statistics that Kafka's client tells every few seconds.
//!
//! The client tells totals since it was made, by broker. What is counted is what came since its last report, so that a
//! counter goes on where a member joins anew with a new client. What a client has done since its last report is not
//! counted yet; `reports` tells who waits for that.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Metric, Registry};
use rdkafka::{ClientContext, Statistics};

/// How often a client tells, in librdkafka's words.
pub(crate) const STATISTICS_INTERVAL: (&str, &str) = ("statistics.interval.ms", "5000");

/// `client` is `relay`, or the consumer's group, without prefix; `request` is what Kafka calls it: `Produce`, `Fetch`,
/// `Heartbeat`.
type Labels = Vec<(&'static str, String)>;

/// What the clients of this process ask of Kafka. Cloning shares the figures.
#[derive(Clone, Debug, Default)]
pub struct KafkaUsage {
    requests: Family<Labels, Counter>,
    records_sent: Family<Labels, Counter>,
    records_received: Family<Labels, Counter>,
    reports: Family<Labels, Counter>,
}

impl KafkaUsage {
    pub(crate) fn register(registry: &mut Registry) -> KafkaUsage {
        let r = registry;
        KafkaUsage {
            requests: registered(r, "kafka_requests", "Requests sent to Kafka"),
            records_sent: registered(r, "kafka_records_sent", "Records sent to Kafka, repeats included"),
            records_received: registered(r, "kafka_records_received", "Records that Kafka delivered"),
            reports: registered(r, "kafka_client_reports", "Times that the client told its figures"),
        }
    }

    /// What counts the figures of one client, from its beginning on.
    pub(crate) fn of(&self, client: &str) -> ClientUsage {
        ClientUsage { client: client.to_owned(), usage: self.clone(), last: Mutex::default() }
    }
}

/// A figure that is shown under that name.
pub(crate) fn registered<F: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> F {
    let figure = F::default();
    registry.register(name, help, figure.clone());
    figure
}

/// Totals of a client since it was made.
#[derive(Debug, Default)]
struct Totals {
    requests: HashMap<String, i64>,
    sent: i64,
    received: i64,
}

impl Totals {
    fn of(statistics: &Statistics) -> Totals {
        let mut requests: HashMap<String, i64> = HashMap::new();
        for (request, count) in statistics.brokers.values().flat_map(|broker| &broker.req) {
            // The client tells every kind that it knows, most of them never sent.
            if *count > 0 {
                *requests.entry(request.clone()).or_default() += count;
            }
        }
        Totals { requests, sent: statistics.txmsgs, received: statistics.rxmsgs }
    }
}

/// Counts what one client does.
pub(crate) struct ClientUsage {
    client: String,
    usage: KafkaUsage,
    last: Mutex<Totals>,
}

impl ClientUsage {
    /// Counts what came since the last report.
    pub(crate) fn report(&self, statistics: &Statistics) {
        let now = Totals::of(statistics);
        // A poisoned lock means that a callback panicked; totals are plain data and still whole.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (usage, client) = (&self.usage, vec![("client", self.client.clone())]);
        for (request, total) in &now.requests {
            let labels = [client.as_slice(), &[("request", request.clone())]].concat();
            let before = last.requests.get(request).copied().unwrap_or(0);
            usage.requests.get_or_create(&labels).inc_by(grown(before, *total));
        }
        usage.records_sent.get_or_create(&client).inc_by(grown(last.sent, now.sent));
        usage.records_received.get_or_create(&client).inc_by(grown(last.received, now.received));
        usage.reports.get_or_create(&client).inc();
        *last = now;
    }
}

impl ClientContext for ClientUsage {
    fn stats(&self, statistics: Statistics) {
        self.report(&statistics);
    }
}

/// By how much a total has grown; one of a broker that the client has given up takes its past with it.
fn grown(before: i64, now: i64) -> u64 {
    u64::try_from(now.saturating_sub(before)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use rdkafka::statistics::Broker;

    use super::*;

    fn statistics(fetches: &[i64], received: i64) -> Statistics {
        let broker = |fetches: &i64| Broker {
            req: [("Fetch".to_owned(), *fetches), ("Produce".to_owned(), 0)].into(),
            ..Broker::default()
        };
        let brokers = fetches.iter().enumerate().map(|(n, fetches)| (n.to_string(), broker(fetches)));
        Statistics { brokers: brokers.collect(), rxmsgs: received, ..Statistics::default() }
    }

    fn told(registry: &Registry) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    }

    #[test]
    fn what_came_since_the_last_report_is_counted_over_all_brokers() {
        let mut registry = Registry::default();
        let usage = KafkaUsage::register(&mut registry);
        let stock = usage.of("stock");
        stock.report(&statistics(&[3, 4], 10));
        stock.report(&statistics(&[5, 4], 12));
        assert_eq!(
            told(&registry),
            [
                r#"kafka_client_reports_total{client="stock"} 2"#,
                r#"kafka_records_received_total{client="stock"} 12"#,
                r#"kafka_records_sent_total{client="stock"} 0"#,
                r#"kafka_requests_total{client="stock",request="Fetch"} 9"#,
            ]
        );
    }

    #[test]
    fn a_counter_goes_on_where_a_new_client_begins_at_nothing() {
        let mut registry = Registry::default();
        let usage = KafkaUsage::register(&mut registry);
        usage.of("stock").report(&statistics(&[7], 10));
        usage.of("stock").report(&statistics(&[2], 1));
        let told = told(&registry);
        assert!(
            told.contains(&r#"kafka_requests_total{client="stock",request="Fetch"} 9"#.to_owned()),
            "{told:?}"
        );
    }

    #[test]
    fn a_broker_that_is_given_up_takes_nothing_back() {
        let mut registry = Registry::default();
        let usage = KafkaUsage::register(&mut registry);
        let stock = usage.of("stock");
        stock.report(&statistics(&[7, 3], 10));
        stock.report(&statistics(&[8], 10));
        let told = told(&registry);
        assert!(
            told.contains(&r#"kafka_requests_total{client="stock",request="Fetch"} 10"#.to_owned()),
            "{told:?}"
        );
    }
}
