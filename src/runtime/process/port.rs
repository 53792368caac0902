//! A port of loopback that nobody uses, for an instance to listen on.
//!
//! The port is free when it is chosen and taken only when the app binds it; in between, somebody
//! else may bind it. Then the app ends or the probe fails, which says so. To make that rare, ports
//! are taken from below the range out of which the kernel serves `connect` and `bind(0)`.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::ops::Range;

use socket2::{Domain, SockAddr, Socket, Type};

/// How many ports below the kernel's own range we choose from.
const SPAN: u16 = 10_000;

/// Below are the ports of well-known services (RFC 6335, system ports) and of a good many others.
const LOWEST: u16 = 10_000;

/// Tries in our range before the kernel is asked for any free port.
const TRIES: u32 = 64;

/// The first port that Linux gives out by itself, unless told otherwise (ip(7)).
const EPHEMERAL: u16 = 32_768;

/// Chooses a port that is free on every address and not in `taken`.
///
/// # Errors
/// When no port can be bound at all.
pub fn choose(taken: &HashSet<u16>) -> io::Result<u16> {
    let range = range();
    for _ in 0..TRIES {
        let port = fastrand::u16(range.clone());
        if !taken.contains(&port) && bind(port).is_ok() {
            return Ok(port);
        }
    }
    loop {
        let port = bind(0)?;
        if !taken.contains(&port) {
            return Ok(port);
        }
    }
}

fn range() -> Range<u16> {
    let end = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(EPHEMERAL)
        .max(LOWEST + 1);
    end.saturating_sub(SPAN).max(LOWEST)..end
}

/// Binds and lets go. Not listening, so that nobody's connection lands here.
fn bind(port: u16) -> io::Result<u16> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
    let bound = socket.local_addr()?.as_socket().map(|address| address.port());
    bound.ok_or_else(|| io::Error::other("a bound socket has no port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_port_can_be_bound_and_a_used_one_cannot() {
        let port = choose(&HashSet::new()).unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert!(bind(port).is_err());
        drop(listener);
    }

    #[test]
    fn the_range_lies_below_the_kernels() {
        let range = range();
        assert!(range.start >= LOWEST && range.start < range.end);
    }
}
