//! Where a request comes from.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{Extensions, HeaderMap};

/// Headers by which a proxy tells that it asks for somebody else.
const PASSED_ON: [&str; 6] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// The other end of the connection. Whoever serves the router must have put it there.
pub(crate) fn address(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip())
}

/// Whether whoever is at the other end says that it asks for somebody else, who may be anywhere.
pub(crate) fn is_passed_on(headers: &HeaderMap) -> bool {
    PASSED_ON.iter().any(|name| headers.contains_key(*name))
}

/// Whether a program on this machine asks, for itself and by a name of this machine. A browser here asks for a page from elsewhere, too, by the
/// name under which it has that page, where somebody has that name lead to this machine.
pub(crate) fn is_this_machine(parts: &Parts) -> bool {
    let is_loopback = address(&parts.extensions).is_some_and(|address| address.to_canonical().is_loopback());
    let mut hosts = parts.headers.get_all(HOST).iter();
    is_loopback
        && !is_passed_on(&parts.headers)
        && hosts.all(|host| host.to_str().is_ok_and(is_own_name))
        && parts.uri.authority().is_none_or(|authority| is_own_name(authority.as_str()))
}

/// Whether a host, with or without a port, is this machine whoever looks the name up.
fn is_own_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn is_this_machine_at(peer: Option<&str>, header: Option<(&str, &str)>) -> bool {
        let mut request = Request::builder();
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        if let Some(peer) = peer {
            parts.extensions.insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        }
        is_this_machine(&parts)
    }

    #[test]
    fn only_a_loopback_address_is_this_machine() {
        for own in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_this_machine_at(Some(own), None), "{own}");
        }
        for other in
            ["203.0.113.7:1", "10.0.0.1:1", "0.0.0.0:1", "[::]:1", "[fe80::1]:1", "[::ffff:10.0.0.1]:1"]
        {
            assert!(!is_this_machine_at(Some(other), None), "{other}");
        }
        assert!(!is_this_machine_at(None, None), "nobody knows who it is");
    }

    #[test]
    fn what_a_proxy_passes_on_is_not_of_this_machine_whatever_it_says() {
        for header in [
            ("Forwarded", "for=127.0.0.1"),
            ("Via", "1.1 proxy"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-For", ""),
            ("X-Forwarded-Host", "localhost"),
            ("X-Forwarded-Proto", "https"),
            ("X-Real-IP", "127.0.0.1"),
        ] {
            assert!(!is_this_machine_at(Some("127.0.0.1:1"), Some(header)), "{header:?}");
        }
    }

    #[test]
    fn who_asks_by_another_name_is_not_of_this_machine() {
        for own in ["localhost", "LocalHost:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "[::1]"] {
            assert!(is_this_machine_at(Some("127.0.0.1:1"), Some(("Host", own))), "{own}");
        }
        for other in [
            "shop.example.com",
            "a.localhost",
            "localhost.example.com:80",
            "10.0.0.1",
            "[fe80::1]:8080",
            "",
            "a b",
        ] {
            assert!(!is_this_machine_at(Some("127.0.0.1:1"), Some(("Host", other))), "{other}");
        }
    }
}
