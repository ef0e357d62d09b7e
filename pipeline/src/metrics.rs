//! What the pipeline counts and measures, for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::kafka_usage::KafkaUsage;

/// The consumer group that a figure is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GroupLabel {
    /// The group's name, without prefix.
    pub group: String,
}

/// Figures of relay and consumers. Cloning shares them.
#[derive(Clone, Debug)]
pub struct PipelineMetrics {
    /// Records that Kafka acknowledged.
    pub relay_records: Counter,
    /// Positions of the log that are final but not acknowledged by Kafka yet.
    pub relay_lag_positions: Gauge,
    /// How long the oldest cut has waited for open write transactions to end, in milliseconds.
    pub relay_fence_wait_ms: Gauge,
    /// 1 while this process publishes, 0 while it stands by.
    pub relay_leading: Gauge,
    /// How often the cursor was moved back: Kafka had lost records, or a consumer asked for some.
    pub relay_repeats: Counter,
    /// Records in a batch that was committed.
    pub batch_records: Family<GroupLabel, Histogram>,
    /// How long a batch took from the first statement to the commit, in seconds.
    pub batch_seconds: Family<GroupLabel, Histogram>,
    /// Batches that failed and were put off.
    pub retries: Family<GroupLabel, Counter>,
    /// Records that went to a dead-letter topic.
    pub dead_letters: Family<GroupLabel, Counter>,
    /// Messages that are put aside and not done with, in all processes.
    pub dead_letters_open: Family<GroupLabel, Gauge>,
    /// 1 while the group stands still because too much of what it reads can't be applied.
    pub halted: Family<GroupLabel, Gauge>,
    /// Records that were skipped because they had been applied before.
    pub skipped: Family<GroupLabel, Counter>,
    /// Records that the group has not applied yet, over this process's partitions.
    pub group_lag_records: Family<GroupLabel, Gauge>,
    /// What relay and consumers ask of Kafka.
    pub kafka_usage: KafkaUsage,
}

impl PipelineMetrics {
    /// Registers the figures under `ordermill_`.
    pub fn register(registry: &mut Registry) -> PipelineMetrics {
        let metrics = PipelineMetrics {
            relay_records: Counter::default(),
            relay_lag_positions: Gauge::default(),
            relay_fence_wait_ms: Gauge::default(),
            relay_leading: Gauge::default(),
            relay_repeats: Counter::default(),
            batch_records: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 2.0, 11))),
            batch_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_5, 2.0, 15))
            }),
            retries: Family::default(),
            dead_letters: Family::default(),
            dead_letters_open: Family::default(),
            halted: Family::default(),
            skipped: Family::default(),
            group_lag_records: Family::default(),
            kafka_usage: KafkaUsage::register(registry),
        };
        let m = metrics.clone();
        registry.register("relay_records", "Records acknowledged by Kafka", m.relay_records);
        registry.register("relay_lag_positions", "Final positions not published yet", m.relay_lag_positions);
        registry.register("relay_fence_wait_ms", "Wait for open transactions", m.relay_fence_wait_ms);
        registry.register("relay_leading", "1 while this process publishes", m.relay_leading);
        registry.register("relay_repeats", "Times that records were published again", m.relay_repeats);
        registry.register("batch_records", "Records in a committed batch", m.batch_records);
        registry.register("batch_seconds", "Time of a batch to its commit", m.batch_seconds);
        registry.register("batch_retries", "Batches that failed and were put off", m.retries);
        registry.register("dead_letters", "Records sent to a dead-letter topic", m.dead_letters);
        registry.register("dead_letters_open", "Messages put aside and not done with", m.dead_letters_open);
        registry.register("group_halted", "1 while the group stands still", m.halted);
        registry.register("records_skipped", "Records applied before", m.skipped);
        registry.register("group_lag_records", "Records not applied yet", m.group_lag_records);
        metrics
    }
}
