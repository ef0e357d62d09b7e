//! How often anybody may ask: all who come from an address, before anything else is known of them; each customer, once it is known who
//! asks; and signing up by itself. Allowances are kept in memory, each process has its own.

mod address;
mod allowance;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use governor::clock::DefaultClock;
use ipnet::IpNet;
use ordermill_store::keys::Identity;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::time::timeout;

use crate::app::Api;
use crate::auth::{KeyHash, OPERATOR_TIMEOUT};
use crate::metrics::ByLabel;
use crate::peer;
use crate::problem::Problem;
use crate::telling::Telling;

pub use self::address::{ForwardedHeader, Networks, NotAForwardedHeader, NotNetworks, Proxies};
pub use self::allowance::{NotARate, Rate};

use self::allowance::{Allowance, Payer};

/// What the path of everything begins with that is limited. Elsewhere it is whoever shows a key, which may be looked up.
pub(crate) const LIMITED_PATHS: &str = "/v1/";
/// The path that is never limited: whoever restarts a process goes by it.
const HEALTH: &str = "/healthz";
/// How much of an address of version 6 counts: what lies behind it belongs to one subscriber, who has as many addresses as they like.
const SUBSCRIBER_BITS_V6: u8 = 64;
/// The same where somebody signs up, which is worth something: many subscribers have as many networks as 48 bits leave.
const SIGN_UP_BITS_V6: u8 = 48;
/// How much of an address the log has: enough to know a network of one's own by it, too little to know a person.
const LOGGED_BITS_V4: u8 = 24;
const LOGGED_BITS_V6: u8 = 48;

/// How often anybody may ask. Administrators always may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitConfig {
    /// All who come from an address.
    pub by_address: Option<Rate>,
    /// A customer, with all keys, from wherever.
    pub by_caller: Option<Rate>,
    /// Signing up, from an address.
    pub sign_ups: Option<Rate>,
    /// Whoever comes from there may ask as often as they like.
    pub unlimited: Networks,
    /// Whom to believe from where requests come.
    pub proxies: Proxies,
}

impl Default for RateLimitConfig {
    fn default() -> RateLimitConfig {
        RateLimitConfig {
            by_address: Rate::new(3_000, Duration::from_secs(30)),
            by_caller: Rate::new(600, Duration::from_secs(30)),
            sign_ups: Rate::new(30, Duration::from_secs(3_600)),
            unlimited: Networks::loopback(),
            proxies: Proxies::default(),
        }
    }
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Address,
    Caller,
    SignUps,
}

impl By {
    /// The word for it in metrics and in the log.
    fn word(self) -> &'static str {
        match self {
            By::Address => "address",
            By::Caller => "caller",
            By::SignUps => "sign_ups",
        }
    }

    /// What the client is told.
    fn detail(self) -> &'static str {
        match self {
            By::Address => {
                "too many requests come from your address; send the same again after the time that Retry-After says"
            }
            By::Caller => {
                "you have sent too many requests; send the same again after the time that Retry-After says"
            }
            By::SignUps => {
                "too many have signed up from your address; send the same again after the time that Retry-After says"
            }
        }
    }
}

/// The address that a request comes from. A request that has none is not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted(IpAddr);

/// A request for which nothing is left.
#[derive(Clone, Copy, Debug)]
struct Limited {
    by: By,
    payer: Payer,
    retry_after: Duration,
}

/// How often anybody may ask, and what is left of that.
pub(crate) struct RateLimits {
    by_address: Option<Allowance<DefaultClock>>,
    by_caller: Option<Allowance<DefaultClock>>,
    sign_ups: Option<Allowance<DefaultClock>>,
    unlimited: Networks,
    proxies: Proxies,
    counts: Family<ByLabel, Counter>,
    telling: Telling<By>,
}

impl RateLimits {
    /// Nobody has asked yet.
    pub(crate) fn new(config: &RateLimitConfig, counts: Family<ByLabel, Counter>) -> RateLimits {
        let allowance = |rate: Option<Rate>| rate.map(|rate| Allowance::new(rate, DefaultClock::default()));
        RateLimits {
            by_address: allowance(config.by_address),
            by_caller: allowance(config.by_caller),
            sign_ups: allowance(config.sign_ups),
            unlimited: config.unlimited.clone(),
            proxies: config.proxies.clone(),
            counts,
            telling: Telling::default(),
        }
    }

    /// The address that a request comes from; `None` where it is not limited. Whoever is hidden behind a proxy, or comes through one that nobody
    /// trusts, counts for the proxy and has no part in what that may.
    fn counted(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<Counted> {
        let peer = peer::address(extensions).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
        let source = self.proxies.source(peer, headers);
        let is_hidden = source.is_hidden || (source.address == peer && peer::is_passed_on(headers));
        let is_unlimited = !is_hidden && self.unlimited.contain(source.address);
        (!is_unlimited).then_some(Counted(source.address))
    }

    /// Takes one request from an allowance.
    fn draw(&self, by: By, payer: Payer) -> Result<(), Limited> {
        let allowance = match by {
            By::Address => &self.by_address,
            By::Caller => &self.by_caller,
            By::SignUps => &self.sign_ups,
        };
        let drawn = allowance.as_ref().map_or(Ok(()), |allowance| allowance.draw(payer));
        drawn.map_err(|retry_after| Limited { by, payer, retry_after })
    }

    /// Takes one request from the allowance of whoever calls.
    ///
    /// # Errors
    /// `RATE_LIMITED` where nothing is left.
    pub(crate) fn draw_of_caller(&self, caller: Identity, extensions: &Extensions) -> Result<(), Problem> {
        match (caller, extensions.get::<Counted>()) {
            (Identity::Customer(user_id), Some(_)) => {
                self.draw(By::Caller, Payer::Customer(user_id)).map_err(|limited| self.refuse(limited))
            }
            _ => Ok(()),
        }
    }

    /// The answer to a request for which nothing is left.
    fn refuse(&self, Limited { by, payer, retry_after }: Limited) -> Problem {
        self.counts.get_or_create(&ByLabel { by: by.word() }).inc();
        if let Some(untold) = self.telling.tell(by, Instant::now()) {
            tracing::warn!(by = by.word(), %payer, untold, "a request was refused since there were too many");
        }
        Problem::rate_limited(by.detail(), retry_after)
    }
}

impl Api {
    /// Takes one request from an allowance of an address. Only where nothing is left it is looked whether an administrator asks, so that
    /// this costs nothing otherwise. Where the database does not say so in time, nobody is one: whoever is refused is not to hold a place.
    async fn draw(&self, by: By, Counted(address): Counted, headers: &HeaderMap) -> Result<(), Problem> {
        let Err(limited) = self.rate_limits.draw(by, Payer::Address(subscriber(address, by))) else {
            return Ok(());
        };
        let is_administrators = match KeyHash::of(headers) {
            Some(key) => timeout(OPERATOR_TIMEOUT, key.is_administrators(&self.identities)).await == Ok(true),
            None => false,
        };
        if is_administrators { Ok(()) } else { Err(self.rate_limits.refuse(limited)) }
    }
}

/// The layer that counts each request by its address, whoever sends it.
pub(crate) async fn limit(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let (path, shows_key) = (request.uri().path(), request.headers().contains_key(header::AUTHORIZATION));
    if (path.starts_with(LIMITED_PATHS) || (shows_key && path != HEALTH))
        && let Some(address) = api.rate_limits.counted(request.extensions(), request.headers())
    {
        if let Err(problem) = api.draw(By::Address, address, request.headers()).await {
            return problem.into_response();
        }
        request.extensions_mut().insert(address);
    }
    next.run(request).await
}

/// The right to sign up just now. It is asked for before the body is read.
#[derive(Debug)]
pub(crate) struct MaySignUp;

impl FromRequestParts<Api> for MaySignUp {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<MaySignUp, Problem> {
        if let Some(address) = parts.extensions.get::<Counted>().copied() {
            api.draw(By::SignUps, address, &parts.headers).await?;
        }
        Ok(MaySignUp)
    }
}

/// The part of an address that tells one who asks from another.
fn subscriber(address: IpAddr, by: By) -> IpAddr {
    match (address, by) {
        (IpAddr::V4(_), _) => address,
        (IpAddr::V6(_), By::SignUps) => network(address, SIGN_UP_BITS_V6).addr(),
        (IpAddr::V6(_), By::Address | By::Caller) => network(address, SUBSCRIBER_BITS_V6).addr(),
    }
}

/// The network of so many bits that an address is in.
fn network(address: IpAddr, bits: u8) -> IpNet {
    IpNet::new(address, bits).map_or(IpNet::from(address), |network| network.trunc())
}

/// As the log names it: a customer by the id, an address by a part of it.
impl fmt::Display for Payer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Payer::Customer(user_id) => write!(formatter, "user:{user_id}"),
            Payer::Address(address) => {
                let bits = if address.is_ipv4() { LOGGED_BITS_V4 } else { LOGGED_BITS_V6 };
                write!(formatter, "{}", network(address, bits))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_subscriber_is_one_address_of_version_4_or_a_network_of_version_6() {
        let of = |text: &str, by| subscriber(text.parse().unwrap(), by).to_string();
        for by in [By::Address, By::SignUps] {
            assert_eq!(of("203.0.113.7", by), "203.0.113.7");
        }
        assert_eq!(of("2001:db8:1:2:3:4:5:6", By::Address), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:3::", By::Address), "2001:db8:1:3::");
        assert_eq!(
            of("2001:db8:1:2:3:4:5:6", By::SignUps),
            "2001:db8:1::",
            "a network to sign up from is wider"
        );
    }

    #[test]
    fn the_log_has_the_id_of_a_customer_and_a_part_of_an_address() {
        let of = |text: &str| Payer::Address(text.parse().unwrap()).to_string();
        assert_eq!(of("203.0.113.7"), "203.0.113.0/24");
        assert_eq!(of("2001:db8:1:2::"), "2001:db8:1::/48");
        let id = Uuid::from_u128(7);
        assert_eq!(Payer::Customer(id).to_string(), format!("user:{id}"));
    }

    #[test]
    fn there_are_limits_unless_somebody_says_otherwise_and_none_for_this_machine() {
        let config = RateLimitConfig::default();
        assert!(config.by_address.is_some() && config.by_caller.is_some() && config.sign_ups.is_some());
        assert_eq!(config.unlimited, Networks::loopback());
        assert_eq!(config.proxies.trusted, Networks::default());
    }
}
