//! What the pipeline counts and measures, for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::kafka_usage::{KafkaUsage, registered};

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
    pub relay_lag_segments: Gauge,
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
    /// Records that have looped back from the relay of the same process, so that they were not fetched.
    pub looped_back: Family<GroupLabel, Counter>,
    /// Records that the relay has not published, put aside or not.
    pub foreign: Family<GroupLabel, Counter>,
    /// Records that the group has not applied yet, over this process's partitions.
    pub group_lag_records: Family<GroupLabel, Gauge>,
    /// What relay and consumers ask of Kafka.
    pub kafka_usage: KafkaUsage,
}

impl PipelineMetrics {
    /// Registers the figures under `ordermill_`.
    pub fn register(registry: &mut Registry) -> PipelineMetrics {
        let r = registry;
        let records: Family<GroupLabel, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 2.0, 11)));
        let seconds: Family<GroupLabel, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_5, 2.0, 15)));
        r.register("batch_records", "Records in a committed batch", records.clone());
        r.register("batch_seconds", "Time of a batch to its commit", seconds.clone());
        PipelineMetrics {
            relay_records: registered(r, "relay_records", "Records acknowledged by Kafka"),
            relay_lag_segments: registered(
                r,
                "relay_lag_segments",
                "Final segments of the log that are not published yet",
            ),
            relay_fence_wait_ms: registered(r, "relay_fence_wait_ms", "Wait for open transactions"),
            relay_leading: registered(r, "relay_leading", "1 while this process publishes"),
            relay_repeats: registered(r, "relay_repeats", "Times that records were published again"),
            batch_records: records,
            batch_seconds: seconds,
            retries: registered(r, "batch_retries", "Batches that failed and were put off"),
            dead_letters: registered(r, "dead_letters", "Records sent to a dead-letter topic"),
            dead_letters_open: registered(r, "dead_letters_open", "Messages put aside and not done with"),
            halted: registered(r, "group_halted", "1 while the group stands still"),
            skipped: registered(r, "records_skipped", "Records applied before"),
            looped_back: registered(r, "records_looped_back", "Records that were not fetched"),
            foreign: registered(r, "foreign_records", "Records that the relay has not published"),
            group_lag_records: registered(r, "group_lag_records", "Records not applied yet"),
            kafka_usage: KafkaUsage::register(r),
        }
    }
}

/// The figures of one group's consumer, found once, so that all are shown from the beginning: who watches a rate would miss the first one
/// otherwise.
#[derive(Clone, Debug)]
pub(crate) struct GroupMetrics {
    pub(crate) batch_records: Histogram,
    pub(crate) batch_seconds: Histogram,
    pub(crate) retries: Counter,
    pub(crate) dead_letters: Counter,
    pub(crate) skipped: Counter,
    pub(crate) looped_back: Counter,
    pub(crate) foreign: Counter,
    pub(crate) lag_records: Gauge,
}

impl PipelineMetrics {
    pub(crate) fn of(&self, group: &str) -> GroupMetrics {
        let label = GroupLabel { group: group.to_owned() };
        GroupMetrics {
            batch_records: self.batch_records.get_or_create_owned(&label),
            batch_seconds: self.batch_seconds.get_or_create_owned(&label),
            retries: self.retries.get_or_create_owned(&label),
            dead_letters: self.dead_letters.get_or_create_owned(&label),
            skipped: self.skipped.get_or_create_owned(&label),
            looped_back: self.looped_back.get_or_create_owned(&label),
            foreign: self.foreign.get_or_create_owned(&label),
            lag_records: self.group_lag_records.get_or_create_owned(&label),
        }
    }
}
