//! Which responses are compressed, and how: what a client accepts, what is worth it, what must be left
//! alone.

use std::fmt;

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderMap,
    HeaderValue, VARY,
};
use http::{Method, StatusCode};

/// Bytes below which compressing costs more than it spares: with its head a response is one packet
/// anyway.
pub const LEAST: u64 = 1024;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878
    Zstd,
    /// RFC 7932
    Brotli,
    /// RFC 1952
    Gzip,
}

impl Coding {
    /// All of them, the one preferred first where a client has no preference.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Its name in HTTP.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The coding of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|coding| coding.token() == name)
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

/// The coding that a client prefers among those that are offered (RFC 9110, 12.5.3); the first of the
/// offered when it does not mind. `None` when it is to get the body as it is.
#[must_use]
pub fn choose(offered: &[Coding], headers: &HeaderMap) -> Option<Coding> {
    if offered.is_empty() || is_fixed(headers) {
        return None;
    }
    let mut all = None;
    let mut plain = None;
    let mut weights = [None; Coding::ALL.len()];
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for element in values.flat_map(|value| value.split(',')) {
        let (name, weight) = match element.split_once(';') {
            Some((name, rest)) => (name, weight(rest.split(';').next().unwrap_or("").trim())),
            None => (element, 1000),
        };
        let name = name.trim();
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("*") {
            all = Some(weight);
        } else if is("identity") {
            plain = Some(weight);
        } else if let Some(at) = Coding::ALL.iter().position(|coding| {
            is(coding.token())
                || name.get(..2).is_some_and(|x| x.eq_ignore_ascii_case("x-"))
                    && name[2..].eq_ignore_ascii_case(coding.token())
        }) {
            weights[at] = Some(weight);
        }
    }
    let mut best: Option<(Coding, u16)> = None;
    for coding in offered {
        let own = Coding::ALL.iter().position(|known| known == coding);
        let weight = own.and_then(|at| weights[at]).or(all).unwrap_or(0);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((*coding, weight));
        }
    }
    best.filter(|(_, weight)| plain.is_none_or(|plain| plain <= *weight)).map(|(coding, _)| coding)
}

/// A quality in thousandths; what is none counts as 0.
fn weight(text: &str) -> u16 {
    let Some(text) = text.strip_prefix(['q', 'Q']).and_then(|rest| rest.trim().strip_prefix('='))
    else {
        return 0;
    };
    let (whole, rest) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let is_sound = rest.len() <= 3 && rest.bytes().all(|byte| byte.is_ascii_digit());
    let digit = |at: usize| rest.as_bytes().get(at).map_or(0, |digit| u16::from(*digit - b'0'));
    let thousandths = if is_sound { digit(0) * 100 + digit(1) * 10 + digit(2) } else { 0 };
    match whole {
        "0" if is_sound => thousandths,
        "1" if is_sound && thousandths == 0 => 1000,
        _ => 0,
    }
}

/// What may be done to a response's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Nothing: it is not to be compressed for anybody.
    Not,
    /// Nothing, but what a client gets depends on what it accepts.
    Varies,
    /// It may be compressed.
    Yes,
}

/// Whether a response may be compressed, as far as its head tells. `length` is what is known of its
/// body's.
#[must_use]
pub fn fit(method: &Method, status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> Fit {
    if status == StatusCode::NOT_MODIFIED {
        // It stands for a response that varies (RFC 9110, 15.4.5).
        return Fit::Varies;
    }
    let never = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::PARTIAL_CONTENT)
        || *method == Method::CONNECT
        || headers.contains_key(CONTENT_ENCODING)
        || headers.contains_key(CONTENT_RANGE);
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if never || !is_compressible(kind) || is_fixed(headers) {
        return Fit::Not;
    }
    if length.is_some_and(|length| length < LEAST) { Fit::Varies } else { Fit::Yes }
}

/// Whether nobody on the way may change the body, or shall not (RFC 9111, 5.2.2.6 and 5.2.1.6).
fn is_fixed(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("no-transform"))
}

/// Whether bodies of this type become smaller. Event streams are left alone: each event must arrive at
/// once.
fn is_compressible(kind: &str) -> bool {
    const KINDS: [&str; 12] = [
        "application/javascript",
        "application/json",
        "application/manifest+json",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/x-javascript",
        "application/x-ndjson",
        "application/xml",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/x-icon",
    ];
    let kind = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    kind.starts_with("text/") && kind != "text/event-stream"
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || KINDS.contains(&kind.as_str())
}

/// Tells caches that the response depends on what the client accepts.
pub fn vary(headers: &mut HeaderMap) {
    let values = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
    let told = values.flat_map(|value| value.split(',')).any(|name| {
        matches!(name.trim(), "*") || name.trim().eq_ignore_ascii_case("accept-encoding")
    });
    if !told {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// A validator of what the body means, instead of its bytes (RFC 9110, 8.8.1).
#[must_use]
pub fn weak(tag: &HeaderValue) -> Option<HeaderValue> {
    if tag.as_bytes().starts_with(b"W/") {
        return None;
    }
    HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_client_gets_what_it_prefers() {
        let all = Coding::ALL;
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, deflate, br", Some(Coding::Brotli)),
            ("GZIP", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("gzip;q=1.0, br;q=0.5, zstd;q=0", Some(Coding::Gzip)),
            ("gzip; q=0.5 , br ; q=0.501", Some(Coding::Brotli)),
            ("*", Some(Coding::Zstd)),
            ("*;q=0.1, zstd;q=0", Some(Coding::Brotli)),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0, gzip;q=0.5", Some(Coding::Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=0.0000", None),
            ("gzip;q=2", None),
            ("gzip;q=x", None),
            ("gzip;level=9", None),
            ("deflate, compress", None),
            ("", None),
        ] {
            assert_eq!(choose(&all, &head(&[("accept-encoding", accept)])), expected, "{accept}");
        }
        assert_eq!(choose(&all, &HeaderMap::new()), None);
        let two = head(&[("accept-encoding", "br"), ("accept-encoding", "gzip;q=0.9")]);
        assert_eq!(choose(&[Coding::Gzip], &two), Some(Coding::Gzip));
        assert_eq!(choose(&[Coding::Gzip, Coding::Brotli], &two), Some(Coding::Brotli));
        let asked = [("accept-encoding", "gzip"), ("cache-control", "max-age=0, no-transform")];
        assert_eq!(choose(&all, &head(&asked)), None, "a client that wants it as it is");
        let any = head(&[("accept-encoding", "*")]);
        assert_eq!(choose(&[Coding::Gzip, Coding::Brotli], &any), Some(Coding::Gzip));
    }

    #[test]
    fn what_must_be_left_alone_is() {
        let html = ("content-type", "text/html; charset=utf-8");
        let of = |status: u16, length, fields: &[(&'static str, &'static str)]| {
            let status = StatusCode::from_u16(status).expect("a status");
            fit(&Method::GET, status, &head(fields), length)
        };
        assert_eq!(of(200, None, &[html]), Fit::Yes);
        assert_eq!(of(404, Some(5_000), &[html]), Fit::Yes);
        assert_eq!(of(200, Some(1_023), &[html]), Fit::Varies);
        assert_eq!(of(304, None, &[]), Fit::Varies);
        for (status, fields) in [
            (206, &[html][..]),
            (204, &[html]),
            (101, &[html]),
            (200, &[html, ("content-encoding", "br")]),
            (200, &[html, ("content-range", "bytes 0-1/2")]),
            (200, &[html, ("cache-control", "public, No-Transform")]),
            (200, &[]),
            (200, &[("content-type", "text/event-stream")]),
            (200, &[("content-type", "image/png")]),
            (200, &[("content-type", "application/grpc+json2")]),
            (200, &[("content-type", "application/octet-stream")]),
        ] {
            assert_eq!(of(status, None, fields), Fit::Not, "{status} {fields:?}");
        }
        for kind in ["application/json", "image/svg+xml", "Application/LD+JSON", "font/ttf"] {
            assert!(is_compressible(kind), "{kind}");
        }
    }

    #[test]
    fn caches_are_told_once() {
        for (before, after) in [
            (None, "accept-encoding"),
            (Some("cookie"), "cookie, accept-encoding"),
            (Some("*"), "*"),
            (Some("x, Accept-Encoding"), "x, Accept-Encoding"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(before) = before {
                headers.insert(VARY, HeaderValue::from_static(before));
            }
            vary(&mut headers);
            let all: Vec<_> =
                headers.get_all(VARY).iter().map(|v| v.to_str().expect("text")).collect();
            assert_eq!(all.join(", "), after);
        }
        assert_eq!(weak(&HeaderValue::from_static("\"a\"")).expect("weak"), "W/\"a\"");
        assert_eq!(weak(&HeaderValue::from_static("W/\"a\"")), None);
    }
}
