//! Flags that several commands take.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;
use ordermill_api::{ForwardedHeader, Networks, NotARate, Proxies, Rate, RateLimitConfig};
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

/// How often anybody may ask the API.
#[derive(Args, Clone, Debug)]
pub(crate) struct RateLimitArgs {
    /// How often all who come from one address may ask, before it is known who they are; or none.
    #[arg(long, env = "ORDERMILL_LIMIT_BY_ADDRESS", default_value = "3000/30s", value_name = "RATE")]
    limit_by_address: Limit,
    /// How often one customer may ask: so many requests in so long, like 600/30s; or none.
    #[arg(long, env = "ORDERMILL_LIMIT_BY_CALLER", default_value = "600/30s", value_name = "RATE")]
    limit_by_caller: Limit,
    /// How often somebody may sign up from one address; or none.
    #[arg(long, env = "ORDERMILL_LIMIT_SIGN_UPS", default_value = "30/1h", value_name = "RATE")]
    limit_sign_ups: Limit,
    /// Whoever comes from these addresses or networks is not limited, with commas between them; or none.
    #[arg(
        long,
        env = "ORDERMILL_UNLIMITED_ADDRESSES",
        default_value = "127.0.0.0/8,::1",
        value_name = "NETWORKS"
    )]
    unlimited_addresses: Networks,
    /// Proxies that are believed from where their requests come, as addresses or networks with commas between them; or none.
    #[arg(long, env = "ORDERMILL_TRUSTED_PROXIES", default_value = "none", value_name = "NETWORKS")]
    trusted_proxies: Networks,
    /// The header in which they write that: x-forwarded-for or forwarded.
    #[arg(
        long,
        env = "ORDERMILL_FORWARDED_HEADER",
        default_value = "x-forwarded-for",
        value_name = "HEADER"
    )]
    forwarded_header: ForwardedHeader,
}

/// A rate, or none.
#[derive(Clone, Copy, Debug)]
struct Limit(Option<Rate>);

impl FromStr for Limit {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Limit, NotARate> {
        if text == "none" { Ok(Limit(None)) } else { text.parse().map(|rate| Limit(Some(rate))) }
    }
}

impl RateLimitArgs {
    /// The limits.
    pub(crate) fn config(&self) -> RateLimitConfig {
        RateLimitConfig {
            by_address: self.limit_by_address.0,
            by_caller: self.limit_by_caller.0,
            sign_ups: self.limit_sign_ups.0,
            unlimited: self.unlimited_addresses.clone(),
            proxies: Proxies { trusted: self.trusted_proxies.clone(), header: self.forwarded_header },
        }
    }
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
        #[command(flatten)]
        rate_limits: RateLimitArgs,
    }

    fn parse(arguments: &[&str]) -> Option<Program> {
        Program::try_parse_from(std::iter::once("ordermill").chain(arguments.iter().copied())).ok()
    }

    fn limit(arguments: &[&str]) -> Option<FloodLimit> {
        parse(arguments).map(|program| program.flood.limit())
    }

    fn rate_limits(arguments: &[&str]) -> Option<RateLimitConfig> {
        parse(arguments).map(|program| program.rate_limits.config())
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

    #[test]
    fn anybody_may_ask_as_often_as_the_api_has_it_unless_something_else_is_given() {
        assert_eq!(rate_limits(&[]), Some(RateLimitConfig::default()));
        let given = rate_limits(&[
            "--limit-by-address=none",
            "--limit-by-caller=2/4s",
            "--limit-sign-ups=5/1m",
            "--unlimited-addresses=none",
            "--trusted-proxies=10.0.0.0/8,::1",
            "--forwarded-header=forwarded",
        ]);
        let expected = RateLimitConfig {
            by_address: None,
            by_caller: Rate::new(2, Duration::from_secs(4)),
            sign_ups: Rate::new(5, Duration::from_secs(60)),
            unlimited: Networks::default(),
            proxies: Proxies {
                trusted: "10.0.0.0/8,::1".parse().unwrap(),
                header: ForwardedHeader::Forwarded,
            },
        };
        assert_eq!(given, Some(expected));
    }

    #[test]
    fn a_rate_limit_that_makes_no_sense_is_refused() {
        for wrong in [
            "--limit-by-caller=0/30s",
            "--limit-by-caller=600",
            "--limit-by-address=",
            "--limit-sign-ups=1/2d",
            "--unlimited-addresses=localhost",
            "--trusted-proxies=10.0.0.0/33",
            "--forwarded-header=x-real-ip",
        ] {
            assert!(rate_limits(&[wrong]).is_none(), "{wrong}");
        }
    }
}
