//! Flags that several commands take.

mod flood;

use std::net::SocketAddr;

use clap::Args;
use jiff::tz::TimeZone;

use crate::services::time_zone;

pub(crate) use flood::FloodArgs;

/// The flags of every service but the API, which serves its figures itself.
#[derive(Args, Debug)]
pub(crate) struct ServiceArgs {
    /// Serves /metrics and /healthz of this process here.
    #[arg(long, env = "ORDERMILL_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
}

/// The flags of every command that serves the API.
#[derive(Args, Clone, Debug)]
pub(crate) struct TimeZoneArgs {
    /// By whose days sales are ranked and counted, a name of the tz database.
    #[arg(long, env = "ORDERMILL_TIME_ZONE", default_value = "Asia/Seoul", value_parser = time_zone)]
    pub(crate) time_zone: TimeZone,
}

/// The flags of every command that may set up the log.
#[derive(Args, Clone, Debug)]
pub(crate) struct PartitionArgs {
    /// How many partitions each topic has; fixed when the log is set up: 12 unless given then, or 4 by `up`.
    #[arg(long, env = "ORDERMILL_PARTITIONS", value_name = "COUNT", value_parser = clap::value_parser!(i16).range(1..=1_000))]
    pub(crate) partitions: Option<i16>,
}
