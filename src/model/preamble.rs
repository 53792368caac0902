//! The PROXY protocol: what a connection begins with that says whose bytes follow.
//!
//! Written and read as HAProxy's specification has it (proxy-protocol.txt, versions 1 and 2), without
//! input or output. Reading is strict: whoever may send it decides who a client is.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const WORD: &[u8; 6] = b"PROXY ";
/// Bytes of version 1 with its line's end (section 2.1).
const LONGEST_LINE: usize = 107;
/// Bytes of version 2 before the addresses.
const FIXED: usize = 16;
/// Bytes that a preamble may have. Version 2 could announce 64 KiB; what is in use are a hundred.
pub const LONGEST: usize = 4 * 1024;
/// The type of a checksum among what follows the addresses.
const CRC32C: u8 = 3;

/// Who is at the other end of a connection, and which address they connected to.
pub type Ends = (SocketAddr, SocketAddr);

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preamble {
    /// Nothing.
    #[default]
    None,
    /// A line of text.
    V1,
    /// A block of bytes.
    V2,
}

impl Preamble {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Writes it. Without ends it says that the connection is our own, as a probe's is.
    pub fn write(self, ends: Option<Ends>, out: &mut Vec<u8>) {
        match (self, ends.map(alike)) {
            (Self::None, _) => {}
            (Self::V1, None) => out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
            (Self::V1, Some((from, to))) => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                let mut line = String::new();
                let (a, b) = (from.ip(), to.ip());
                // Into memory: it cannot fail.
                let _ = write!(line, "PROXY {family} {a} {b} {} {}\r\n", from.port(), to.port());
                out.extend_from_slice(line.as_bytes());
            }
            (Self::V2, None) => {
                out.extend_from_slice(SIGNATURE);
                out.extend_from_slice(&[0x20, 0, 0, 0]);
            }
            (Self::V2, Some((from, to))) => {
                out.extend_from_slice(SIGNATURE);
                let (family, length) = if from.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
                out.extend_from_slice(&[0x21, family, 0, length]);
                for address in [from.ip(), to.ip()] {
                    match address {
                        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
                        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
                    }
                }
                out.extend_from_slice(&from.port().to_be_bytes());
                out.extend_from_slice(&to.port().to_be_bytes());
            }
        }
    }
}

/// Both of one family: of IPv4 only if both are.
fn alike((from, to): Ends) -> Ends {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let six = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(ip) => SocketAddr::new(ip.into(), address.port()),
    };
    let (from, to) = (plain(from), plain(to));
    if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (six(from), six(to)) }
}

/// How far the reading of a preamble is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It goes on beyond these bytes.
    More,
    /// It is complete.
    Done {
        /// Its bytes.
        length: usize,
        /// What it says; `None` when the connection is the proxy's own, or of another kind.
        ends: Option<Ends>,
    },
}

/// Reads a preamble at the beginning of these bytes. The error is what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Progress, &'static str> {
    let begins = |with: &[u8]| {
        let length = with.len().min(bytes.len());
        bytes[..length] == with[..length]
    };
    if begins(SIGNATURE) {
        block(bytes)
    } else if begins(WORD) {
        line(bytes)
    } else {
        Err("it does not begin with a PROXY protocol header")
    }
}

fn line(bytes: &[u8]) -> Result<Progress, &'static str> {
    let within = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = within.windows(2).position(|two| two == b"\r\n") else {
        let more = bytes.len() < LONGEST_LINE;
        return if more { Ok(Progress::More) } else { Err("its line has no end") };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "its line is no text")?;
    let length = end + 2;
    let words: Vec<&str> = text.split(' ').collect();
    let ends = match words.as_slice() {
        // What follows is to be ignored.
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let is_four = *family == "TCP4";
            let address = |text: &str| {
                let address = text.parse::<IpAddr>().ok();
                address.filter(|address| address.is_ipv4() == is_four).ok_or("a bad address")
            };
            let from = SocketAddr::new(address(from)?, port(from_port)?);
            Some((from, SocketAddr::new(address(to)?, port(to_port)?)))
        }
        _ => return Err("its line has other words"),
    };
    Ok(Progress::Done { length, ends })
}

/// Digits without a zero before them.
fn port(text: &str) -> Result<u16, &'static str> {
    let sound = text.bytes().all(|byte| byte.is_ascii_digit());
    let sound = sound && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| sound).ok_or("a bad port")
}

fn block(bytes: &[u8]) -> Result<Progress, &'static str> {
    let Some(head) = bytes.get(..FIXED) else { return Ok(Progress::More) };
    let length = FIXED + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > LONGEST {
        return Err("it is too long");
    }
    let is_own = match head[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err("it has another version or command"),
    };
    let Some(all) = bytes.get(..length) else { return Ok(Progress::More) };
    let rest = &all[FIXED..];
    let (addresses, ends) = match head[13] {
        // Of no kind, or of a socket on that machine: who it is cannot be said.
        0x00 => (0, None),
        0x31 => (216, None),
        0x11 => (12, four(rest)),
        0x21 => (36, six(rest)),
        _ if is_own => (0, None),
        _ => return Err("it is about another transport than TCP"),
    };
    if is_own {
        return Ok(Progress::Done { length, ends: None });
    }
    let extras = rest.get(addresses..).ok_or("its addresses are cut short")?;
    check_extras(all, extras)?;
    Ok(Progress::Done { length, ends })
}

fn four(bytes: &[u8]) -> Option<Ends> {
    let all: &[u8; 12] = bytes.first_chunk()?;
    let at = |at: usize| Ipv4Addr::new(all[at], all[at + 1], all[at + 2], all[at + 3]);
    let port = |at: usize| u16::from_be_bytes([all[at], all[at + 1]]);
    Some((SocketAddr::new(at(0).into(), port(8)), SocketAddr::new(at(4).into(), port(10))))
}

fn six(bytes: &[u8]) -> Option<Ends> {
    let all: &[u8; 36] = bytes.first_chunk()?;
    let at = |at: usize| all[at..].first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes));
    let port = |at: usize| u16::from_be_bytes([all[at], all[at + 1]]);
    Some((SocketAddr::new(at(0)?.into(), port(32)), SocketAddr::new(at(16)?.into(), port(34))))
}

/// What follows the addresses is a row of types, lengths and values. Only a checksum is looked at.
fn check_extras(all: &[u8], extras: &[u8]) -> Result<(), &'static str> {
    let mut rest = extras;
    while !rest.is_empty() {
        let Some([kind, high, low]) = rest.first_chunk::<3>() else {
            return Err("what follows the addresses is cut short");
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let value = rest.get(3..3 + length).ok_or("what follows the addresses is cut short")?;
        if *kind == CRC32C {
            let said: &[u8; 4] = value.try_into().map_err(|_| "its checksum has a bad length")?;
            let at = all.len() - rest.len() + 3;
            let blank = all.iter().enumerate();
            let blank = blank.map(|(n, byte)| if (at..at + 4).contains(&n) { 0 } else { *byte });
            if crc32c(blank) != u32::from_be_bytes(*said) {
                return Err("its checksum is wrong");
            }
        }
        rest = &rest[3 + length..];
    }
    Ok(())
}

/// CRC-32C (RFC 3720, appendix B.4), bit by bit: it is over some hundred bytes, once per connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(from: &str, to: &str) -> Ends {
        (from.parse().expect("an address"), to.parse().expect("an address"))
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend_from_slice(&[command, family]);
        bytes.extend_from_slice(&(rest.len() as u16).to_be_bytes());
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn what_is_written_is_read_however_it_comes() {
        for said in [
            None,
            Some(ends("203.0.113.7:4711", "192.0.2.1:443")),
            Some(ends("[2001:db8::7]:65535", "[2001:db8::1]:0")),
            Some(ends("203.0.113.7:1", "[2001:db8::1]:2")),
        ] {
            for version in [Preamble::V1, Preamble::V2] {
                let mut bytes = Vec::new();
                version.write(said, &mut bytes);
                let length = bytes.len();
                bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
                for end in 0..length {
                    assert_eq!(read(&bytes[..end]), Ok(Progress::More), "{version:?} {end}");
                }
                let expected = Progress::Done { length, ends: said.map(alike) };
                assert_eq!(read(&bytes), Ok(expected), "{version:?}");
            }
        }
        let mut bytes = Vec::new();
        Preamble::V1.write(Some(ends("[::ffff:10.0.0.1]:1", "10.0.0.2:2")), &mut bytes);
        assert_eq!(bytes, b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n");
        Preamble::None.write(None, &mut bytes);
        assert_eq!(bytes.len(), 34);
    }

    #[test]
    fn a_line_is_read_strictly() {
        for good in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 whatever 1 2\r\n"] {
            let done = Progress::Done { length: good.len(), ends: None };
            assert_eq!(read(good.as_bytes()), Ok(done), "{good}");
        }
        for bad in [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
            "PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 ::1 1.2.3.4 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\nGET / HTTP/1.1\r\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY \r\n",
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107));
        assert!(read(long.as_bytes()).is_err());
        assert_eq!(read(&long.as_bytes()[..106]), Ok(Progress::More));
    }

    #[test]
    fn a_block_is_read_strictly() {
        let four = [10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2];
        let with = |extras: &[u8]| [&four[..], extras].concat();
        let said = Some(ends("10.0.0.1:1", "10.0.0.2:2"));
        let read_ends = |bytes: &[u8]| match read(bytes) {
            Ok(Progress::Done { length, ends }) if length == bytes.len() => Ok(ends),
            other => Err(format!("{other:?}")),
        };
        for (good, expected) in [
            (v2(0x21, 0x11, &four), said),
            (v2(0x21, 0x11, &with(&[0xea, 0, 2, 1, 2, 4, 0, 0])), said),
            (v2(0x20, 0x11, &four), None),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x77, &[1, 2, 3]), None),
            (v2(0x21, 0x00, &[]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            assert_eq!(read_ends(&good), Ok(expected), "{good:?}");
        }
        for bad in [
            v2(0x11, 0x11, &four),
            v2(0x22, 0x11, &four),
            v2(0x21, 0x12, &four),
            v2(0x21, 0x11, &four[..11]),
            v2(0x21, 0x21, &four),
            v2(0x21, 0x11, &with(&[4, 0])),
            v2(0x21, 0x11, &with(&[4, 0, 9, 1])),
            v2(0x21, 0x11, &[0; 5_000]),
        ] {
            assert!(read(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_checksum_must_hold() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
        assert_eq!(crc32c(0..32), 0x46dd_794e);
        let four = [10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2];
        let blank = v2(0x21, 0x11, &[&four[..], &[CRC32C, 0, 4, 0, 0, 0, 0]].concat());
        let sum = crc32c(blank.iter().copied()).to_be_bytes();
        let good = v2(0x21, 0x11, &[&four[..], &[CRC32C, 0, 4], &sum].concat());
        assert!(matches!(read(&good), Ok(Progress::Done { .. })));
        assert_eq!(read(&blank), Err("its checksum is wrong"));
    }
}
