//! Heads of requests in HTTP/1.1, out of bytes. No input or output here.
//!
//! Strict on purpose: whatever two parsers may read in two ways is refused, because where the next
//! request begins must be beyond doubt for us and for whoever is behind us (RFC 9112, 11.2). Lines end
//! with CR LF and nothing else; a name is followed by its colon; a length is one number; a transfer
//! coding is `chunked`, alone, and never beside a length.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version};
use std::mem::MaybeUninit;

use super::framing::{Framing, Told};
use crate::proxy::check::is_plain;
use crate::proxy::chunked::has_bare_feed;
use crate::proxy::limits::Limits;
use crate::telemetry::traffic::Reason;

/// Fields for which there is room on the stack.
const MOST_FIELDS: usize = 256;
/// Bytes of a method: longer than any that is registered (RFC 9110, 16.1).
const LONGEST_METHOD: usize = 32;
/// What may surround the target in a request line: the method, the version, and spaces.
const AROUND_TARGET: usize = LONGEST_METHOD + 16;

/// A request's head, and what it says about its connection.
#[derive(Debug)]
pub struct RequestHead {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// 1.0 or 1.1.
    pub version: Version,
    /// Its fields, without those that have an underscore in their name.
    pub headers: HeaderMap,
    /// How its body is framed.
    pub framing: Framing,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    /// Whether a 100 is to be sent before the body is.
    pub expects: bool,
    /// Whether it takes trailers.
    pub trailers: bool,
}

/// What is known of a head that is not complete.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes in which its end was not found.
    searched: usize,
}

/// Takes a request's head off what was read; `None` when it is not complete. `headers` is an empty map
/// whose room is used again.
pub fn read_request(
    read: &mut BytesMut,
    progress: &mut Progress,
    limits: &Limits,
    headers: &mut HeaderMap,
) -> Result<Option<RequestHead>, Reason> {
    if progress.searched == 0 {
        skip_empty_lines(read)?;
        // Nearly always a head comes alone and as a whole, and its end need not be searched for.
        if read.ends_with(b"\r\n\r\n") {
            let bytes = read.split().freeze();
            match parse(&bytes, limits, headers)? {
                Some(head) => return Ok(Some(head)),
                None => *read = bytes.into(),
            }
        }
    }
    // The end is found first: then the bytes are shared once, and all fields are slices of them.
    let from = progress.searched.saturating_sub(3);
    let Some(end) = memchr::memmem::find(&read[from..], b"\r\n\r\n").map(|at| from + at + 4) else {
        unfinished(read, progress, limits)?;
        return Ok(None);
    };
    let bytes = read.split_to(end).freeze();
    progress.searched = 0;
    match parse(&bytes, limits, headers)? {
        Some(head) => Ok(Some(head)),
        // A bare line feed ended it before.
        None => Err(Reason::Malformed),
    }
}

/// Empty lines before a request are nothing (RFC 9112, 2.2); half of one may be.
fn skip_empty_lines(read: &mut BytesMut) -> Result<(), Reason> {
    while read.starts_with(b"\r\n") {
        read.advance(2);
    }
    match read.as_ref() {
        [b'\n', ..] | [b'\r', _, ..] => Err(Reason::Malformed),
        _ => Ok(()),
    }
}

/// Whether a head that is not complete can still become a good one.
fn unfinished(read: &BytesMut, progress: &mut Progress, limits: &Limits) -> Result<(), Reason> {
    let searched = std::mem::replace(&mut progress.searched, read.len());
    let has_line = memchr::memchr(b'\n', &read[searched.min(read.len())..]).is_some();
    let first = memchr::memchr(b'\n', &read[..]);
    if first.unwrap_or(read.len()) > limits.target_bytes + AROUND_TARGET {
        return Err(Reason::TargetSize);
    }
    if read.len() > limits.header_bytes {
        return Err(Reason::HeaderSize);
    }
    if first.is_none() && !read.is_empty() && !begins_well(read) {
        return Err(Reason::Malformed);
    }
    if !has_line {
        return Ok(());
    }
    if has_bare_feed(read) {
        return Err(Reason::Malformed);
    }
    let (mut few, mut many) = ([const { MaybeUninit::uninit() }; MOST_FIELDS], Vec::new());
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(read, room(&mut few, &mut many, limits)) {
        Ok(httparse::Status::Partial) => Ok(()),
        // Complete for who takes a bare line feed for a line's end.
        Ok(httparse::Status::Complete(_)) => Err(Reason::Malformed),
        Err(error) => Err(reason(error, read)),
    }
}

type Field<'a> = MaybeUninit<httparse::Header<'a>>;

/// Room for one field more than is allowed: on the stack, unless somebody allows very many.
fn room<'r, 'a>(
    few: &'r mut [Field<'a>],
    many: &'r mut Vec<Field<'a>>,
    limits: &Limits,
) -> &'r mut [Field<'a>] {
    if limits.headers < few.len() {
        return few;
    }
    many.resize_with(limits.headers + 1, MaybeUninit::uninit);
    many
}

/// Whether a line without its end may be the beginning of a request: what speaks TLS or something
/// else is told at once.
fn begins_well(read: &[u8]) -> bool {
    let method = read.iter().take_while(|byte| is_token(**byte)).count();
    method <= LONGEST_METHOD
        && match read.get(method) {
            None => true,
            Some(b' ') => method > 0,
            Some(b'\r') => read.len() == 1,
            Some(_) => false,
        }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Why a head is refused that the parser does not take.
fn reason(error: httparse::Error, bytes: &[u8]) -> Reason {
    match error {
        httparse::Error::TooManyHeaders => Reason::HeaderSize,
        httparse::Error::Version if names_version(bytes) => Reason::Version,
        _ => Reason::Malformed,
    }
}

/// Whether a request line ends with a version of HTTP, though not one of ours.
fn names_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    let version = words.next().unwrap_or_default();
    words.next().is_none()
        && matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// A head that is all of these bytes; `None` when it ends before.
fn parse(
    bytes: &Bytes,
    limits: &Limits,
    headers: &mut HeaderMap,
) -> Result<Option<RequestHead>, Reason> {
    let (mut few, mut many) = ([const { MaybeUninit::uninit() }; MOST_FIELDS], Vec::new());
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, room(&mut few, &mut many, limits)) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(httparse::Status::Complete(_)) => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(Reason::Malformed),
        Err(error) => return Err(reason(error, bytes)),
    }
    let (method, target) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
    if target.len() > limits.target_bytes {
        return Err(Reason::TargetSize);
    }
    let count = request.headers.len();
    if bytes.len() > limits.header_bytes || count > limits.headers {
        return Err(Reason::HeaderSize);
    }
    if method.len() > LONGEST_METHOD {
        return Err(Reason::Method);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Reason::Malformed)?;
    let target = bytes.slice_ref(target.as_bytes());
    if !target.iter().all(|byte| is_plain(*byte)) {
        return Err(Reason::Target);
    }
    let uri = Uri::from_maybe_shared(target).map_err(|_| Reason::Target)?;
    let version = if request.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut told = Told::default();
    headers.reserve(count);
    let start = bytes.as_ptr() as usize;
    for field in request.headers.iter() {
        // The parser takes a bare line feed for a line's end; we do not.
        let at = field.name.as_ptr() as usize - start;
        if bytes.get(at.wrapping_sub(2)) != Some(&b'\r') {
            return Err(Reason::Malformed);
        }
        if field.name.len() + field.value.len() > limits.line_bytes {
            return Err(Reason::HeaderSize);
        }
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Reason::Malformed)?;
        let value =
            if field.value.is_empty() { Bytes::new() } else { bytes.slice_ref(field.value) };
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Reason::Malformed)?;
        if !limits.underscores && has_underscore(field.name.as_bytes()) {
            // Many servers make one name of `X_Forwarded_For` and `X-Forwarded-For`.
            continue;
        }
        told.note(&name, &value)?;
        headers.append(name, value);
    }
    let framing = told.framing(version)?;
    let keep_alive = !told.closes && (version == Version::HTTP_11 || told.keeps);
    Ok(Some(RequestHead {
        method,
        uri,
        version,
        headers: std::mem::take(headers),
        framing,
        keep_alive,
        expects: told.expects && version == Version::HTTP_11 && framing != Framing::Length(0),
        trailers: told.trailers,
    }))
}

/// Without a branch per byte: names are short, and most have none.
#[inline]
fn has_underscore(name: &[u8]) -> bool {
    name.iter().fold(false, |has, byte| has | (*byte == b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Option<(RequestHead, Vec<u8>)>, Reason> {
        let mut read = BytesMut::from(text);
        let limits = Limits::default();
        let head =
            read_request(&mut read, &mut Progress::default(), &limits, &mut HeaderMap::new())?;
        Ok(head.map(|head| (head, read.to_vec())))
    }

    fn refused(text: impl AsRef<[u8]>) -> Reason {
        let text = text.as_ref();
        match read(text) {
            Err(reason) => reason,
            good => panic!("{}: {good:?}", String::from_utf8_lossy(text)),
        }
    }

    fn with(fields: &str) -> Vec<u8> {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
    }

    #[test]
    fn a_head_arrives_as_a_whole_however_it_comes() {
        let text = b"\r\nPOST /x?y=1 HTTP/1.1\r\nHost: a\r\nX-A:  1 \r\nX-B:\r\n\
            content-length: 3\r\n\r\nabcGET";
        for step in 1..text.len() {
            let (mut read, mut progress) = (BytesMut::new(), Progress::default());
            let mut headers = HeaderMap::new();
            let mut found = None;
            for piece in text.chunks(step) {
                read.extend_from_slice(piece);
                if found.is_none() {
                    let limits = Limits::default();
                    found = read_request(&mut read, &mut progress, &limits, &mut headers)
                        .unwrap_or_else(|reason| panic!("{reason:?} by {step}"));
                }
            }
            let head = found.expect("a head");
            assert_eq!((head.method, head.uri.to_string()), (Method::POST, "/x?y=1".to_owned()));
            assert_eq!(head.framing, Framing::Length(3));
            assert_eq!(
                (&head.headers["x-a"], &head.headers["x-b"]),
                (&"1".parse().expect("a value"), &"".parse().expect("a value"))
            );
            assert_eq!(&read[..], b"abcGET", "by {step}");
        }
    }

    #[test]
    fn what_comes_behind_a_head_stays_even_if_it_looks_like_the_end_of_one() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
        for behind in ["\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "x\r\n\r\n"] {
            let text = format!("{head}{behind}");
            let (head, left) = read(text.as_bytes()).expect("good").expect("complete");
            assert_eq!((head.method, head.framing), (Method::POST, Framing::Length(4)));
            assert_eq!(left, behind.as_bytes());
        }
    }

    #[test]
    fn lines_end_with_cr_lf_and_nothing_else() {
        for bad in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
            "GET / HTTP/1.1\rHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \u{1}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\u{e9}: y\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / \r\n\r\n",
            "GET /\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1x\r\nHost: a\r\n\r\n",
            "GET / HTTP/11\r\nHost: a\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(refused(bad), Reason::Malformed, "{bad:?}");
        }
        for bad in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/9.9"] {
            let text = format!("GET / {bad}\r\nHost: a\r\n\r\n");
            assert_eq!(refused(text), Reason::Version, "{bad}");
        }
        assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Reason::Version);
    }

    #[test]
    fn what_is_bad_is_told_before_it_is_complete() {
        for bad in ["GET / HTTP/1.1\n", "nonsense\r\n", "GET / HTTP/1.1\r\nX Y: z\r\n", "\0", "{"] {
            assert_eq!(refused(bad), Reason::Malformed, "{bad:?}");
        }
        for good in
            ["", "\r", "\r\n", "\r\n\r", "G", "GET", "GET ", "GET /a", "GET / HTTP/1.1\r\nA"]
        {
            assert!(read(good.as_bytes()).expect("so far good").is_none(), "{good:?}");
        }
    }

    #[test]
    fn where_the_body_ends_is_beyond_doubt() {
        for bad in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: 5.0\r\n",
            "Content-Length: \r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: 9223372036854775808\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: , chunked\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked, gzip\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: \r\n",
            "Transfer-Encoding: \u{b}chunked\r\n",
        ] {
            let reason = refused(with(bad));
            let control = bad.contains('\u{b}');
            assert_eq!(
                reason,
                if control { Reason::Malformed } else { Reason::Framing },
                "{bad:?}"
            );
        }
        for bad in ["gzip, chunked", "gzip", "deflate"] {
            let text = with(&format!("Transfer-Encoding: {bad}\r\n"));
            assert_eq!(refused(text), Reason::Coding, "{bad}");
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(refused(old), Reason::Framing);
        assert_eq!(refused(with("Host: a\r\n")), Reason::Host);
        let good = |fields: &str| read(&with(fields)).expect("good").expect("complete").0;
        assert_eq!(good("Transfer-Encoding: Chunked\r\n").framing, Framing::Chunked);
        assert_eq!(good("Content-Length: 007\r\n").framing, Framing::Length(7));
        assert_eq!(good("").framing, Framing::Length(0));
    }

    #[test]
    fn targets_are_printable_and_have_no_fragment() {
        for bad in ["/a#b", "/a\\b", "/\u{e9}", "/\u{7f}", "http://", "http://u\u{e9}/"] {
            let text = format!("GET {bad} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(matches!(refused(text), Reason::Target | Reason::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn each_thing_has_a_size() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9_000));
        assert_eq!(refused(&long), Reason::TargetSize);
        assert_eq!(refused(&long[..8_900]), Reason::TargetSize);
        assert_eq!(refused(with(&format!("X: {}\r\n", "y".repeat(9_000)))), Reason::HeaderSize);
        assert_eq!(refused(with(&"x: y\r\n".repeat(100))), Reason::HeaderSize);
        assert_eq!(refused(with(&"x: y\r\n".repeat(300))), Reason::HeaderSize);
        let unfinished = format!("GET / HTTP/1.1\r\n{}", "x: yyyyyyyyyyyyyy\r\n".repeat(2_000));
        assert_eq!(refused(unfinished), Reason::HeaderSize);
        assert_eq!(
            refused(format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(33))),
            Reason::Method
        );
        assert!(read(&with(&"x: y\r\n".repeat(99))).expect("good").is_some());
    }

    #[test]
    fn connections_are_kept_unless_one_side_says_otherwise() {
        let keeps = |version: &str, fields: &str| {
            let text = format!("GET / {version}\r\nHost: a\r\n{fields}\r\n");
            read(text.as_bytes()).expect("good").expect("complete").0.keep_alive
        };
        assert!(keeps("HTTP/1.1", "") && !keeps("HTTP/1.0", ""));
        assert!(!keeps("HTTP/1.1", "Connection: x, Close\r\n"));
        assert!(keeps("HTTP/1.0", "Connection: Keep-Alive\r\n"));
        assert!(!keeps("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n"));
    }

    #[test]
    fn names_with_an_underscore_are_dropped() {
        let text = with(
            "X_Forwarded_For: 1\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\nx-y: 1\r\n",
        );
        let (head, _) = read(&text).expect("good").expect("complete");
        assert_eq!(head.headers.len(), 2);
        assert_eq!(head.framing, Framing::Length(0));
    }
}
