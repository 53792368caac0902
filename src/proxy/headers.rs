//! Header fields on their way through: one look over each section, then only what was found is changed.
//!
//! Hop-by-hop fields (RFC 9110, 7.6.1) are those of one connection and never pass: `Connection` and
//! what it names, `Keep-Alive`, `Proxy-*`, `TE` but for `trailers`, `Transfer-Encoding`, `Upgrade`.
//! `Trailer` passes, because an instance is sent only those that it announces. A `Connection` field
//! cannot name away the fields on which others rely (see [`is_protected`]). Nor does a client say anything
//! under names of ours, `X-Switchback-*`: instances believe those.

use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};

/// `cdn-loop`, which each proxy of our kind adds, so that a request that comes round is noticed
/// (RFC 8586).
pub const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// What we write into it.
pub const PASS: &str = "switchback";
/// `keep-alive`
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// `proxy-connection`
pub const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// `x-forwarded-for`
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `x-forwarded-host`
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `x-forwarded-proto`
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `x-real-ip`
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// `x-request-id`
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `traceparent`
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `x-client-cert-subject`
pub const X_CLIENT_CERT_SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
/// `x-client-cert-fingerprint`
pub const X_CLIENT_CERT_FINGERPRINT: HeaderName =
    HeaderName::from_static("x-client-cert-fingerprint");
/// What the names begin with that only we say to instances.
const OURS: &str = "x-switchback-";
/// `x-switchback-force`
pub const FORCE: HeaderName = HeaderName::from_static("x-switchback-force");
/// `x-switchback-secret`
pub const SECRET: HeaderName = HeaderName::from_static("x-switchback-secret");
/// `x-switchback-revision`
pub const REVISION: HeaderName = HeaderName::from_static("x-switchback-revision");

/// Which fields of interest are in a section.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found(u32);

impl Found {
    /// `Connection`
    pub const CONNECTION: Self = Self(1);
    /// `Keep-Alive`
    pub const KEEP_ALIVE: Self = Self(1 << 1);
    /// `Proxy-Connection`
    pub const PROXY_CONNECTION: Self = Self(1 << 2);
    /// `Proxy-Authenticate`
    pub const PROXY_AUTHENTICATE: Self = Self(1 << 3);
    /// `Proxy-Authorization`
    pub const PROXY_AUTHORIZATION: Self = Self(1 << 4);
    /// `TE`
    pub const TE: Self = Self(1 << 5);
    /// `Transfer-Encoding`
    pub const TRANSFER_ENCODING: Self = Self(1 << 6);
    /// `Upgrade`
    pub const UPGRADE: Self = Self(1 << 7);
    /// `Content-Length`
    pub const CONTENT_LENGTH: Self = Self(1 << 8);
    /// `Expect`
    pub const EXPECT: Self = Self(1 << 9);
    /// One of the fields by which testers choose a side.
    pub const TESTER: Self = Self(1 << 10);
    /// `X-Forwarded-Proto`
    pub const FORWARDED_PROTO: Self = Self(1 << 11);
    /// `X-Forwarded-Host`
    pub const FORWARDED_HOST: Self = Self(1 << 12);
    /// Another field in which proxies speak of a client.
    pub const HEARSAY: Self = Self(1 << 13);
    /// A field of a name that only we say.
    pub const OURS: Self = Self(1 << 14);
    const HOP_BY_HOP: Self = Self(0xff);

    /// Whether all of these were found.
    #[inline]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[inline]
    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What one look over a request's header section saw.
#[derive(Debug, Default)]
pub struct Seen<'a> {
    /// Which fields there are.
    pub found: Found,
    /// The first `Host`.
    pub host: Option<&'a HeaderValue>,
    /// Whether there is more than one `Host`.
    pub hosts: u32,
    /// `Accept`
    pub accept: Option<&'a HeaderValue>,
    /// How many `Cookie` fields there are: HTTP/2 clients may send crumbs.
    pub cookies: u32,
    /// The first of them.
    pub cookie: Option<&'a HeaderValue>,
    /// `X-Request-ID`
    pub request_id: Option<&'a HeaderValue>,
    /// `traceparent`
    pub traceparent: Option<&'a HeaderValue>,
    /// How often it came through a proxy of our kind.
    pub passes: u32,
    /// How many fields there are.
    pub count: usize,
    /// Bytes in names and values.
    pub bytes: usize,
}

impl<'a> Seen<'a> {
    /// Looks over a request's header section.
    pub fn look(headers: &'a HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            seen.count += 1;
            // Two for ": " and two for the line's end.
            seen.bytes += name.len() + value.len() + 4;
            seen.note(name, value);
        }
        seen
    }

    // By length first: a jump and mostly one comparison, instead of a hash per name.
    #[inline]
    fn note(&mut self, name: &str, value: &'a HeaderValue) {
        match name.len() {
            2 if name == "te" => self.found.add(Found::TE),
            4 if name == "host" => {
                self.hosts += 1;
                self.host.get_or_insert(value);
            }
            6 if name == "cookie" => {
                self.cookies += 1;
                self.cookie.get_or_insert(value);
            }
            6 if name == "accept" => self.accept = Some(value),
            6 if name == "expect" => self.found.add(Found::EXPECT),
            7 if name == "upgrade" => self.found.add(Found::UPGRADE),
            9 if matches!(name, "forwarded" | "x-real-ip") => self.found.add(Found::HEARSAY),
            8 if name == "cdn-loop" => {
                let ours = tokens(value)
                    .filter(|token| token.split(';').next().is_some_and(|id| id.trim() == PASS));
                self.passes += u32::try_from(ours.count()).unwrap_or(u32::MAX);
            }
            10 if name == "connection" => self.found.add(Found::CONNECTION),
            10 if name == "keep-alive" => self.found.add(Found::KEEP_ALIVE),
            11 if name == "traceparent" => self.traceparent = Some(value),
            12 if name == "x-request-id" => self.request_id = Some(value),
            14 if name == "content-length" => self.found.add(Found::CONTENT_LENGTH),
            16 if name == "proxy-connection" => self.found.add(Found::PROXY_CONNECTION),
            15 if name == "x-forwarded-for" => {}
            16 if name == "x-forwarded-host" => self.found.add(Found::FORWARDED_HOST),
            17 if name == "transfer-encoding" => self.found.add(Found::TRANSFER_ENCODING),
            17 if name == "x-forwarded-proto" => self.found.add(Found::FORWARDED_PROTO),
            18 if name == "proxy-authenticate" => self.found.add(Found::PROXY_AUTHENTICATE),
            19 if name == "proxy-authorization" => self.found.add(Found::PROXY_AUTHORIZATION),
            13.. if name.starts_with("x-forwarded-") => self.found.add(Found::HEARSAY),
            14.. if name.starts_with(OURS) => {
                self.found.add(Found::OURS);
                if name == FORCE.as_str() || name == SECRET.as_str() {
                    self.found.add(Found::TESTER);
                }
            }
            _ => {}
        }
    }
}

/// What the `Connection` and `Upgrade` fields of a request asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// A change to WebSocket. Others are not forwarded: `h2c` would let a client speak past us.
    pub websocket: bool,
    /// `TE: trailers`.
    pub trailers: bool,
}

/// Drops fields that have an underscore in their name: many servers make one name of `X_Forwarded_For`
/// and `X-Forwarded-For`.
pub fn drop_underscores(headers: &mut HeaderMap) {
    let found: Vec<_> =
        headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Takes the hop-by-hop fields off a request and says what they asked for.
/// `Transfer-Encoding` stays: the caller has seen to it that it is `chunked`, and hyper needs it to
/// frame a body of unknown length on a GET.
pub fn strip_request(headers: &mut HeaderMap, found: Found) -> Asked {
    let mut asked = Asked::default();
    if found.0 & Found::HOP_BY_HOP.0 == 0 && !found.has(Found::OURS) {
        return asked;
    }
    if found.has(Found::TE) {
        asked.trailers = headers.get_all(TE).iter().any(|te| has_token(te, "trailers"));
        headers.remove(TE);
    }
    if found.has(Found::UPGRADE) {
        let connection = headers.get_all(CONNECTION);
        asked.websocket = connection.iter().any(|value| has_token(value, "upgrade"))
            && headers.get(UPGRADE).is_some_and(|value| has_token(value, "websocket"));
        headers.remove(UPGRADE);
    }
    if found.has(Found::CONNECTION) {
        strip_named(headers);
    }
    strip_rest(headers, found);
    if found.has(Found::OURS) {
        let ours: Vec<_> =
            headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
        for name in ours {
            headers.remove(name);
        }
    }
    asked
}

/// Takes the hop-by-hop fields off a response. hyper frames it anew, so `Transfer-Encoding` goes too.
pub fn strip_response(headers: &mut HeaderMap) {
    let mut found = Found::default();
    for name in headers.keys() {
        let name = name.as_str();
        match name.len() {
            2 if name == "te" => found.add(Found::TE),
            7 if name == "upgrade" => found.add(Found::UPGRADE),
            10 if name == "connection" => found.add(Found::CONNECTION),
            10 if name == "keep-alive" => found.add(Found::KEEP_ALIVE),
            16 if name == "proxy-connection" => found.add(Found::PROXY_CONNECTION),
            17 if name == "transfer-encoding" => found.add(Found::TRANSFER_ENCODING),
            18 if name == "proxy-authenticate" => found.add(Found::PROXY_AUTHENTICATE),
            19 if name == "proxy-authorization" => found.add(Found::PROXY_AUTHORIZATION),
            _ => {}
        }
    }
    if found == Found::default() {
        return;
    }
    if found.has(Found::CONNECTION) {
        strip_named(headers);
    }
    if found.has(Found::TRANSFER_ENCODING) {
        headers.remove(TRANSFER_ENCODING);
    }
    if found.has(Found::TE) {
        headers.remove(TE);
    }
    if found.has(Found::UPGRADE) {
        headers.remove(UPGRADE);
    }
    strip_rest(headers, found);
}

fn strip_rest(headers: &mut HeaderMap, found: Found) {
    if found.has(Found::KEEP_ALIVE) {
        headers.remove(KEEP_ALIVE);
    }
    if found.has(Found::PROXY_CONNECTION) {
        headers.remove(PROXY_CONNECTION);
    }
    if found.has(Found::PROXY_AUTHENTICATE) {
        headers.remove(PROXY_AUTHENTICATE);
    }
    if found.has(Found::PROXY_AUTHORIZATION) {
        headers.remove(PROXY_AUTHORIZATION);
    }
}

/// Removes `Connection` and the fields that it names.
fn strip_named(headers: &mut HeaderMap) {
    let http::header::Entry::Occupied(entry) = headers.entry(CONNECTION) else { return };
    let values: Vec<_> = entry.remove_entry_mult().1.filter(|value| !is_usual(value)).collect();
    for token in values.iter().flat_map(tokens) {
        if !is_protected(token)
            && let Ok(name) = HeaderName::from_bytes(token.as_bytes())
        {
            headers.remove(name);
        }
    }
}

/// Nearly always one value, and nearly always one of these: nothing else is named.
fn is_usual(value: &HeaderValue) -> bool {
    matches!(value.as_bytes(), b"keep-alive" | b"close" | b"Keep-Alive" | b"Upgrade" | b"upgrade")
}

/// Fields that `Connection` may not name away: without them a request means something else, or
/// says that it comes from somebody else.
fn is_protected(name: &str) -> bool {
    const PROTECTED: [&str; 10] = [
        "host",
        "authorization",
        "content-length",
        "transfer-encoding",
        "cookie",
        "cdn-loop",
        "expect",
        "forwarded",
        "x-request-id",
        "traceparent",
    ];
    PROTECTED.iter().any(|protected| name.eq_ignore_ascii_case(protected))
        || name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("x-forwarded-"))
}

/// The tokens of a comma-separated field.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or("").split(',').map(str::trim).filter(|token| !token.is_empty())
}

/// Whether a comma-separated field has this token, in any case.
pub fn has_token(value: &HeaderValue, wanted: &str) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(wanted))
}

/// Takes out of trailers what RFC 9110, 6.5.1 forbids there: framing, routing, authentication,
/// and fields by which a message is processed; and what the proxy vouches for, because some servers
/// put trailers among the fields.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    const FORBIDDEN: [&str; 27] = [
        "authorization",
        "cache-control",
        "cdn-loop",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "location",
        "max-forwards",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "set-cookie",
        "te",
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "www-authenticate",
        "x-real-ip",
        "x-request-id",
    ];
    let bad = |name: &str| {
        FORBIDDEN.binary_search(&name).is_ok()
            || name.starts_with("x-forwarded-")
            || name.starts_with("x-client-cert-")
            || name.starts_with(OURS)
            || name.contains('_')
    };
    let found: Vec<_> = trailers.keys().filter(|name| bad(name.as_str())).cloned().collect();
    for name in found {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    fn strip(headers: &mut HeaderMap) -> Asked {
        let found = Seen::look(headers).found;
        strip_request(headers, found)
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let mut headers = map(&[
            ("connection", "close, X-Private, content-length, X-Forwarded-For, Host"),
            ("host", "a"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip, trailers"),
            ("trailer", "x-sum"),
            ("upgrade", "h2c"),
            ("x-private", "1"),
            ("x-forwarded-for", "1.2.3.4"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ]);
        let asked = strip(&mut headers);
        assert_eq!(asked, Asked { websocket: false, trailers: true });
        let mut left = names(&headers);
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host", "trailer", "x-forwarded-for"]);
    }

    #[test]
    fn only_a_websocket_is_asked_for() {
        for (connection, upgrade, expected) in [
            ("Upgrade", "websocket", true),
            ("keep-alive, upgrade", "WebSocket", true),
            ("keep-alive", "websocket", false),
            ("upgrade", "h2c", false),
            ("upgrade, http2-settings", "h2c", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("connection", HeaderValue::from_static(connection));
            headers.insert("upgrade", HeaderValue::from_static(upgrade));
            assert_eq!(strip(&mut headers).websocket, expected, "{connection} {upgrade}");
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn a_plain_request_is_left_alone() {
        let mut headers = map(&[("host", "a"), ("accept", "*/*"), ("cookie", "a=b")]);
        let before = headers.clone();
        assert_eq!(strip(&mut headers), Asked::default());
        assert_eq!(headers, before);
    }

    #[test]
    fn a_response_loses_its_framing() {
        let mut headers = map(&[
            ("transfer-encoding", "chunked"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("server", "s"),
            ("trailer", "x-sum"),
        ]);
        strip_response(&mut headers);
        assert_eq!(names(&headers), ["server", "trailer"]);
    }

    #[test]
    fn fields_of_our_names_do_not_go_upstream() {
        for ours in [
            "x-switchback-force",
            "x-switchback-secret",
            "x-switchback-mirror",
            "x-switchback-revision",
            "x-switchback-x",
        ] {
            let mut headers = map(&[(ours, "1"), ("x-switch", "b"), ("accept", "a")]);
            headers.append(ours, HeaderValue::from_static("2"));
            strip(&mut headers);
            assert!(headers.len() == 2 && !headers.contains_key(ours), "{headers:?}");
        }
    }

    #[test]
    fn trailers_cannot_reframe() {
        let mut trailers = map(&[
            ("content-length", "5"),
            ("x-sum", "1"),
            ("host", "evil"),
            ("x-client-cert-subject", "CN=root"),
            ("x-switchback-mirror", "1"),
        ]);
        strip_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["x-sum"]);
    }
}
