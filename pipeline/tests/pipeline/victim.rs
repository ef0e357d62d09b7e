//! A log at work that somebody attacks.

use std::sync::Arc;

use ordermill_pipeline::consumer::FloodLimit;
use ordermill_pipeline::partition::partition_of;
use uuid::Uuid;

use crate::attacker::Attacker;
use crate::handlers::Recorder;
use crate::support::{Log, PARTITIONS, Running, until};

/// A log at work, with keys of which each has a partition of its own, by their partitions' order.
pub(crate) struct Victim {
    pub(crate) log: Log,
    pub(crate) keys: Vec<Uuid>,
    pub(crate) attacker: Attacker,
    pub(crate) relay: Running,
    pub(crate) consumer: Running,
}

impl Victim {
    pub(crate) async fn new() -> Victim {
        Victim::at_work(Log::new().await, keys()).await
    }

    pub(crate) async fn at_work(log: Log, keys: Vec<Uuid>) -> Victim {
        log.make_topics().await;
        let (relay, attacker) = (log.relay(), Attacker::of(&log));
        // With the limit that programs have: what stops a group would stop it here.
        let consumer = log.consumer_of(Arc::<Recorder>::default(), FloodLimit::default());
        Victim { log, keys, attacker, relay, consumer }
    }

    /// Appends the `ordinal`th event of each key, and waits until all are applied.
    pub(crate) async fn go_on(&self, ordinal: i64) {
        for key in &self.keys {
            self.log.append(*key, ordinal).await;
        }
        self.assert_applied(ordinal).await;
    }

    /// Waits until each key has had its first events applied, in order and once, and nothing else.
    pub(crate) async fn assert_applied(&self, last: i64) {
        for key in &self.keys {
            let expected: Vec<i64> = (1..=last).collect();
            let applied = async || self.log.applied_of(*key).await;
            until("the key is applied", async || applied().await.len() >= expected.len()).await;
            assert_eq!(applied().await, expected, "something was applied that never happened");
        }
    }

    /// Nobody is held up, and nothing is taken for lost.
    pub(crate) async fn stop_unharmed(self) {
        let log = &self.log;
        assert_eq!(log.count("SELECT count(*) FROM halted_group WHERE resumed_at IS NULL").await, 0);
        assert_eq!(log.count("SELECT count(*) FROM parked_key").await, 0);
        assert_eq!(log.count("SELECT coalesce(max(label_era), 1)::bigint FROM consumer_offset").await, 1);
        log.until_published().await;
        assert_eq!(log.metrics.relay_repeats.get(), 0, "something was taken for lost");
        self.consumer.stop().await;
        self.relay.stop().await;
    }

    /// Has another relay and another consumer take over, as after a restart of everything.
    pub(crate) async fn restart(self) -> Victim {
        let Victim { log, keys, attacker, relay, consumer } = self;
        consumer.stop().await;
        relay.stop().await;
        let relay = log.relay();
        let consumer = log.consumer_of(Arc::<Recorder>::default(), FloodLimit::default());
        until("the relay leads", async || log.metrics.relay_leading.get() == 1).await;
        Victim { log, keys, attacker, relay, consumer }
    }
}

/// A key for each partition, in their order.
pub(crate) fn keys() -> Vec<Uuid> {
    let of = |partition| {
        std::iter::repeat_with(Uuid::new_v4).find(|key| partition_of(*key, PARTITIONS) == partition)
    };
    (0..PARTITIONS).map(|partition| of(partition).unwrap()).collect()
}
