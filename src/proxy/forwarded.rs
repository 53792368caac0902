//! Who the client is, and what upstreams are told about it.
//!
//! One field of a trusted proxy is believed ([`Believed`]), and no other: what a proxy does not write
//! itself it passes on, from whoever wrote it. Of `X-Forwarded-For` and `Forwarded` (RFC 7239) the
//! chain is kept and the peer appended, and the client is the right-most address that is not trusted.
//! A chain is believed only as far back as everyone on it is trusted. Any other field says one address.
//!
//! From others, `X-Forwarded-For`, `-Proto` and `-Host` are overwritten, and whatever else speaks of a
//! client goes ([`drop_hearsay`]).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

use super::headers::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REAL_IP};
use crate::model::network::Network;

/// Which field of a trusted proxy says who the client is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Believed {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded`
    Forwarded,
    /// One with a single address, such as `CF-Connecting-IP`.
    Field(HeaderName),
}

impl Believed {
    /// The field of this name.
    #[must_use]
    pub fn of(name: &HeaderName) -> Self {
        match name {
            name if *name == X_FORWARDED_FOR => Self::XForwardedFor,
            name if *name == FORWARDED => Self::Forwarded,
            name => Self::Field(name.clone()),
        }
    }
}

/// What a trusted proxy says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// By whom it came, the peer last.
    pub chain: HeaderValue,
    /// Who sent it first, as far as that is believed.
    pub client: IpAddr,
    /// Whether it was encrypted then, if `Forwarded` says so.
    pub secure: Option<bool>,
    /// The host that was asked for then, if `Forwarded` says so.
    pub host: Option<HeaderValue>,
}

impl Provenance {
    /// Of a request of a peer that nobody speaks for.
    #[must_use]
    pub fn of_peer(chain: HeaderValue, peer: IpAddr) -> Self {
        Self { chain, client: peer, secure: None, host: None }
    }

    /// Of a request that a trusted peer sent.
    #[must_use]
    pub fn read(
        headers: &HeaderMap,
        peer: IpAddr,
        trusted: &[Network],
        believed: &Believed,
    ) -> Self {
        let alone = || Self::of_peer(address_value(peer), peer);
        match believed {
            Believed::XForwardedFor => {
                let said = joined(headers, &X_FORWARDED_FOR);
                let nodes: Vec<&str> =
                    said.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
                Self::by_chain(&nodes, peer, trusted)
            }
            Believed::Forwarded => {
                let said = joined(headers, &FORWARDED);
                let Some(hops) = hops(&said) else { return alone() };
                let nodes: Vec<&str> =
                    hops.iter().map(|hop| hop.client.as_deref().unwrap_or("unknown")).collect();
                let mut found = Self::by_chain(&nodes, peer, trusted);
                if let Some(last) = hops.last() {
                    found.secure = last.proto.as_deref().map(|p| p.eq_ignore_ascii_case("https"));
                    let host = last.host.as_deref();
                    found.host = host.and_then(|host| HeaderValue::from_str(host).ok());
                }
                found
            }
            Believed::Field(name) => {
                let mut values = headers.get_all(name).iter();
                let one = values.next().filter(|_| values.next().is_none());
                let one = one.and_then(|value| value.to_str().ok()).unwrap_or("");
                match address(one.trim()) {
                    Some(client) => {
                        let shown = client.to_string();
                        Self { client, ..Self::by_chain(&[&shown], peer, trusted) }
                    }
                    None => alone(),
                }
            }
        }
    }

    fn by_chain(nodes: &[&str], peer: IpAddr, trusted: &[Network]) -> Self {
        let mut client = peer;
        for node in nodes.iter().rev() {
            let Some(address) = address(node) else { break };
            client = address;
            if !is_trusted(trusted, address) {
                break;
            }
        }
        let mut text = nodes.join(", ");
        if !text.is_empty() {
            text.push_str(", ");
        }
        let _ = write!(text, "{}", peer.to_canonical());
        let chain = HeaderValue::try_from(text).unwrap_or_else(|_| address_value(peer));
        Self::of_peer(chain, client)
    }
}

/// `Forwarded` for an instance: what came by the field that is believed, and the peer with what it
/// asked for.
#[must_use]
pub fn write(
    headers: &HeaderMap,
    chain: &HeaderValue,
    believed: Option<&Believed>,
    secure: bool,
    host: &HeaderValue,
) -> Option<HeaderValue> {
    let chain = chain.to_str().ok()?;
    let (before, peer) = match chain.rsplit_once(", ") {
        Some((before, peer)) => (Some(before), peer),
        None => (None, chain),
    };
    let mut said = String::new();
    if believed == Some(&Believed::Forwarded) {
        said = joined(headers, &FORWARDED);
        if hops(&said).is_none_or(|hops| hops.is_empty()) {
            said.clear();
        }
    }
    if said.is_empty() {
        for node in before.into_iter().flat_map(|before| before.split(", ")) {
            let _ = write!(said, "for={}, ", node_value(node));
        }
    } else {
        said.push_str(", ");
    }
    // The peer's is an address as we write it ourselves (`address_value`).
    let (open, close) = if peer.contains(':') { ("for=\"[", "]\"") } else { ("for=", "") };
    // A host that passed the check has neither quotes nor backslashes.
    let host = host.to_str().ok()?;
    let proto = if secure { "\";proto=https" } else { "\";proto=http" };
    let parts = [&said, open, peer, close, ";host=\"", host, proto];
    // Of just this size, it becomes a value without another allocation.
    let mut text = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
    HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
}

/// How `Forwarded` writes who sent something (RFC 7239, 6).
fn node_value(node: &str) -> String {
    match address(node) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        None => "unknown".to_owned(),
    }
}

/// Takes away what somebody who is not trusted says about a client, but for the three fields that are
/// overwritten anyway.
pub fn drop_hearsay(headers: &mut HeaderMap, believed: &Believed) {
    if let Believed::Field(name) = believed {
        headers.remove(name);
    }
    headers.remove(FORWARDED);
    headers.remove(X_REAL_IP);
    let others = |name: &&HeaderName| {
        name.as_str().starts_with("x-forwarded-")
            && ![X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO].contains(name)
    };
    let found: Vec<HeaderName> = headers.keys().filter(others).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Whether any of these ranges contains the address.
#[must_use]
pub fn is_trusted(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// An address as a header value.
#[must_use]
pub fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_canonical().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// An address as it stands in these fields: bare, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let found = text.parse().ok();
    found.or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip())).or_else(bracketed)
}

/// All values of a list, in their order.
fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let mut all = String::new();
    for value in headers.get_all(name) {
        if !all.is_empty() {
            all.push_str(", ");
        }
        all.push_str(value.to_str().unwrap_or("unknown"));
    }
    all
}

/// One element of `Forwarded`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hop {
    client: Option<String>,
    proto: Option<String>,
    host: Option<String>,
}

/// The elements of `Forwarded`; `None` when it is malformed: then nothing of it is believed, because
/// where one element ends and the next begins is in doubt.
fn hops(text: &str) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    let mut rest = text.trim_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let mut hop = Hop::default();
        loop {
            let (name, after) = rest.split_once('=')?;
            let name = name.trim_start_matches([' ', '\t']);
            if !is_token(name) {
                return None;
            }
            let (value, after) = value(after)?;
            let part = match name.to_ascii_lowercase().as_str() {
                "for" => Some(&mut hop.client),
                "proto" => Some(&mut hop.proto),
                "host" => Some(&mut hop.host),
                _ => None,
            };
            if let Some(part) = part
                && part.replace(value).is_some()
            {
                return None;
            }
            rest = after.trim_start_matches([' ', '\t']);
            match rest.strip_prefix(';') {
                Some(more) => rest = more,
                None => break,
            }
        }
        hops.push(hop);
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start_matches([' ', '\t', ',']),
            None if rest.is_empty() => {}
            None => return None,
        }
    }
    Some(hops)
}

/// A token or a quoted string at the beginning, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',', ' ', '\t']).unwrap_or(text.len());
        // Colons and brackets belong in quotes; many leave them out (RFC 7239, 4).
        let plain = |byte: u8| is_token_byte(byte) || matches!(byte, b':' | b'[' | b']');
        let sound = end > 0 && text[..end].bytes().all(plain);
        return sound.then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut said = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((said, &quoted[at + 1..])),
            '\\' => said.push(letters.next()?.1),
            letter => said.push(letter),
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> Vec<Network> {
        ["10.0.0.0/8", "127.0.0.1"].iter().map(|n| n.parse().expect("a network")).collect()
    }

    fn read(name: &'static str, values: &[&'static str], believed: &Believed) -> Provenance {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_static(value));
        }
        let peer = "127.0.0.1".parse().expect("an address");
        Provenance::read(&headers, peer, &trusted(), believed)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

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
        for (sent, value, client) in [
            ("", "127.0.0.1", "127.0.0.1"),
            ("1.2.3.4", "1.2.3.4, 127.0.0.1", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4,10.0.0.9", "6.6.6.6, 1.2.3.4, 10.0.0.9, 127.0.0.1", "1.2.3.4"),
            ("10.0.0.1, 10.0.0.2", "10.0.0.1, 10.0.0.2, 127.0.0.1", "10.0.0.1"),
            ("nonsense, 10.0.0.2", "nonsense, 10.0.0.2, 127.0.0.1", "10.0.0.2"),
            ("[2001:db8::1]:99", "[2001:db8::1]:99, 127.0.0.1", "2001:db8::1"),
        ] {
            let found = read("x-forwarded-for", &[sent], &Believed::XForwardedFor);
            assert_eq!(found.chain, value);
            assert_eq!(found.client, ip(client), "{sent}");
        }
    }

    #[test]
    fn forwarded_says_the_same_in_its_own_words() {
        let believed = Believed::of(&FORWARDED);
        let secure = |said: &'static [&'static str]| read("forwarded", said, &believed);
        let found = secure(&[
            "For=6.6.6.6;proto=http, for=\"[2001:db8::1]:4711\";Proto=HTTPS;host=\"a.example\"",
        ]);
        assert_eq!(found.client, ip("2001:db8::1"));
        assert_eq!((found.secure, found.host), (Some(true), Some("a.example".parse().expect("v"))));
        assert_eq!(found.chain, "6.6.6.6, [2001:db8::1]:4711, 127.0.0.1");
        let found = secure(&["for=1.2.3.4", "for=10.0.0.9;by=_x"]);
        assert_eq!((found.client, found.secure), (ip("1.2.3.4"), None));
        assert_eq!(secure(&["for=1.2.3.4, for=_hidden"]).client, ip("127.0.0.1"));
        for bad in [
            "for=\"1.2.3.4",
            "for=1.2.3.4 for=5.6.7.8",
            "for=1.2.3.4;for=5.6.7.8",
            "for",
            "for=",
            "=1.2.3.4",
            "for=1.2.3.4;;proto=http",
            "for=\"1.2.3.4\"x",
        ] {
            let found = read("forwarded", &[bad], &believed);
            assert_eq!(
                (found.client, found.chain.as_bytes()),
                (ip("127.0.0.1"), &b"127.0.0.1"[..])
            );
        }
        assert_eq!(secure(&[" , for=1.2.3.4 , "]).client, ip("1.2.3.4"));
    }

    #[test]
    fn another_field_says_one_address() {
        let believed = Believed::of(&HeaderName::from_static("cf-connecting-ip"));
        for (values, client) in [
            (&["203.0.113.9"][..], "203.0.113.9"),
            (&["2001:db8::9"], "2001:db8::9"),
            // A client may well sit in a network that is trusted.
            (&["10.0.0.9"], "10.0.0.9"),
            (&["203.0.113.9, 1.2.3.4"], "127.0.0.1"),
            (&["203.0.113.9", "1.2.3.4"], "127.0.0.1"),
            (&["x"], "127.0.0.1"),
            (&[], "127.0.0.1"),
        ] {
            let found = read("cf-connecting-ip", values, &believed);
            assert_eq!(found.client, ip(client), "{values:?}");
        }
        // What the other fields say is not believed then.
        assert_eq!(read("x-forwarded-for", &["1.2.3.4"], &believed).chain, "127.0.0.1");
    }

    #[test]
    fn instances_are_told_in_either_words() {
        let host = HeaderValue::from_static("a.example:8080");
        let chain = HeaderValue::from_static("6.6.6.6, x y, 2001:db8::1");
        let headers = HeaderMap::new();
        let told = write(&headers, &chain, Some(&Believed::XForwardedFor), true, &host);
        assert_eq!(
            told.expect("a value"),
            "for=6.6.6.6, for=unknown, for=\"[2001:db8::1]\";host=\"a.example:8080\";proto=https"
        );
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, HeaderValue::from_static("for=_a;by=b"));
        let chain = HeaderValue::from_static("_a, 127.0.0.1");
        let told = write(&headers, &chain, Some(&Believed::Forwarded), false, &host);
        let expected = "for=_a;by=b, for=127.0.0.1;host=\"a.example:8080\";proto=http";
        assert_eq!(told.expect("a value"), expected);
        let alone = HeaderValue::from_static("9.9.9.9");
        let told = write(&headers, &alone, None, false, &host).expect("a value");
        assert_eq!(told, "for=9.9.9.9;host=\"a.example:8080\";proto=http");
    }

    #[test]
    fn hearsay_goes() {
        let mut headers = HeaderMap::new();
        for name in [
            "forwarded",
            "x-real-ip",
            "x-forwarded-port",
            "x-forwarded-prefix",
            "x-forwarded-ssl",
            "cf-connecting-ip",
            "x-forwarded-for",
            "accept",
        ] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        drop_hearsay(&mut headers, &Believed::XForwardedFor);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "cf-connecting-ip", "x-forwarded-for"]);
        drop_hearsay(&mut headers, &Believed::of(&HeaderName::from_static("cf-connecting-ip")));
        assert_eq!(headers.len(), 2);
    }
}
