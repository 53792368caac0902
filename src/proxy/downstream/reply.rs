//! Responses in HTTP/1.1, into bytes. No input or output here.
//!
//! How an answer is framed is decided here alone, from what its body knows of itself: whatever the
//! upstream's fields said about it is left out, but for the length that HEAD and 304 tell without a
//! body.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, TRANSFER_ENCODING};
use http::response::Parts;
use http::{StatusCode, Version};

use crate::proxy::headers::has_token;

/// What a request allows of its answer.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// It was HEAD: no body.
    pub bodiless: bool,
    /// 1.0 knows no chunks, and no interim answers.
    pub version: Version,
    /// It takes trailers.
    pub trailers: bool,
    /// Whether it would use the connection again.
    pub keep_alive: bool,
}

/// How an answer's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// There is none.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// To the end of the connection.
    Rest,
}

/// Writes an answer's head. `length` is what its body says of itself, `keep_alive` whether the
/// connection could go on. Returns how the body is framed, and whether the connection does go on.
pub fn write_response(
    head: &Parts,
    length: Option<u64>,
    wanted: Wanted,
    keep_alive: bool,
    date: &[u8],
    out: &mut Vec<u8>,
) -> (Sending, bool) {
    let old = wanted.version == Version::HTTP_10;
    out.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let never = head.status == StatusCode::NO_CONTENT || switches;
    let bodiless = wanted.bodiless || never || head.status == StatusCode::NOT_MODIFIED;
    let sending = match length {
        _ if bodiless => Sending::Nothing,
        Some(length) => Sending::Length(length),
        None if old => Sending::Rest,
        None => Sending::Chunked,
    };
    let mut keep_alive = keep_alive && wanted.keep_alive && sending != Sending::Rest && !switches;
    let (mut dated, mut measured) = (false, false);
    for (name, value) in &head.headers {
        if *name == CONNECTION && !switches {
            keep_alive &= !has_token(value, "close");
            continue;
        } else if *name == CONTENT_LENGTH {
            // Told without a body; once, whatever the upstream did.
            if sending != Sending::Nothing || never || std::mem::replace(&mut measured, true) {
                continue;
            }
        } else if *name == TRANSFER_ENCODING {
            continue;
        } else if *name == DATE {
            dated = true;
        }
        line(name.as_str().as_bytes(), value.as_bytes(), out);
    }
    match sending {
        Sending::Length(length) => {
            let mut digits = [0; 20];
            line(b"content-length", decimal(length, &mut digits), out);
        }
        Sending::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Sending::Nothing => match length {
            // An answer of our own to a HEAD: what a GET would get.
            Some(length @ 1..) if !measured && !never => {
                let mut digits = [0; 20];
                line(b"content-length", decimal(length, &mut digits), out);
            }
            _ => {}
        },
        Sending::Rest => {}
    }
    if !dated {
        line(b"date", date, out);
    }
    if switches {
        // The fields say what the connection becomes.
    } else if !keep_alive {
        out.extend_from_slice(b"connection: close\r\n");
    } else if old {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    (sending, keep_alive)
}

/// Writes an interim answer, such as a 103.
pub fn write_interim(status: StatusCode, headers: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        // What frames a message has no meaning here, and is stripped like in any answer.
        if *name != CONTENT_LENGTH {
            line(name.as_str().as_bytes(), value.as_bytes(), out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The whole of an answer to what is no request: nothing more is read.
pub fn write_refusal(status: StatusCode, date: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\ncontent-length: 0\r\nconnection: close\r\ndate: ");
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\n\r\n");
}

#[inline]
fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    // One look at the room for all four pieces.
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A number's digits, without the machinery of formatting.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;

    const WANTED: Wanted =
        Wanted { bodiless: false, version: Version::HTTP_11, trailers: false, keep_alive: true };

    fn write(
        status: u16,
        fields: &[(&str, &str)],
        length: Option<u64>,
        wanted: Wanted,
    ) -> (String, Sending, bool) {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let (head, ()) = response.body(()).expect("a response").into_parts();
        let mut out = Vec::new();
        let (sending, keep) = write_response(&head, length, wanted, true, b"now", &mut out);
        (String::from_utf8(out).expect("text"), sending, keep)
    }

    #[test]
    fn an_answer_is_framed_by_what_its_body_knows() {
        let fields = [("content-length", "9"), ("transfer-encoding", "chunked"), ("a", "b")];
        let (text, sending, keep) = write(200, &fields, Some(3), WANTED);
        assert_eq!(text, "HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 3\r\ndate: now\r\n\r\n");
        assert_eq!((sending, keep), (Sending::Length(3), true));
        let (text, sending, keep) = write(200, &fields, None, WANTED);
        assert!(text.contains("\r\ntransfer-encoding: chunked\r\n") && !text.contains("length"));
        assert_eq!((sending, keep), (Sending::Chunked, true));
        let old = Wanted { version: Version::HTTP_10, ..WANTED };
        let (text, sending, keep) = write(200, &fields, None, old);
        assert!(text.starts_with("HTTP/1.0 200") && text.contains("connection: close"));
        assert_eq!((sending, keep), (Sending::Rest, false));
        let (text, _, keep) = write(200, &fields, Some(3), old);
        assert!(keep && text.contains("connection: keep-alive"), "{text}");
        let (text, _, _) = write(200, &[], Some(u64::MAX), WANTED);
        assert!(text.contains("content-length: 18446744073709551615\r\n"), "{text}");
    }

    #[test]
    fn head_and_304_tell_a_length_without_a_body() {
        let head = Wanted { bodiless: true, ..WANTED };
        for (status, wanted) in [(200, head), (304, WANTED)] {
            let fields = [("content-length", "9"), ("content-length", "9")];
            let (text, sending, _) = write(status, &fields, Some(0), wanted);
            assert_eq!(text.matches("content-length: 9\r\n").count(), 1, "{text}");
            assert_eq!(sending, Sending::Nothing);
        }
        assert!(write(200, &[], Some(7), head).0.contains("content-length: 7"));
        assert!(!write(200, &[], Some(0), head).0.contains("content-length"));
        for status in [204, 101] {
            let (text, sending, _) = write(status, &[("content-length", "9")], Some(0), WANTED);
            assert!(!text.contains("content-length") && sending == Sending::Nothing, "{text}");
        }
    }

    #[test]
    fn who_says_close_means_it() {
        let (text, _, keep) =
            write(400, &[("connection", "close"), ("date", "then")], Some(0), WANTED);
        assert!(!keep && text.matches("connection: close\r\n").count() == 1);
        assert!(text.contains("date: then") && !text.contains("now"));
        let (text, _, keep) = write(101, &[("connection", "upgrade")], Some(0), WANTED);
        assert!(!keep && text.contains("connection: upgrade\r\n") && !text.contains("close"));
    }
}
