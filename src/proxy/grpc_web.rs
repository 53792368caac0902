//! What gRPC-Web says at the end of its body. A browser sees no trailers, so they come as one more message:
//! a byte whose highest bit is set, four bytes of length, then `grpc-status: 0` and the like, a line each
//! (github.com/grpc/grpc, doc/PROTOCOL-WEB.md). `application/grpc-web-text` is the same in Base64, whose
//! pieces may each end with their own padding.
//!
//! Messages are counted past, not kept; only the trailers are, up to [`MOST`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of trailers that are kept: as many as a line of a header may have.
const MOST: u32 = 8 * 1024;
/// The length of a message is behind one byte of flags.
const HEAD: usize = 5;
/// The message is made of trailers.
const TRAILERS: u8 = 0x80;
/// The message is compressed.
const COMPRESSED: u8 = 0x01;
/// Where gRPC says how it went.
const STATUS: &[u8] = b"grpc-status";

/// What is known of how a call went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Nothing yet.
    Nothing,
    /// This status.
    Status(Vec<u8>),
    /// It cannot be read: it is compressed, does not say it, or is no gRPC-Web.
    Unreadable,
}

/// Follows a body to its trailers.
#[derive(Debug)]
pub struct Follower {
    /// What is decoded of it, if it comes as text.
    text: Option<Quad>,
    at: At,
    said: Said,
}

#[derive(Debug)]
enum At {
    /// Within the five bytes before a message.
    Head([u8; HEAD], usize),
    /// So many bytes of a message are still to come.
    Message(u32),
    /// So many bytes of the trailers are still to come; what came of them.
    Trailers(u32, Vec<u8>),
    /// Nothing more is looked at.
    End,
}

impl Follower {
    /// For the body of a response with this `Content-Type`; `None` if that is no gRPC-Web.
    pub fn of(kind: &[u8]) -> Option<Self> {
        let rest = kind.strip_prefix(b"application/grpc-web")?;
        let (is_text, rest) = match rest.strip_prefix(b"-text") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        matches!(rest, [] | [b'+' | b';' | b' ', ..]).then(|| Self {
            text: is_text.then(Quad::default),
            at: At::Head([0; HEAD], 0),
            said: Said::Nothing,
        })
    }

    /// What is known by now.
    pub fn said(&self) -> &Said {
        &self.said
    }

    /// The next bytes of the body.
    pub fn read(&mut self, bytes: &[u8]) {
        if matches!(self.at, At::End) {
            return;
        }
        match self.text.take() {
            None => self.follow(bytes),
            Some(mut quad) => {
                // A piece of a few KiB at a time: what is decoded is not kept.
                for piece in bytes.chunks(4 * 1024) {
                    match quad.decode(piece) {
                        Some(decoded) => self.follow(&decoded),
                        None => return self.end(Said::Unreadable),
                    }
                }
                self.text = Some(quad);
            }
        }
    }

    fn end(&mut self, said: Said) {
        (self.at, self.said) = (At::End, said);
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.at {
                At::End => return,
                At::Head(head, have) => {
                    let taken = bytes.len().min(HEAD - *have);
                    head[*have..*have + taken].copy_from_slice(&bytes[..taken]);
                    *have += taken;
                    bytes = &bytes[taken..];
                    if *have < HEAD {
                        return;
                    }
                    let [flags, length @ ..] = *head;
                    let length = u32::from_be_bytes(length);
                    match flags {
                        0 | COMPRESSED => self.at = At::Message(length),
                        TRAILERS if length <= MOST => {
                            self.at = At::Trailers(length, Vec::new());
                            self.look();
                        }
                        _ => self.end(Said::Unreadable),
                    }
                    self.next();
                }
                At::Message(left) => {
                    let taken = bytes.len().min(*left as usize);
                    *left -= taken as u32;
                    bytes = &bytes[taken..];
                    self.next();
                }
                At::Trailers(left, kept) => {
                    let taken = bytes.len().min(*left as usize);
                    kept.extend_from_slice(&bytes[..taken]);
                    *left -= taken as u32;
                    bytes = &bytes[taken..];
                    self.look();
                }
            }
        }
    }

    /// Behind a message comes the next one.
    fn next(&mut self) {
        if matches!(self.at, At::Message(0)) {
            self.at = At::Head([0; HEAD], 0);
        }
    }

    /// Reads the trailers, when they are complete.
    fn look(&mut self) {
        let At::Trailers(0, kept) = &self.at else { return };
        let status = kept.split(|byte| *byte == b'\n').find_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at(colon);
            name.trim_ascii().eq_ignore_ascii_case(STATUS).then(|| value[1..].trim_ascii().to_vec())
        });
        self.end(status.map_or(Said::Unreadable, Said::Status));
    }
}

/// Base64 as it comes, four letters at a time: any four may end with padding.
#[derive(Debug, Default)]
struct Quad {
    letters: [u8; 4],
    have: usize,
}

impl Quad {
    /// What the next letters say; `None` when they say nothing.
    fn decode(&mut self, letters: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(letters.len() / 4 * 3 + 3);
        for letter in letters {
            self.letters[self.have] = *letter;
            self.have += 1;
            if self.have == self.letters.len() {
                self.have = 0;
                let mut three = [0; 3];
                let decoded = STANDARD.decode_slice(self.letters, &mut three).ok()?;
                bytes.extend_from_slice(&three[..decoded]);
            }
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flags: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).expect("short");
        [&[flags][..], &length.to_be_bytes(), bytes].concat()
    }

    fn said(kind: &str, body: &[u8], piece: usize) -> Said {
        let mut follower = Follower::of(kind.as_bytes()).expect("gRPC-Web");
        for piece in body.chunks(piece) {
            follower.read(piece);
        }
        follower.said().clone()
    }

    const BINARY: &str = "application/grpc-web+proto";
    const TEXT: &str = "application/grpc-web-text+proto";

    #[test]
    fn the_status_is_that_of_the_trailers_however_it_comes() {
        let messages = [message(0, b"\x80 no trailers"), message(1, b""), message(0, &[9; 70_000])];
        let trailers =
            message(0x80, b"grpc-message: it\r\nGrpc-Status:14\r\nx: grpc-status: 3\r\n");
        let body = [messages.concat(), trailers.clone()].concat();
        // Each message with a padding of its own, as servers write them that send one at a time.
        let text: String = messages.iter().chain([&trailers]).map(|m| STANDARD.encode(m)).collect();
        assert!(text.trim_end_matches('=').contains('='));
        for piece in [1, 2, 3, 4, 5, 7, 4_096, 1_000_000] {
            assert_eq!(said(BINARY, &body, piece), Said::Status(b"14".to_vec()), "{piece}");
            assert_eq!(said(TEXT, text.as_bytes(), piece), Said::Status(b"14".to_vec()), "{piece}");
            let whole = STANDARD.encode(&body);
            let found = said("application/grpc-web-text", whole.as_bytes(), piece);
            assert_eq!(found, Said::Status(b"14".to_vec()), "{piece}");
        }
    }

    #[test]
    fn what_says_nothing_is_told_from_what_cannot_be_read() {
        for (body, expected) in [
            (vec![], Said::Nothing),
            (message(0, b"x"), Said::Nothing),
            (message(0x80, b""), Said::Unreadable),
            (message(0x80, b"grpc-message: none\r\n"), Said::Unreadable),
            (message(0x80, b"grpc-status: 0\r\n")[..9].to_vec(), Said::Nothing),
            (message(0x81, b"\x1f\x8b"), Said::Unreadable),
            (message(0x02, b"x"), Said::Unreadable),
            (message(0x80, &[b'x'; MOST as usize + 1]), Said::Unreadable),
            (b"<html>".to_vec(), Said::Unreadable),
        ] {
            assert_eq!(said(BINARY, &body, 3), expected, "{body:?}");
        }
        assert_eq!(said(TEXT, b"<html>", 9), Said::Unreadable);
        assert_eq!(said(TEXT, b"A===", 9), Said::Unreadable);
    }

    #[test]
    fn other_kinds_are_not_followed() {
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc-webby", ""] {
            assert!(Follower::of(kind.as_bytes()).is_none(), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc-web;x", "application/grpc-web-text"]
        {
            assert!(Follower::of(kind.as_bytes()).is_some(), "{kind}");
        }
    }
}
