//! What is refused before it is routed: malformed, too large, or not ours to forward.
//!
//! These are the rules that all protocols share, and those of HTTP/2 and HTTP/3 that their libraries
//! leave to their user (RFC 9110, 9112, 9113 and 9114). What a connection of HTTP/1.1 refuses before there is a request is
//! in [`super::downstream`]. A refused HTTP/1.1 connection is closed, because where its next request
//! begins may be what is in doubt.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use hyper::ext::Protocol;

use super::headers::{Found, Seen};
use super::limits::Limits;
use super::path::normal;
use crate::telemetry::traffic::Reason;

/// Bytes of a host without its port: what DNS allows (RFC 1035, 2.3.4).
const LONGEST_HOST: usize = 255;
/// How often a request may come through proxies of our kind before it is taken for a loop: more than
/// anybody stands behind each other.
const MOST_PASSES: u32 = 8;

/// What a request may be.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked<'a> {
    /// To be routed by this host and this path.
    Route(&'a str, Cow<'a, str>),
    /// `OPTIONS *`: about the proxy itself.
    Ping,
}

/// What a client is told.
pub fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::Malformed
        | Reason::Framing
        | Reason::Host
        | Reason::Target
        | Reason::Chunks
        | Reason::Preamble => StatusCode::BAD_REQUEST,
        Reason::Coding => StatusCode::NOT_IMPLEMENTED,
        Reason::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        Reason::Method => StatusCode::METHOD_NOT_ALLOWED,
        Reason::Expectation => StatusCode::EXPECTATION_FAILED,
        Reason::TargetSize => StatusCode::URI_TOO_LONG,
        Reason::HeaderSize => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Reason::BodySize => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::Certificate => StatusCode::FORBIDDEN,
        Reason::Loop => StatusCode::LOOP_DETECTED,
        Reason::HandshakeTime | Reason::HeaderTime | Reason::BodyTime | Reason::WriteTime => {
            StatusCode::REQUEST_TIMEOUT
        }
        Reason::Connections | Reason::AddressConnections | Reason::Memory | Reason::Flood => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// Looks a request over. The error is why it is refused.
pub fn check<'a>(head: &'a Parts, seen: &Seen<'a>, limits: &Limits) -> Result<Checked<'a>, Reason> {
    if seen.count > limits.headers || seen.bytes > limits.header_bytes {
        return Err(Reason::HeaderSize);
    }
    match head.method {
        Method::GET | Method::POST => {}
        Method::CONNECT if head.version > Version::HTTP_11 => {
            match head.extensions.get::<Protocol>() {
                // RFC 8441: a WebSocket on a stream.
                Some(protocol) if protocol.as_str() == "websocket" => {}
                Some(_) => return Err(Reason::Coding),
                // Not even RFC 9113, 8.5 would take it.
                None if head.uri.authority().is_none() => return Err(Reason::Host),
                None => return Err(Reason::Method),
            }
        }
        // TRACE would show a client what was added on the way; CONNECT would make an open proxy.
        Method::CONNECT | Method::TRACE => return Err(Reason::Method),
        // No method that is registered has one, and some servers take `delete` for DELETE, behind the
        // back of a rule about DELETE.
        _ if head.method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) => {
            return Err(Reason::Method);
        }
        _ => {}
    }
    if head.version > Version::HTTP_11 {
        multiplexed(head, limits)?;
        // In HTTP/1.1 refused while it is read.
        let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
        if seen.found.has(Found::CONTENT_LENGTH) && lengths.nth(1).is_some() {
            return Err(Reason::Framing);
        }
    }
    let host = host(head, seen)?;
    if seen.found.has(Found::EXPECT)
        && !head
            .headers
            .get_all(EXPECT)
            .iter()
            .all(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Reason::Expectation);
    }
    if seen.passes > MOST_PASSES {
        return Err(Reason::Loop);
    }
    match head.uri.path() {
        "*" if head.method == Method::OPTIONS => Ok(Checked::Ping),
        path if path.starts_with('/') => {
            let meant = normal(path)?.map_or(Cow::Borrowed(path), Cow::Owned);
            Ok(Checked::Route(host, meant))
        }
        // `GET *`, and authority-form without CONNECT.
        _ => Err(Reason::Target),
    }
}

/// What is refused in HTTP/1.1 while it is read.
fn multiplexed(head: &Parts, limits: &Limits) -> Result<(), Reason> {
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > limits.target_bytes {
        return Err(Reason::TargetSize);
    }
    if !target.bytes().all(is_plain) {
        return Err(Reason::Target);
    }
    for (name, value) in &head.headers {
        let (name, value) = (name.as_str(), value.as_bytes());
        if name.len() + value.len() > limits.line_bytes {
            return Err(Reason::HeaderSize);
        }
        // RFC 9113, 8.2.1.
        if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value {
            return Err(Reason::Malformed);
        }
    }
    Ok(())
}

/// What may stand in a target: no fragment, no backslash, nothing that is not printable ASCII.
#[inline]
pub fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && byte != b'#' && byte != b'\\'
}

/// The host that a request is for: one, in good shape, and the same wherever it is said.
fn host<'a>(head: &'a Parts, seen: &Seen<'a>) -> Result<&'a str, Reason> {
    const BAD: Reason = Reason::Host;
    if seen.hosts > 1 {
        return Err(BAD);
    }
    let header = match seen.host {
        Some(host) => Some(host.to_str().map_err(|_| BAD)?),
        None => None,
    };
    let Some(authority) = head.uri.authority().map(http::uri::Authority::as_str) else {
        return match header {
            Some(host) if is_host(host) => Ok(host),
            None if head.version == Version::HTTP_10 => Ok(""),
            _ => Err(BAD),
        };
    };
    let scheme = head.uri.scheme_str().unwrap_or("");
    if head.version <= Version::HTTP_11 {
        if !matches!(scheme, "http" | "https") {
            return Err(Reason::Target);
        }
        if header.is_none() && head.version != Version::HTTP_10 {
            return Err(BAD);
        }
    }
    // RFC 9112, 3.2.2 lets the target win; whoever writes two hosts wants to be seen as either.
    if !is_host(authority) || header.is_some_and(|host| !is_same(host, authority, scheme)) {
        return Err(BAD);
    }
    Ok(authority)
}

/// Whether two hosts are one, with or without the port that the scheme implies.
fn is_same(one: &str, other: &str, scheme: &str) -> bool {
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let bare = |host: &'_ str| host.len() - if host.ends_with(port) { port.len() } else { 0 };
    one[..bare(one)].eq_ignore_ascii_case(&other[..bare(other)])
}

/// A name or an address with an optional port, without user information. Escapes and the marks that a
/// URI allows have no place in a name that DNS knows.
fn is_host(host: &str) -> bool {
    let port = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => port,
            _ => return false,
        },
        None => match name(host) {
            Some(length) => &host[length..],
            None => return false,
        },
    };
    match port.strip_prefix(':') {
        None => port.is_empty(),
        Some("") => true,
        Some(digits) => {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        }
    }
}

/// What names are made of.
const IN_NAMES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        byte += 1;
    }
    table
};

/// Bytes of the name that a host begins with: labels between single dots; a dot may end it.
fn name(host: &str) -> Option<usize> {
    let (mut before, mut good, mut length) = (b'.', true, 0);
    for byte in host.bytes().take_while(|byte| IN_NAMES[usize::from(*byte)]) {
        good &= byte != b'.' || before != b'.';
        before = byte;
        length += 1;
    }
    (good && (1..=LONGEST_HOST).contains(&length)).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn asked(request: http::request::Builder) -> Result<String, u16> {
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let seen = Seen::look(&head.headers);
        check(&head, &seen, &Limits::default())
            .map(|checked| match checked {
                Checked::Route(host, path) if path == head.uri.path() => host.to_owned(),
                Checked::Route(host, path) => format!("{host} {path}"),
                Checked::Ping => "ping".to_owned(),
            })
            .map_err(|reason| status(reason).as_u16())
    }

    fn get(target: &str) -> http::request::Builder {
        Request::get(target)
    }

    #[test]
    fn hosts_are_one_and_sound() {
        for good in ["a", "a:80", "A.example.", "a:", "127.0.0.1:1", "[::1]", "[::1]:80", "x_y-z"] {
            assert_eq!(asked(get("/").header("host", good)), Ok(good.into()));
        }
        for bad in [
            "", ":80", "user@a", "a b", "a/b", "a,b", "a:b", "a:80:90", "a:99999", "a:+80", "[::1",
            "[::1]x", "[x]", "::1", "a..b", ".a", "..", "a%2fb", "a?b", "a#b", "a\\b", "a;b",
        ] {
            assert_eq!(asked(get("/").header("host", bad)), Err(400), "{bad}");
        }
        assert_eq!(asked(get("/").header("host", "a".repeat(256))), Err(400));
        assert_eq!(asked(get("/")), Err(400));
        assert_eq!(asked(get("/").version(Version::HTTP_10)), Ok(String::new()));
        assert_eq!(asked(get("/").header("host", "a").header("host", "a")), Err(400));
    }

    #[test]
    fn a_target_with_a_host_says_the_same() {
        assert_eq!(asked(get("http://b/x").header("host", "b")), Ok("b".into()));
        assert_eq!(asked(get("http://b/x").header("host", "B:80")), Ok("b".into()));
        assert_eq!(asked(get("http://b:80/x").header("host", "b")), Ok("b:80".into()));
        assert_eq!(asked(get("http://b/x").header("host", "a")), Err(400));
        assert_eq!(asked(get("http://b:81/x").header("host", "b")), Err(400));
        assert_eq!(asked(get("http://u@b/x").header("host", "b")), Err(400));
        assert_eq!(asked(get("ftp://b/x").header("host", "b")), Err(400));
        assert_eq!(asked(get("http://b/x")), Err(400));
        let h2 = || get("http://b/x").version(Version::HTTP_2);
        assert_eq!(asked(h2()), Ok("b".into()));
        assert_eq!(asked(h2().header("host", "b")), Ok("b".into()));
        assert_eq!(asked(h2().header("host", "a")), Err(400));
        assert_eq!(
            asked(h2().header("content-length", "5").header("content-length", "5")),
            Err(400)
        );
        assert_eq!(asked(h2().header("x", " y")), Err(400));
        assert_eq!(asked(h2().header("x", "y\t")), Err(400));
    }

    #[test]
    fn methods_targets_and_expectations() {
        let request = |method: &str, target: &str| {
            Request::builder().method(method).uri(target).header("host", "a")
        };
        assert_eq!(asked(request("TRACE", "/")), Err(405));
        assert_eq!(asked(request("CONNECT", "a:443")), Err(405));
        assert_eq!(asked(request("delete", "/")), Err(405));
        assert_eq!(asked(request("Get", "/")), Err(405));
        assert_eq!(asked(request("M-SEARCH", "/")), Ok("a".into()));
        assert_eq!(asked(request("OPTIONS", "*")), Ok("ping".into()));
        assert_eq!(asked(request("GET", "*")), Err(400));
        assert_eq!(asked(request("GET", "a:80")), Err(400));
        assert_eq!(asked(request("GET", "/x/../y")), Ok("a /y".into()));
        assert_eq!(asked(request("GET", "/../y")), Err(400));
        let long = format!("http://a/{}", "x".repeat(9000));
        assert_eq!(asked(get(&long).version(Version::HTTP_2)), Err(414));
        assert!(asked(request("PUT", "/").header("expect", "100-Continue")).is_ok());
        assert_eq!(asked(request("PUT", "/").header("expect", "miracle")), Err(417));
    }

    #[test]
    fn a_request_that_comes_round_again_is_stopped() {
        let mut round = get("/").header("host", "a");
        for _ in 0..8 {
            round = round.header("cdn-loop", "other.example, switchback");
        }
        let again = |request: http::request::Builder| asked(request);
        assert_eq!(again(round), Ok("a".into()));
        let round = get("/").header("host", "a").header("cdn-loop", ["switchback"; 9].join(", "));
        assert_eq!(again(round), Err(508));
    }

    #[test]
    fn sections_have_a_limit() {
        let mut many = get("/").header("host", "a");
        for n in 0..100 {
            many = many.header(format!("x-{n}"), "1");
        }
        assert_eq!(asked(many), Err(431));
        let h2 = || get("http://a/").version(Version::HTTP_2);
        assert_eq!(asked(h2().header("x", "y".repeat(33_000))), Err(431));
        assert_eq!(asked(h2().header("x", "y".repeat(9_000))), Err(431));
    }
}
