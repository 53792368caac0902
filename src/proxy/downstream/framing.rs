//! What a request's fields say about its connection and its body (RFC 9112, 6 and 9). No input or
//! output here.

use http::Version;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
};

use crate::proxy::headers::has_token;
use crate::telemetry::traffic::Reason;

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; 0 is no body.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// What the fields say about the connection and the body.
#[derive(Debug, Default)]
pub struct Told {
    /// `Connection: keep-alive`.
    pub keeps: bool,
    /// `Connection: close`.
    pub closes: bool,
    length: Option<u64>,
    chunked: bool,
    hosts: u32,
    /// `Expect: 100-continue`.
    pub expects: bool,
    /// `TE: trailers`.
    pub trailers: bool,
}

impl Told {
    /// Takes note of one field. The error is why it is refused.
    #[inline]
    pub fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Reason> {
        if *name == HOST {
            self.hosts += 1;
            if self.hosts > 1 {
                return Err(Reason::Host);
            }
        } else if *name == CONNECTION {
            self.closes |= has_token(value, "close");
            self.keeps |= has_token(value, "keep-alive");
        } else if *name == CONTENT_LENGTH {
            let length = decimal(value.as_bytes()).ok_or(Reason::Framing)?;
            if self.length.replace(length).is_some() {
                return Err(Reason::Framing);
            }
        } else if *name == TRANSFER_ENCODING {
            if self.chunked {
                return Err(Reason::Framing);
            }
            coding(value.as_bytes())?;
            self.chunked = true;
        } else if *name == EXPECT {
            self.expects |= value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        } else if *name == TE {
            self.trailers |= has_token(value, "trailers");
        }
        Ok(())
    }

    /// How the body is framed, beyond doubt.
    pub fn framing(&self, version: Version) -> Result<Framing, Reason> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Reason::Framing),
            (true, None) if version == Version::HTTP_11 => Ok(Framing::Chunked),
            (true, None) => Err(Reason::Framing),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// Exactly `chunked` is ours. Another coding that is well written is not implemented (RFC 9112, 6.1);
/// anything else is an attempt to be read in two ways.
fn coding(value: &[u8]) -> Result<(), Reason> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let lower = value.to_ascii_lowercase();
    let mut codings = lower.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let known = |coding: &[u8]| matches!(coding, b"gzip" | b"x-gzip" | b"deflate" | b"compress");
    let first = codings.next().is_some_and(known);
    let rest = codings.enumerate().all(|(at, coding)| at == 0 && coding == b"chunked");
    Err(if first && rest { Reason::Coding } else { Reason::Framing })
}

/// Digits and nothing else; no more than a signed number holds, in which many servers count.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let number = text.iter().try_fold(0_u64, |number, byte| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    });
    number.filter(|number| i64::try_from(*number).is_ok())
}
