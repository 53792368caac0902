//! Request ids and W3C trace contexts.
//!
//! One number per request: the hex of the 128-bit trace id is the request id too, so that log, trace
//! and error page carry the same word. A `traceparent` that is valid passes unchanged, because the
//! proxy adds no span of its own; a missing or broken one is made. Ids are unique, not secret.

use bytes::{Bytes, BytesMut};
use http::header::HeaderValue;

/// Bytes in a `traceparent` of version 00: `00-{32 hex}-{16 hex}-{2 hex}`.
const TRACEPARENT: usize = 55;
/// Where the trace id is in it.
const TRACE_ID: std::ops::Range<usize> = 3..35;
/// How much is allocated at a time: room for 128 ids in one page.
const CHUNK: usize = 4096;
/// The longest request id that is taken from a trusted peer. Room for two UUIDs.
const LONGEST_ID: usize = 80;

/// Makes ids, cutting them from one buffer so that an id costs no allocation of its own.
#[derive(Debug, Default)]
pub struct Mint {
    buffer: BytesMut,
}

/// A `traceparent` of version 00.
pub type Traceparent = [u8; TRACEPARENT];

/// The names that a request goes by.
#[derive(Debug, Clone)]
pub struct Names {
    /// `X-Request-ID`
    pub request_id: HeaderValue,
    /// `traceparent` to be set; `None` when the client's passes.
    pub traceparent: Option<Traceparent>,
}

impl Mint {
    /// Names for a request: what it came with where that is good, made from random bits where not.
    pub fn names(
        &mut self,
        traceparent: Option<&HeaderValue>,
        request_id: Option<&HeaderValue>,
        mut random: impl FnMut() -> u64,
    ) -> Names {
        let request_id = request_id.filter(|id| is_sane(id.as_bytes())).cloned();
        if let Some(given) = traceparent.filter(|given| is_valid(given.as_bytes())) {
            let request_id = request_id.unwrap_or_else(|| self.cut(&given.as_bytes()[TRACE_ID]));
            return Names { request_id, traceparent: None };
        }
        let mut made = *b"00-................................-................-01";
        hex(random(), &mut made[3..19]);
        // A trace id of zeros is invalid: one bit is always set. Likewise the span's.
        hex(random() | 1, &mut made[19..35]);
        hex(random() | 1, &mut made[36..52]);
        let request_id = request_id.unwrap_or_else(|| self.cut(&made[TRACE_ID]));
        Names { request_id, traceparent: Some(made) }
    }

    fn cut(&mut self, text: &[u8]) -> HeaderValue {
        if self.buffer.capacity() < text.len() {
            self.buffer = BytesMut::with_capacity(CHUNK);
        }
        self.buffer.extend_from_slice(text);
        value(self.buffer.split().freeze())
    }
}

fn value(bytes: Bytes) -> HeaderValue {
    let value = HeaderValue::from_maybe_shared(bytes);
    let mut value = value.unwrap_or_else(|_| HeaderValue::from_static("-"));
    // Never the same twice: in HTTP/2's table of fields it would only push out what comes again.
    value.set_sensitive(true);
    value
}

/// Sixteen hex digits.
pub fn hex(bits: u64, out: &mut [u8]) {
    for (pair, byte) in out.chunks_exact_mut(2).zip(bits.to_be_bytes()) {
        pair.copy_from_slice(&PAIRS[usize::from(byte)]);
    }
}

/// The two hex digits of each byte.
const PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 0xf]];
        byte += 1;
    }
    pairs
};

fn is_sane(id: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(b);
    (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(allowed)
}

/// Whether this is a `traceparent` by W3C Trace Context: lower-case hex, ids not all zero, a version
/// other than ff; longer ones only in later versions.
fn is_valid(text: &[u8]) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        text[range].iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zeros = |range: std::ops::Range<usize>| text[range].iter().all(|b| *b == b'0');
    text.len() >= TRACEPARENT
        && (text.len() == TRACEPARENT || (&text[..2] != b"00" && text[TRACEPARENT] == b'-'))
        && digits(0..2)
        && &text[..2] != b"ff"
        && text[2] == b'-'
        && digits(TRACE_ID)
        && !zeros(TRACE_ID)
        && text[35] == b'-'
        && digits(36..52)
        && !zeros(36..52)
        && text[52] == b'-'
        && digits(53..55)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn traceparents_are_checked() {
        assert!(is_valid(GOOD.as_bytes()));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
        assert!(is_valid(
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more".as_bytes()
        ));
    }

    #[test]
    fn a_made_trace_names_the_request_too() {
        let mut mint = Mint::default();
        let mut seed = 7;
        let mut last = String::new();
        for _ in 0..200 {
            let names = mint.names(None, None, || {
                seed = fastrand::Rng::with_seed(seed).u64(..);
                seed
            });
            let made = names.traceparent.expect("made");
            let made = std::str::from_utf8(&made).expect("text").to_owned();
            assert!(is_valid(made.as_bytes()), "{made}");
            assert_eq!(names.request_id.to_str().expect("text"), &made[3..35]);
            assert_ne!(made, last);
            last = made;
        }
    }

    #[test]
    fn what_came_and_is_good_stays() {
        let mut mint = Mint::default();
        let good = HeaderValue::from_static(GOOD);
        let names = mint.names(Some(&good), None, || 0);
        assert_eq!(names.request_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(names.traceparent.is_none());
        let id = HeaderValue::from_static("abc-1");
        assert_eq!(mint.names(Some(&good), Some(&id), || 0).request_id, "abc-1");
        let bad = HeaderValue::from_static("<script>");
        assert_ne!(mint.names(None, Some(&bad), || 0).request_id, "<script>");
    }
}
