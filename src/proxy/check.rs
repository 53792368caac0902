//! What is refused before it is routed: malformed, too large, or not ours to forward.
//!
//! hyper has parsed the head and refused what is no HTTP at all; these are the rules it leaves to
//! its user (RFC 9110 and 9112). A refused HTTP/1.1 connection is closed, because where its next
//! request begins may be what is in doubt.

use http::header::EXPECT;
use http::request::Parts;
use http::{Method, StatusCode, Version};

use super::headers::{Found, Seen};
use super::limits::Limits;

/// What a request may be.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked<'a> {
    /// To be routed by this host.
    Route(&'a str),
    /// `OPTIONS *`: about the proxy itself.
    Ping,
}

/// Looks a request over. The error is what the client is told.
pub fn check<'a>(
    head: &'a Parts,
    seen: &Seen<'a>,
    limits: &Limits,
) -> Result<Checked<'a>, StatusCode> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    if seen.count > limits.headers || seen.bytes > limits.header_bytes {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    match head.method {
        Method::GET | Method::POST => {}
        // TRACE would show a client what was added on the way; CONNECT would make an open proxy.
        Method::CONNECT | Method::TRACE => return Err(StatusCode::METHOD_NOT_ALLOWED),
        _ => {}
    }
    if head.uri.path_and_query().map_or(0, |target| target.as_str().len()) > limits.target_bytes {
        return Err(StatusCode::URI_TOO_LONG);
    }
    if seen.hosts > 1 {
        return Err(BAD);
    }
    let header = match seen.host {
        Some(host) => Some(host.to_str().map_err(|_| BAD)?),
        None => None,
    };
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    let host = match (head.version, authority, header) {
        (Version::HTTP_2, Some(authority), Some(host)) if authority != host => return Err(BAD),
        (_, Some(authority), _) if head.version == Version::HTTP_2 || header.is_some() => authority,
        (Version::HTTP_10, authority, None) => authority.unwrap_or(""),
        (_, None, Some(host)) => host,
        _ => return Err(BAD),
    };
    if !is_host(host) {
        return Err(BAD);
    }
    framing(head, seen)?;
    if seen.found.has(Found::EXPECT)
        && !head
            .headers
            .get_all(EXPECT)
            .iter()
            .all(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(StatusCode::EXPECTATION_FAILED);
    }
    match head.uri.path() {
        "*" if head.method == Method::OPTIONS => Ok(Checked::Ping),
        path if path.starts_with('/') => Ok(Checked::Route(host)),
        // `GET *`, and authority-form without CONNECT.
        _ => Err(BAD),
    }
}

/// How long the body is must be beyond doubt: exactly `chunked`, in HTTP/1.1, and not with a
/// `Content-Length` beside it.
fn framing(head: &Parts, seen: &Seen<'_>) -> Result<(), StatusCode> {
    let Some(encoding) = seen.transfer_encoding else { return Ok(()) };
    let good = seen.transfer_encodings == 1
        && encoding.as_bytes().eq_ignore_ascii_case(b"chunked")
        && head.version == Version::HTTP_11
        && !seen.found.has(Found::CONTENT_LENGTH);
    if good { Ok(()) } else { Err(StatusCode::BAD_REQUEST) }
}

/// A host with an optional port: what a URI's authority allows, without user information.
fn is_host(host: &str) -> bool {
    host.bytes().all(|b| {
        b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'_' | b'[' | b']' | b'%')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn status(request: http::request::Builder) -> Result<String, u16> {
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let seen = Seen::look(&head.headers);
        check(&head, &seen, &Limits::default())
            .map(|checked| match checked {
                Checked::Route(host) => host.to_owned(),
                Checked::Ping => "ping".to_owned(),
            })
            .map_err(|status| status.as_u16())
    }

    fn get(target: &str) -> http::request::Builder {
        Request::get(target)
    }

    #[test]
    fn hosts_are_one_and_sound() {
        assert_eq!(status(get("/").header("host", "a:80")), Ok("a:80".into()));
        assert_eq!(status(get("/")), Err(400));
        assert_eq!(status(get("/").version(Version::HTTP_10)), Ok(String::new()));
        assert_eq!(status(get("/").header("host", "a").header("host", "a")), Err(400));
        for bad in ["user@a", "a b", "a/b", "a,b"] {
            assert_eq!(status(get("/").header("host", bad)), Err(400), "{bad}");
        }
        // The absolute form wins over Host (RFC 9112, 3.2.2), but does not stand in for it.
        assert_eq!(status(get("http://b/x").header("host", "a")), Ok("b".into()));
        assert_eq!(status(get("http://b/x")), Err(400));
        let h2 = || get("http://b/x").version(Version::HTTP_2);
        assert_eq!(status(h2()), Ok("b".into()));
        assert_eq!(status(h2().header("host", "a")), Err(400));
    }

    #[test]
    fn framing_is_beyond_doubt() {
        let post = || Request::post("/").header("host", "a");
        assert!(status(post().header("transfer-encoding", "chunked")).is_ok());
        for bad in
            ["gzip, chunked", "chunked, chunked", ", chunked", "identity", "x", "chunked;q=1"]
        {
            assert_eq!(status(post().header("transfer-encoding", bad)), Err(400), "{bad}");
        }
        let twice = post().header("transfer-encoding", "chunked");
        assert_eq!(status(twice.header("transfer-encoding", "chunked")), Err(400));
        let old = post().version(Version::HTTP_10).header("transfer-encoding", "chunked");
        assert_eq!(status(old), Err(400));
        let both = post().header("transfer-encoding", "chunked").header("content-length", "3");
        assert_eq!(status(both), Err(400));
    }

    #[test]
    fn methods_targets_and_expectations() {
        let request = |method: &str, target: &str| {
            Request::builder().method(method).uri(target).header("host", "a")
        };
        assert_eq!(status(request("TRACE", "/")), Err(405));
        assert_eq!(status(request("CONNECT", "a:443")), Err(405));
        assert_eq!(status(request("OPTIONS", "*")), Ok("ping".into()));
        assert_eq!(status(request("GET", "*")), Err(400));
        assert_eq!(status(request("GET", &format!("/{}", "x".repeat(9000)))), Err(414));
        assert!(status(request("PUT", "/").header("expect", "100-Continue")).is_ok());
        assert_eq!(status(request("PUT", "/").header("expect", "miracle")), Err(417));
    }

    #[test]
    fn sections_have_a_limit() {
        let mut many = get("/").header("host", "a");
        for n in 0..100 {
            many = many.header(format!("x-{n}"), "1");
        }
        assert_eq!(status(many), Err(431));
        assert_eq!(status(get("/").header("host", "a").header("x", "y".repeat(33_000))), Err(431));
    }
}
