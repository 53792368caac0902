//! Heads of HTTP/1.1 messages: a request's into bytes, a response's out of them. No input or output
//! here.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRAILER, TRANSFER_ENCODING,
};
use http::{Method, StatusCode};
use http_body::Body;

use crate::proxy::body::RequestBody;
use crate::proxy::headers::{PASS, has_token};
use crate::proxy::parcel::{Added, Parcel};

/// Fields of a response's head; hyper allows as many.
const MOST_FIELDS: usize = 100;
/// Fields whose places are noted on the stack: more than nearly all responses have.
const FEW_FIELDS: usize = 24;

/// How a request's body is framed.
#[derive(Debug, PartialEq, Eq)]
pub enum Sending {
    /// There is none.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// In chunks, with these trailers announced.
    Chunked(Vec<HeaderName>),
}

/// How a response's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// To the end of the connection.
    Rest,
}

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// How its body is framed.
    pub framing: Framing,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
}

/// Where parsers differ, and answers are split.
const BARE: &str = "a line of a response's head ends without a carriage return";

impl ResponseHead {
    /// Whether the answer itself is still to come.
    pub fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Writes a request's head, and says how its body is to be framed.
pub fn write_request(parcel: &Parcel, out: &mut Vec<u8>) -> Sending {
    let (head, asked) = (&parcel.head, parcel.asked);
    let sending = sending(&head.headers, &parcel.body);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    match head.uri.path_and_query() {
        Some(target) => {
            if !target.as_str().starts_with(['/', '*']) {
                out.push(b'/');
            }
            out.extend_from_slice(target.as_str().as_bytes());
        }
        None => out.push(b'/'),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let is_chunked = matches!(sending, Sending::Chunked(_));
    let mut has_length = false;
    for (name, value) in &head.headers {
        let name = name.as_str();
        if parcel.added.as_ref().is_some_and(|added| added.replaces(name)) {
            continue;
        }
        match name.len() {
            // Written below, for what it is.
            17 if name == "transfer-encoding" => continue,
            14 if name == "content-length" => {
                if is_chunked || has_length {
                    continue;
                }
                has_length = true;
            }
            _ => {}
        }
        line(name.as_bytes(), value.as_bytes(), out);
    }
    if let Some(added) = &parcel.added {
        write_added(added, out);
    }
    match &sending {
        Sending::Chunked(_) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Sending::Length(length) if !has_length => {
            line(b"content-length", length.to_string().as_bytes(), out);
        }
        Sending::Length(_) | Sending::Nothing => {}
    }
    if asked.websocket {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
    }
    if asked.trailers {
        out.extend_from_slice(b"te: trailers\r\n");
        if !asked.websocket {
            out.extend_from_slice(b"connection: te\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
    sending
}

/// The fields that the proxy adds, with as few steps as there are parts that differ.
fn write_added(added: &Added, out: &mut Vec<u8>) {
    out.extend_from_slice(b"x-forwarded-for: ");
    out.extend_from_slice(added.forwarded_for.as_bytes());
    if let Some(proto) = added.proto {
        out.extend_from_slice(b"\r\nx-forwarded-proto: ");
        out.extend_from_slice(proto.as_bytes());
    }
    if let Some(host) = &added.host {
        out.extend_from_slice(b"\r\nx-forwarded-host: ");
        out.extend_from_slice(host.as_bytes());
    }
    if let Some(forwarded) = &added.forwarded {
        out.extend_from_slice(b"\r\nforwarded: ");
        out.extend_from_slice(forwarded.as_bytes());
    }
    out.extend_from_slice(b"\r\nx-request-id: ");
    out.extend_from_slice(added.request_id.as_bytes());
    if let Some(traceparent) = &added.traceparent {
        out.extend_from_slice(b"\r\ntraceparent: ");
        out.extend_from_slice(traceparent);
    }
    out.extend_from_slice(b"\r\ncdn-loop: ");
    out.extend_from_slice(PASS.as_bytes());
    out.extend_from_slice(b"\r\n");
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

fn sending(headers: &HeaderMap, body: &RequestBody) -> Sending {
    if body.is_end_stream() {
        return Sending::Nothing;
    }
    match body.size_hint().exact() {
        Some(length) => Sending::Length(length),
        None => {
            let announced = headers.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
            let names = announced
                .flat_map(|list| list.split(','))
                .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok());
            Sending::Chunked(names.collect())
        }
    }
}

/// Takes a response's head off what was read; `None` when it is not complete. `headers` is an empty
/// map whose room is used again. Interim responses are to be passed over by the caller.
pub fn read_response(
    read: &mut BytesMut,
    method: &Method,
    headers: &mut HeaderMap,
) -> Result<Option<ResponseHead>, &'static str> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        read,
        &mut fields,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("a response's head is malformed"),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or("a response's status is not a number from 100 to 999")?;
    let modern = response.version == Some(1);
    // Where each field is, because the bytes are to be shared with the values: to share them they
    // must be taken out of the buffer, which the fields still look into.
    let start = read.as_ptr() as usize;
    let count = response.headers.len();
    let (mut few, mut many) = ([(0_u32, 0_u32, 0_u32, 0_u32); FEW_FIELDS], Vec::new());
    let places = if count <= FEW_FIELDS {
        &mut few[..count]
    } else {
        many.resize(count, (0, 0, 0, 0));
        &mut many[..]
    };
    for (place, field) in places.iter_mut().zip(response.headers.iter()) {
        let at = |bytes: &[u8]| ((bytes.as_ptr() as usize).saturating_sub(start)) as u32;
        let (name, value) = (field.name.as_bytes(), field.value);
        *place = (at(name), name.len() as u32, at(value), value.len() as u32);
    }
    let bytes = read.split_to(length).freeze();
    if !bytes.ends_with(b"\r\n\r\n") {
        return Err(BARE);
    }
    let mut wire = Wire { keep_alive: modern, ..Wire::default() };
    headers.reserve(count);
    for (name_at, name, value_at, value) in places {
        let part = |at: u32, length: u32| at as usize..(at + length) as usize;
        // The parser takes a bare line feed for a line's end; we do not.
        if bytes.get((*name_at as usize).wrapping_sub(2)) != Some(&b'\r') {
            return Err(BARE);
        }
        let name = HeaderName::from_bytes(&bytes[part(*name_at, *name)])
            .map_err(|_| "a response's field has no good name")?;
        let value = if *value == 0 { Bytes::new() } else { bytes.slice(part(*value_at, *value)) };
        let value = HeaderValue::from_maybe_shared(value)
            .map_err(|_| "a response's field has no good value")?;
        wire.note(&name, &value)?;
        headers.append(name, value);
    }
    let framing = wire.framing(status, method, modern)?;
    let keep_alive =
        wire.keep_alive && framing != Framing::Rest && status != StatusCode::SWITCHING_PROTOCOLS;
    Ok(Some(ResponseHead { status, headers: std::mem::take(headers), framing, keep_alive }))
}

/// What the fields say about the connection and the body.
#[derive(Debug, Default)]
struct Wire {
    keep_alive: bool,
    closes: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Wire {
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), &'static str> {
        if *name == CONTENT_LENGTH {
            let length = decimal(value.as_bytes());
            if length.is_none() || self.length.is_some() {
                return Err("a response's content-length is not one number");
            }
            self.length = length;
        } else if *name == TRANSFER_ENCODING {
            // Another coding would have to be undone, or told the client; nobody asked for one.
            if self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err("a response's transfer coding is not `chunked`");
            }
            self.chunked = true;
        } else if *name == CONNECTION {
            if has_token(value, "close") {
                self.closes = true;
                self.keep_alive = false;
            } else if !self.closes && has_token(value, "keep-alive") {
                self.keep_alive = true;
            }
        }
        Ok(())
    }

    /// RFC 9112, 6.3.
    fn framing(
        &self,
        status: StatusCode,
        method: &Method,
        modern: bool,
    ) -> Result<Framing, &'static str> {
        let bare = status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
            || *method == Method::HEAD;
        match (bare, self.chunked, self.length) {
            (_, true, Some(_)) => Err("a response has a length and a transfer coding"),
            (_, true, _) if !modern => Err("an HTTP/1.0 response has a transfer coding"),
            (true, ..) => Ok(Framing::Length(0)),
            (_, true, None) => Ok(Framing::Chunked),
            (_, false, None) => Ok(Framing::Rest),
            (_, false, Some(length)) => Ok(Framing::Length(length)),
        }
    }
}

/// Digits and nothing else.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, method: &Method) -> Result<Option<(ResponseHead, String)>, &'static str> {
        let mut read = BytesMut::from(text);
        let head = read_response(&mut read, method, &mut HeaderMap::new())?;
        let left = String::from_utf8(read.to_vec()).unwrap_or_default();
        Ok(head.map(|head| (head, left)))
    }

    #[test]
    fn what_is_added_is_what_was_to_be_added() {
        for all in [true, false] {
            let added = Added {
                forwarded_for: HeaderValue::from_static("192.0.2.1"),
                proto: all.then_some("https"),
                host: all.then(|| HeaderValue::from_static("a.example")),
                forwarded: all.then(|| HeaderValue::from_static("for=192.0.2.1")),
                request_id: HeaderValue::from_static("0123"),
                traceparent: all.then_some([b'0'; 55]),
            };
            let (mut written, mut each) = (Vec::new(), Vec::new());
            write_added(&added, &mut written);
            added.each(|name, value| line(name.as_str().as_bytes(), value, &mut each));
            assert_eq!(String::from_utf8(written), String::from_utf8(each));
        }
    }

    fn framing(fields: &str) -> Result<(Framing, bool), &'static str> {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let (head, _) = read(&text, &Method::GET)?.ok_or("incomplete")?;
        Ok((head.framing, head.keep_alive))
    }

    #[test]
    fn a_head_arrives_as_a_whole() {
        let text =
            "HTTP/1.1 404 Gone fishing\r\nA: 1\r\na: 2\r\nX-Empty:\r\ncontent-length: 3\r\n\r\nabc";
        for end in 0..text.len() - 3 {
            assert!(read(&text[..end], &Method::GET).expect("so far good").is_none(), "{end}");
        }
        let (head, left) = read(text, &Method::GET).expect("good").expect("complete");
        assert_eq!((head.status.as_u16(), left.as_str()), (404, "abc"));
        assert_eq!((head.framing, head.keep_alive), (Framing::Length(3), true));
        assert_eq!(head.headers.get_all("a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(head.headers["x-empty"], "");
    }

    #[test]
    fn bodies_end_where_the_standard_says() {
        for (fields, expected) in [
            ("Content-Length: 5\r\n", Ok((Framing::Length(5), true))),
            ("Transfer-Encoding: chunked\r\n", Ok((Framing::Chunked, true))),
            ("", Ok((Framing::Rest, false))),
            ("Connection: Close\r\nContent-Length: 1\r\n", Ok((Framing::Length(1), false))),
            (
                "Connection: close\r\nConnection: keep-alive\r\nContent-Length: 1\r\n",
                Ok((Framing::Length(1), false)),
            ),
        ] {
            assert_eq!(framing(fields), expected, "{fields}");
        }
        for bad in ["5, 6", "+5", "-5", "", "5 5", "0x5", "18446744073709551616", "5,", "5, 5"] {
            assert!(framing(&format!("Content-Length: {bad}\r\n")).is_err(), "{bad}");
        }
        for bad in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: identity\r\n",
            "A: 1\nB: 2\r\n",
            "A: 1\n",
        ] {
            assert!(framing(bad).is_err(), "{bad:?}");
        }
        assert!(read("HTTP/1.1 200 OK\nA: 1\r\n\r\n", &Method::GET).is_err());
        assert!(read("HTTP/1.1 200 OK\r\n\n", &Method::GET).is_err());
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        for (method, status) in [
            (Method::HEAD, "200 OK"),
            (Method::GET, "204 No Content"),
            (Method::GET, "304 Not Modified"),
            (Method::GET, "103 Early Hints"),
        ] {
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n");
            let (head, _) = read(&text, &method).expect("good").expect("complete");
            assert_eq!(head.framing, Framing::Length(0), "{method} {status}");
        }
    }

    #[test]
    fn old_servers_close_unless_they_say_otherwise() {
        let old = |fields: &str| {
            let text = format!("HTTP/1.0 200 OK\r\n{fields}\r\n");
            read(&text, &Method::GET)
                .map(|head| head.map(|(head, _)| (head.framing, head.keep_alive)))
        };
        assert_eq!(old("Content-Length: 1\r\n"), Ok(Some((Framing::Length(1), false))));
        let kept = old("Content-Length: 1\r\nConnection: keep-alive\r\n");
        assert_eq!(kept, Ok(Some((Framing::Length(1), true))));
        assert!(old("Transfer-Encoding: chunked\r\n").is_err());
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for bad in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 99 No\r\n\r\n",
            "HTTP/1.1 20x OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nspace : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: 1\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: 1\0\r\n\r\n",
        ] {
            assert!(read(bad, &Method::GET).is_err(), "{bad:?}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert!(read(&many, &Method::GET).is_err());
    }
}
