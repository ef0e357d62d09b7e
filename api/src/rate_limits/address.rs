//! From where a request comes: from the other end of its connection or, where that is a proxy that is trusted, from where the proxy says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use axum::http::header::FORWARDED;
use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// The header that most proxies write.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Networks of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// A text that names no networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give addresses or networks with commas between them, like 192.0.2.7,2001:db8::/32; or none")]
pub struct NotNetworks;

impl Networks {
    /// The addresses by which a machine talks to itself.
    #[must_use]
    pub fn loopback() -> Networks {
        let of_version_4 = IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8);
        Networks(vec![of_version_4, IpAddr::from(Ipv6Addr::LOCALHOST).into()])
    }

    pub(super) fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for Networks {
    type Err = NotNetworks;

    fn from_str(text: &str) -> Result<Networks, NotNetworks> {
        if ["", "none"].contains(&text.trim()) {
            return Ok(Networks::default());
        }
        let networks = text.split(',').map(|network| {
            let network = network.trim();
            network.parse::<IpNet>().or_else(|_| network.parse::<IpAddr>().map(IpNet::from))
        });
        networks.collect::<Result<_, _>>().map(Networks).map_err(|_| NotNetworks)
    }
}

/// The header in which proxies write from where they have a request, the nearest last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: addresses with commas between them.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// A text that names no such header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give the header that your proxies write: x-forwarded-for or forwarded")]
pub struct NotAForwardedHeader;

impl FromStr for ForwardedHeader {
    type Err = NotAForwardedHeader;

    fn from_str(text: &str) -> Result<ForwardedHeader, NotAForwardedHeader> {
        match text.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(ForwardedHeader::XForwardedFor),
            "forwarded" => Ok(ForwardedHeader::Forwarded),
            _ => Err(NotAForwardedHeader),
        }
    }
}

impl ForwardedHeader {
    fn name(self) -> HeaderName {
        match self {
            ForwardedHeader::XForwardedFor => X_FORWARDED_FOR,
            ForwardedHeader::Forwarded => FORWARDED,
        }
    }

    /// The address in one of the header's elements.
    fn address_in(self, element: &str) -> Option<IpAddr> {
        match self {
            ForwardedHeader::XForwardedFor => address(element.trim()),
            ForwardedHeader::Forwarded => forwarded_for(element),
        }
    }
}

/// Which proxies are believed, and what they write. The other header is no proxy's, so it is the client's and says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Where they are.
    pub trusted: Networks,
    /// What they write.
    pub header: ForwardedHeader,
}

/// From where a request comes, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) address: IpAddr,
    /// A trusted proxy at that address has the request from somebody of whom it does not tell.
    pub(super) is_hidden: bool,
}

impl Proxies {
    /// From where a request comes that has these headers, over a connection from `peer`: the nearest address that is none of a trusted proxy. What
    /// stands before it in the header may be the client's invention. Where all are those of trusted proxies, the farthest of them has sent it.
    pub(super) fn source(&self, peer: IpAddr, headers: &HeaderMap) -> Source {
        let mut address = peer.to_canonical();
        if self.trusted.contain(address) {
            let lines = headers.get_all(self.header.name()).iter().rev();
            // A line that is no text has nothing that is an address.
            let elements = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(','));
            for element in elements {
                let Some(further) = self.header.address_in(element) else {
                    return Source { address, is_hidden: true };
                };
                address = further.to_canonical();
                if !self.trusted.contain(address) {
                    break;
                }
            }
        }
        Source { address, is_hidden: false }
    }
}

/// An address, which may have a port and, of version 6, brackets.
fn address(text: &str) -> Option<IpAddr> {
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let plain = text.parse::<IpAddr>().ok().or_else(|| in_brackets().map(IpAddr::V6));
    plain.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The address in an element of `Forwarded`. Elements are told apart by commas alone, from the right: a client may have opened a quotation
/// before, or have one within its `Host`. So what is quoted in half, or names two addresses, is not believed.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut values =
        pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for")).map(|(_, value)| value);
    let (value, second) = (values.next()?.trim(), values.next());
    if second.is_some() || !element.matches('"').count().is_multiple_of(2) {
        return None;
    }
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    address(quoted.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn proxies(header: ForwardedHeader) -> Proxies {
        Proxies { trusted: "10.0.0.0/8,::1".parse().unwrap(), header }
    }

    /// From where a request comes that has these lines in that header; `None` where that is hidden.
    fn source_of(header: ForwardedHeader, peer: &str, lines: &[&str]) -> Option<IpAddr> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header.name(), line.parse().unwrap());
        }
        let source = proxies(header).source(ip(peer), &headers);
        (!source.is_hidden).then_some(source.address)
    }

    #[test]
    fn whoever_is_no_trusted_proxy_is_not_believed() {
        let of = |peer, lines: &[&str]| source_of(ForwardedHeader::XForwardedFor, peer, lines);
        assert_eq!(of("192.0.2.1", &["203.0.113.7"]), Some(ip("192.0.2.1")));
        assert_eq!(of("10.0.0.1", &["203.0.113.7"]), Some(ip("203.0.113.7")));
        assert_eq!(of("::ffff:10.0.0.1", &["203.0.113.7"]), Some(ip("203.0.113.7")));
        assert_eq!(of("::1", &["::ffff:203.0.113.7"]), Some(ip("203.0.113.7")));
    }

    #[test]
    fn the_nearest_address_that_is_no_trusted_proxys_counts_whatever_stands_before_it() {
        let of = |lines: &[&str]| source_of(ForwardedHeader::XForwardedFor, "10.0.0.1", lines);
        let client = Some(ip("203.0.113.7"));
        assert_eq!(of(&["198.51.100.1, 203.0.113.7"]), client);
        assert_eq!(of(&["127.0.0.1,nonsense, 203.0.113.7 ,10.0.0.3,10.0.0.2"]), client);
        assert_eq!(of(&["198.51.100.1", "203.0.113.7", "10.0.0.2"]), client, "the last line is the nearest");
        assert_eq!(of(&["203.0.113.7:4711"]), client);
        let client = Some(ip("2001:db8::7"));
        assert_eq!(of(&["2001:db8::7"]), client);
        assert_eq!(of(&["[2001:db8::7]"]), client);
        assert_eq!(of(&["[2001:db8::7]:4711"]), client);
        // Proxies ask, too.
        assert_eq!(of(&["10.0.0.3, 10.0.0.2"]), Some(ip("10.0.0.3")));
        assert_eq!(of(&[]), Some(ip("10.0.0.1")));
    }

    #[test]
    fn of_whom_a_trusted_proxy_does_not_tell_is_hidden_behind_it() {
        for line in ["", "unknown", "203.0.113.7, _x", "203.0.113.7,", "203.0.113", "203.0.113.7 10.0.0.2"] {
            assert_eq!(source_of(ForwardedHeader::XForwardedFor, "10.0.0.1", &[line]), None, "{line:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, "203.0.113.7, unknown, 10.0.0.2".parse().unwrap());
        let source = proxies(ForwardedHeader::XForwardedFor).source(ip("10.0.0.1"), &headers);
        assert_eq!(source, Source { address: ip("10.0.0.2"), is_hidden: true });
    }

    #[test]
    fn forwarded_is_read_as_proxies_write_it() {
        let of = |line: &str| source_of(ForwardedHeader::Forwarded, "10.0.0.1", &[line]);
        let client = Some(ip("203.0.113.7"));
        assert_eq!(of("for=203.0.113.7"), client);
        assert_eq!(of(r#"for=198.51.100.1, For="203.0.113.7:4711";proto=https;by=10.0.0.1"#), client);
        assert_eq!(of("proto=http; for=203.0.113.7, for=10.0.0.2"), client);
        assert_eq!(of(r#"for="[2001:db8::7]:4711""#), Some(ip("2001:db8::7")));
        assert_eq!(of(r#"for="[2001:db8::7]""#), Some(ip("2001:db8::7")));
        for hidden in ["for=unknown", "for=_x", "proto=https", "203.0.113.7", r#"for=\"203.0.113.7\""#] {
            assert_eq!(of(hidden), None, "{hidden}");
        }
    }

    #[test]
    fn a_client_forges_no_address_by_a_quotation_in_what_the_proxy_repeats() {
        let of = |line: &str| source_of(ForwardedHeader::Forwarded, "10.0.0.1", &[line]);
        // A header of the client's, to which the proxy adds.
        assert_eq!(of(r#"for="198.51.100.1, for=203.0.113.7"#), Some(ip("203.0.113.7")));
        // A Host of the client's: the proxy writes `for=203.0.113.7;host="…"`.
        for host in [
            "x, for=198.51.100.1",
            "x;for=198.51.100.1",
            r#"x\", for=\"198.51.100.1"#,
            "x, for=198.51.100.1, y",
        ] {
            assert_eq!(of(&format!(r#"for=203.0.113.7;host="{host}""#)), None, "{host}");
        }
    }

    #[test]
    fn the_header_that_the_proxies_do_not_write_is_the_clients() {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, "for=198.51.100.1".parse().unwrap());
        headers.insert(X_FORWARDED_FOR, "203.0.113.7".parse().unwrap());
        let source = proxies(ForwardedHeader::XForwardedFor).source(ip("10.0.0.1"), &headers);
        assert_eq!(source, Source { address: ip("203.0.113.7"), is_hidden: false });
        assert_eq!("Forwarded".parse(), Ok(ForwardedHeader::Forwarded));
        assert_eq!("x-real-ip".parse::<ForwardedHeader>(), Err(NotAForwardedHeader));
    }

    #[test]
    fn networks_are_addresses_and_networks_with_commas_between_them() {
        let networks: Networks = "192.0.2.7, 10.0.0.0/8,2001:db8::/32".parse().unwrap();
        for inside in ["192.0.2.7", "10.255.0.1", "2001:db8:1::1"] {
            assert!(networks.contain(ip(inside)), "{inside}");
        }
        for outside in ["192.0.2.8", "11.0.0.1", "2001:db9::1", "127.0.0.1"] {
            assert!(!networks.contain(ip(outside)), "{outside}");
        }
        assert_eq!("127.0.0.0/8,::1".parse(), Ok(Networks::loopback()));
        for none in ["none", "", " "] {
            assert_eq!(none.parse(), Ok(Networks::default()), "{none:?}");
        }
        for wrong in ["10.0.0.0/33", "localhost", "10.0.0.1,", ",", "10.0.0.0/8;::1"] {
            assert_eq!(wrong.parse::<Networks>(), Err(NotNetworks), "{wrong:?}");
        }
    }
}
