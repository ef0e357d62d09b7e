//! The figures that are asked for most, by names of their own.

use serde::Serialize;

use crate::report::{Loop, Measured};

/// One figure of each measurement; what was not measured is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Headline {
    /// T: transactions of pgbench a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpcb_tps: Option<f64>,
    /// Orders accepted a second in the closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_per_s: Option<f64>,
    /// Orders accepted a second by an API without relay and workers, over as many connections as do best.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_alone_per_s: Option<f64>,
    /// Orders settled a second in the closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_per_s: Option<f64>,
    /// The same where all are on one product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot_product_settled_per_s: Option<f64>,
    /// The same where all are of one user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot_user_settled_per_s: Option<f64>,
    /// Claims decided a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims_per_s: Option<f64>,
    /// Events of a backlog published a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_events_per_s: Option<f64>,
    /// The same records sent a second by a bare producer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_produce_per_s: Option<f64>,
    /// From sending a record to Kafka to having read it: half of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_round_trip_p50_ms: Option<f64>,
    /// 99 in 100 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_round_trip_p99_ms: Option<f64>,
    /// Events of the log replayed a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_events_per_s: Option<f64>,
    /// Events of the log plainly read a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_read_events_per_s: Option<f64>,
    /// Memory of the process that runs API, relay and workers, after everything, in megabytes.
    pub rss_mb: f64,
    /// Processors that all parts of the stack keep busy while nobody orders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_cores: Option<f64>,
    /// Bytes of the write-ahead log for each order of the closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_bytes_per_order: Option<f64>,
}

impl Headline {
    /// That of what was measured.
    #[must_use]
    pub fn of(measured: &Measured) -> Headline {
        let settled = |looped: &Option<Loop>| looped.as_ref().map(|looped| looped.settled_per_s);
        let alone = measured.accepted_alone.iter().map(|looped| looped.accepted_per_s);
        let closed = measured.closed_loop.as_ref();
        Headline {
            tpcb_tps: measured.pgbench.as_ref().map(|pgbench| pgbench.t_per_s),
            accepted_per_s: closed.map(|closed| closed.accepted_per_s),
            accepted_alone_per_s: alone.reduce(f64::max),
            settled_per_s: settled(&measured.closed_loop),
            hot_product_settled_per_s: settled(&measured.hot_product),
            hot_user_settled_per_s: settled(&measured.hot_user),
            claims_per_s: measured.claims.as_ref().map(|claims| claims.claims_per_s),
            relay_events_per_s: measured.backlog.map(|backlog| backlog.relayed_per_s),
            raw_produce_per_s: measured.backlog.map(|backlog| backlog.produced_per_s),
            raw_round_trip_p50_ms: measured.round_trip.map(|trip| trip.p50_ms),
            raw_round_trip_p99_ms: measured.round_trip.map(|trip| trip.p99_ms),
            replay_events_per_s: measured.replay.map(|replay| replay.replayed_per_s),
            log_read_events_per_s: measured.replay.map(|replay| replay.read_per_s),
            rss_mb: measured.memory.rss_mb,
            idle_cores: measured.at_rest.as_ref().map(|rest| rest.work.cores_of_the_stack()),
            wal_bytes_per_order: closed.map(|closed| closed.wal_bytes_per_order),
        }
    }
}
