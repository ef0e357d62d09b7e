//! Flags that several commands take.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;
use ordermill_pipeline::consumer::FloodLimit;

use crate::services::time_zone;

/// The flags of every service.
#[derive(Args, Debug)]
pub(crate) struct ServiceArgs {
    /// Serves /metrics and /healthz of this process here, to whoever reaches this address.
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
    /// How many partitions each topic has; fixed when the log is set up: 12 unless given then, or 1 by `up`.
    #[arg(long, env = "ORDERMILL_PARTITIONS", value_name = "COUNT", value_parser = clap::value_parser!(i16).range(1..=1_000))]
    pub(crate) partitions: Option<i16>,
}

/// When a worker stops rather than put a whole topic aside.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct FloodArgs {
    /// A group stops where more than this share of the messages in the window can't be applied, above 0 and up to 1; 1
    /// means never.
    #[arg(long, env = "ORDERMILL_FLOOD_SHARE", default_value_t = 0.5, value_parser = share)]
    flood_share: f64,
    /// Fewer failures than this in the window never stop a group.
    #[arg(long, env = "ORDERMILL_FLOOD_MIN", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    flood_min: u64,
    /// How long back is looked, in seconds.
    #[arg(long, env = "ORDERMILL_FLOOD_WINDOW", default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    flood_window: u64,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| {
        "give a number above 0 and up to 1, like 0.5; 1 means that nothing stops a group".to_owned()
    })
}

impl FloodArgs {
    /// The limit.
    pub(crate) fn limit(self) -> FloodLimit {
        FloodLimit {
            share_max: self.flood_share,
            failures_min: self.flood_min,
            window: Duration::from_secs(self.flood_window),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        flood: FloodArgs,
    }

    fn limit(arguments: &[&str]) -> Option<FloodLimit> {
        let arguments = std::iter::once("worker").chain(arguments.iter().copied());
        Program::try_parse_from(arguments).ok().map(|program| program.flood.limit())
    }

    #[test]
    fn the_limit_is_the_pipelines_unless_another_is_given() {
        assert_eq!(limit(&[]), Some(FloodLimit::default()));
        let given = limit(&["--flood-share", "0.25", "--flood-min", "7", "--flood-window", "10"]);
        let window = Duration::from_secs(10);
        assert_eq!(given, Some(FloodLimit { share_max: 0.25, failures_min: 7, window }));
        assert!(limit(&["--flood-share", "1"]).is_some());
    }

    #[test]
    fn a_limit_that_makes_no_sense_is_refused() {
        for share in ["0", "-0.5", "1.1", "NaN", "inf", "half", ""] {
            assert_eq!(limit(&[&format!("--flood-share={share}")]), None, "{share}");
        }
        for wrong in ["--flood-min=0", "--flood-window=0", "--flood-window=86401", "--flood-min=-1"] {
            assert_eq!(limit(&[wrong]), None, "{wrong}");
        }
    }
}
