//! The chunked coding (RFC 9112, 7.1), out of and into plain bytes. No input or output here.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Bytes of a chunk's size line, and of the trailer section: as much as hyper allows.
const LONGEST_LINE: usize = 1024;
const LONGEST_TRAILERS: usize = 16 * 1024;
/// Trailer fields.
const MOST_TRAILERS: usize = 100;
/// Bytes that all chunk extensions of a message may have: they carry nothing that is used.
const LONGEST_EXTENSIONS: usize = 16 * 1024;

/// What breaks a chunked body.
pub const MALFORMED: &str = "a chunk is malformed";

/// What is next in a chunked body.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A size line.
    #[default]
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The line's end behind a chunk.
    Gap,
    /// Trailers, and the empty line.
    Trailers,
    /// Nothing.
    End,
}

/// A piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes.
    Data(Bytes),
    /// Fields behind the body.
    Trailers(HeaderMap),
    /// There is no more.
    End,
    /// More must be read first.
    Wanting,
}

/// Takes a chunked body apart.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    extensions: usize,
    strict: bool,
}

impl Decoder {
    /// One for clients: no space where the grammar has none. Some old servers pad their sizes.
    pub fn strict() -> Self {
        Self { strict: true, ..Self::default() }
    }

    /// Whether the body's end was seen.
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Bytes that certainly belong to the body and are not there yet.
    pub fn missing(&self) -> u64 {
        if let State::Data(left) = self.state { left } else { 0 }
    }

    /// The next piece of what was read.
    pub fn next(&mut self, read: &mut BytesMut) -> Result<Piece, &'static str> {
        loop {
            match self.state {
                State::Size => {
                    let Some((line, length)) = line(read, LONGEST_LINE)? else {
                        return Ok(Piece::Wanting);
                    };
                    let (size, extension) = size(line, self.strict)?;
                    self.extensions += extension;
                    if self.extensions > LONGEST_EXTENSIONS {
                        return Err(MALFORMED);
                    }
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                    let _ = read.split_to(length);
                }
                State::Data(_) if read.is_empty() => return Ok(Piece::Wanting),
                State::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(read.len());
                    let left = left - here as u64;
                    self.state = if left == 0 { State::Gap } else { State::Data(left) };
                    return Ok(Piece::Data(read.split_to(here).freeze()));
                }
                State::Gap => match (read.first(), read.get(1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        let _ = read.split_to(2);
                        self.state = State::Size;
                    }
                    (None, _) | (Some(b'\r'), None) => return Ok(Piece::Wanting),
                    _ => return Err(MALFORMED),
                },
                State::Trailers => return self.trailers(read),
                State::End => return Ok(Piece::End),
            }
        }
    }

    /// Looks whether the end is here already, so that a body need not be asked once more for it.
    pub fn look_for_end(&mut self, read: &mut BytesMut) {
        if self.state == State::Gap && read.starts_with(b"\r\n0\r\n\r\n") {
            let _ = read.split_to(7);
            self.state = State::End;
        }
    }

    fn trailers(&mut self, read: &mut BytesMut) -> Result<Piece, &'static str> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
        match httparse::parse_headers(read, &mut fields) {
            // The parser takes a bare line feed for a line's end; we do not.
            Ok(httparse::Status::Complete((length, _))) if has_bare_feed(&read[..length]) => {
                Err(MALFORMED)
            }
            Ok(httparse::Status::Complete((length, fields))) => {
                let mut trailers = HeaderMap::with_capacity(fields.len());
                for field in fields {
                    let name = HeaderName::from_bytes(field.name.as_bytes());
                    let value = HeaderValue::from_bytes(field.value);
                    let (Ok(name), Ok(value)) = (name, value) else { return Err(MALFORMED) };
                    trailers.append(name, value);
                }
                let _ = read.split_to(length);
                self.state = State::End;
                Ok(if trailers.is_empty() { Piece::End } else { Piece::Trailers(trailers) })
            }
            Ok(httparse::Status::Partial) if read.len() <= LONGEST_TRAILERS => Ok(Piece::Wanting),
            _ => Err(MALFORMED),
        }
    }
}

/// A line without its end, and its length with it.
fn line(read: &BytesMut, longest: usize) -> Result<Option<(&[u8], usize)>, &'static str> {
    match read.iter().take(longest).position(|byte| *byte == b'\n') {
        // A bare line feed is where parsers differ, and smuggling begins.
        Some(end) => match read[..end].strip_suffix(b"\r") {
            Some(line) => Ok(Some((line, end + 1))),
            None => Err(MALFORMED),
        },
        None if read.len() >= longest => Err(MALFORMED),
        None => Ok(None),
    }
}

/// Whether a line ends with a line feed alone.
pub fn has_bare_feed(lines: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', lines).any(|at| at == 0 || lines[at - 1] != b'\r')
}

/// A chunk's size, and the bytes of its extension.
fn size(line: &[u8], strict: bool) -> Result<(u64, usize), &'static str> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if !(1..=16).contains(&digits) || line.contains(&b'\r') {
        return Err(MALFORMED);
    }
    let (number, rest) = line.split_at(digits);
    // White space is for before an extension (RFC 9112, 7.1.1); in the lines of servers also alone.
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let good = match rest.get(blanks) {
        None => blanks == 0 || !strict,
        Some(first) => *first == b';',
    };
    let is_text = |byte: &u8| !byte.is_ascii_control() || *byte == b'\t';
    if !good || !rest.iter().all(is_text) {
        return Err(MALFORMED);
    }
    let number =
        std::str::from_utf8(number).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    number.map(|size| (size, rest.len())).ok_or(MALFORMED)
}

/// Writes a chunk's size line. The line's end behind its bytes is the caller's.
pub fn write_size(size: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|at| DIGITS[size >> (4 * at) & 0xf]));
    out.extend_from_slice(b"\r\n");
}

/// Writes the line's end behind a chunk, if one is open.
pub fn end_chunk(chunk: &mut bool, out: &mut Vec<u8>) {
    if std::mem::take(chunk) {
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the end of a chunked body, with its trailers.
pub fn write_end<'a>(
    trailers: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    /// Feeds a body in pieces of so many bytes.
    fn decode(
        text: &str,
        step: usize,
    ) -> Result<(String, Option<HeaderMap>, String), &'static str> {
        let (mut decoder, mut read) = (Decoder::default(), BytesMut::new());
        let (mut body, mut trailers) = (Vec::new(), None);
        let mut coming = text.as_bytes().chunks(step);
        loop {
            match decoder.next(&mut read)? {
                Piece::Data(bytes) => {
                    body.extend_from_slice(&bytes);
                    decoder.look_for_end(&mut read);
                }
                Piece::Trailers(fields) => trailers = Some(fields),
                Piece::End => break,
                Piece::Wanting => match coming.next() {
                    Some(more) => read.extend_from_slice(more),
                    None => return Err("wanting"),
                },
            }
        }
        read.extend(coming.flatten());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Ok((text(body), trailers, text(read.to_vec())))
    }

    #[test]
    fn bodies_come_apart_however_they_arrive() {
        let text = "5\r\nhello\r\n6 ;x=\"y\"\r\n world\r\n0\r\n\r\nnext";
        for step in 1..text.len() {
            let (body, trailers, behind) = decode(text, step).expect("a body");
            assert_eq!((body.as_str(), trailers, behind.as_str()), ("hello world", None, "next"));
        }
        let text = "A\r\n0123456789\r\n000\r\nx-sum: 1\r\nX-More:2\r\n\r\n";
        for step in 1..text.len() {
            let (body, trailers, behind) = decode(text, step).expect("a body");
            let trailers = trailers.expect("trailers");
            assert_eq!((body.as_str(), behind.as_str()), ("0123456789", ""));
            assert_eq!(trailers["x-sum"], value("1"));
            assert_eq!(trailers["x-more"], value("2"));
        }
    }

    #[test]
    fn what_is_doubtful_is_refused() {
        for bad in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\nx\r\n",
            "0x1\r\nx\r\n",
            "1\nx\r\n",
            "1\r\nxx\r\n",
            "1\r\nx\n",
            "1 2\r\nx\r\n",
            "10000000000000000\r\n",
            "1;a\rb\r\nx",
            "0\r\nno colon\r\n\r\n",
            "0\r\n: x\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\nx: y\r\n\n",
            "0\r\n\n",
            "0\r\nx: y\r\n z\r\n\r\n",
            "1\u{b}\r\nx\r\n",
            "1;a\0b\r\nx\r\n",
            "1;a\nb\r\nx\r\n",
            "1\n\r\nx\r\n",
        ] {
            for step in 1..=bad.len() {
                assert_eq!(decode(bad, step), Err(MALFORMED), "{bad:?} by {step}");
            }
        }
        assert_eq!(decode(&"1".repeat(2_000), 100), Err(MALFORMED));
        assert_eq!(decode(&format!("1;{}\r\n", "x".repeat(2_000)), 100), Err(MALFORMED));
        let endless = "1;xxxxxxxxxxxxxxx\r\nx\r\n".repeat(2_000);
        assert_eq!(decode(&endless, 4_000), Err(MALFORMED));
        assert_eq!(decode(&format!("0\r\n{}", "a: b\r\n".repeat(4_000)), 1_000), Err(MALFORMED));
    }

    #[test]
    fn only_servers_may_pad() {
        for padded in ["1 \r\nx\r\n", "1\t\r\nx\r\n"] {
            let mut read = BytesMut::from(padded);
            assert!(matches!(Decoder::default().next(&mut read), Ok(Piece::Data(_))));
            let mut read = BytesMut::from(padded);
            assert_eq!(Decoder::strict().next(&mut read), Err(MALFORMED));
        }
        let mut read = BytesMut::from("1 ;a=b\r\nx\r\n");
        assert!(matches!(Decoder::strict().next(&mut read), Ok(Piece::Data(_))));
    }

    #[test]
    fn what_is_written_can_be_read() {
        for size in [1, 9, 10, 15, 16, 255, 256, 4_096, 65_535] {
            let mut out = Vec::new();
            write_size(size, &mut out);
            out.resize(out.len() + size, b'x');
            out.extend_from_slice(b"\r\n");
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("1"));
            write_end(&trailers, &mut out);
            let text = String::from_utf8(out).expect("text");
            let (body, trailers, _) = decode(&text, 1_000).expect("a body");
            assert_eq!((body.len(), trailers.expect("trailers").len()), (size, 1));
        }
    }
}
