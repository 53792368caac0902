//! Who the client is, and what upstreams are told about it.
//!
//! `X-Forwarded-For`, `-Proto` and `-Host` are overwritten, unless the peer is one of the trusted
//! proxies: then its chain is kept and the peer appended, and the client is the right-most address
//! that is not trusted. A chain is believed only as far back as everyone on it is trusted.

use std::net::IpAddr;

use http::header::{HeaderMap, HeaderValue};

use super::headers::X_FORWARDED_FOR;
use crate::model::network::Network;

/// Whether any of these ranges contains the address.
#[must_use]
pub fn is_trusted(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// The chain that a trusted peer sent, with the peer appended; and the client: the right-most
/// address that is not trusted, or the left-most if all are.
#[must_use]
pub fn chain(headers: &HeaderMap, peer: IpAddr, trusted: &[Network]) -> (HeaderValue, IpAddr) {
    let mut client = peer;
    let mut text = String::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        for part in value.to_str().unwrap_or("").split(',') {
            let part = part.trim();
            if !part.is_empty() {
                if !text.is_empty() {
                    text.push_str(", ");
                }
                text.push_str(part);
            }
        }
    }
    for part in text.rsplit(", ") {
        let Some(address) = parse_address(part) else { break };
        client = address;
        if !is_trusted(trusted, address) {
            break;
        }
    }
    if !text.is_empty() {
        text.push_str(", ");
    }
    text.push_str(&peer.to_canonical().to_string());
    (HeaderValue::try_from(text).unwrap_or_else(|_| address_value(peer)), client)
}

/// An address as a header value.
#[must_use]
pub fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_canonical().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// An address as it stands in `X-Forwarded-For`: bare, or with a port.
fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let contains = |network: &str, address: &str| {
            let network: Network = network.parse().expect("a network");
            network.contains(address.parse().expect("an address"))
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "8.8.8.8") && contains("::/0", "::1"));
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(contains("fd00::/8", "fdab::1") && !contains("fd00::/8", "fe80::1"));
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "a/8", "10.0.0.0/x", "::/129"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_client_is_the_right_most_that_is_not_trusted() {
        let trusted: Vec<Network> =
            ["10.0.0.0/8", "127.0.0.1"].iter().map(|n| n.parse().expect("a network")).collect();
        let peer = "127.0.0.1".parse().expect("an address");
        for (sent, value, client) in [
            ("", "127.0.0.1", "127.0.0.1"),
            ("1.2.3.4", "1.2.3.4, 127.0.0.1", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4,10.0.0.9", "6.6.6.6, 1.2.3.4, 10.0.0.9, 127.0.0.1", "1.2.3.4"),
            ("10.0.0.1, 10.0.0.2", "10.0.0.1, 10.0.0.2, 127.0.0.1", "10.0.0.1"),
            ("nonsense, 10.0.0.2", "nonsense, 10.0.0.2, 127.0.0.1", "10.0.0.2"),
            ("[2001:db8::1]:99", "[2001:db8::1]:99, 127.0.0.1", "2001:db8::1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(X_FORWARDED_FOR, HeaderValue::from_static(sent));
            let (chain, found) = chain(&headers, peer, &trusted);
            assert_eq!(chain, value);
            assert_eq!(found, client.parse::<IpAddr>().expect("an address"), "{sent}");
        }
    }
}
