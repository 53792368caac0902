//! Which addresses a process listens on, as the kernel tells it in `/proc/PID/net/tcp`.
//!
//! Turns "connection refused" into a certainty: the app listens on 127.0.0.1 only, or on another
//! port. Reads, never connects. Every answer is optional: another user's process cannot be read.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// TCP_LISTEN in the kernel's include/net/tcp_states.h.
const LISTEN: &str = "0A";

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: SocketAddr,
    /// The inode of the socket, by which its owner is found.
    pub inode: u64,
}

/// All listening TCP sockets in the network namespace of a process; none when it cannot be read.
#[must_use]
pub fn namespace(pid: i32) -> Option<Vec<Listener>> {
    let four = fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
    let six = fs::read_to_string(format!("/proc/{pid}/net/tcp6")).unwrap_or_default();
    Some(four.lines().chain(six.lines()).filter_map(parse).collect())
}

/// The listening TCP sockets that these processes hold.
#[must_use]
pub fn held_by(pids: &[i32]) -> Option<Vec<Listener>> {
    let all = namespace(*pids.first()?)?;
    let inodes: HashSet<u64> = pids.iter().flat_map(|pid| inodes(*pid)).collect();
    Some(all.into_iter().filter(|listener| inodes.contains(&listener.inode)).collect())
}

/// What keeps `wanted` from being reached, in one sentence; none when the sockets don't tell.
/// `set_port` is the cure for a wrong port.
#[must_use]
pub fn explain(
    listeners: &[Listener],
    wanted: SocketAddr,
    set_port: impl Fn(u16) -> String,
) -> Option<String> {
    let on_port: Vec<_> = listeners.iter().filter(|l| l.address.port() == wanted.port()).collect();
    if !on_port.is_empty() {
        let only_loopback = on_port.iter().all(|l| l.address.ip().is_loopback());
        return (only_loopback && !wanted.ip().is_loopback()).then(|| {
            format!(
                "the app listens on {} only, which nobody outside can reach: it must listen on 0.0.0.0:{}",
                on_port.first().map_or(wanted, |l| l.address),
                wanted.port(),
            )
        });
    }
    let reachable = |l: &&Listener| !l.address.ip().is_loopback() || wanted.ip().is_loopback();
    // Docker's embedded resolver listens on 127.0.0.11 in every user-defined network.
    let resolver = |l: &&Listener| l.address.ip() == IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
    let others = || listeners.iter().filter(|l| !resolver(l));
    match others().find(reachable).or_else(|| others().next()) {
        Some(other) => Some(format!(
            "the app listens on {}, not on port {}: {}",
            other.address,
            wanted.port(),
            set_port(other.address.port()),
        )),
        None => Some(format!(
            "the app runs but listens on no TCP port yet, and port {} is waited for: see its output for what holds it up",
            wanted.port()
        )),
    }
}

/// The inodes of the sockets that a process has open.
fn inodes(pid: i32) -> Vec<u64> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.ok()?.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// One line of `/proc/net/tcp{,6}` (proc_net(5)): `sl local remote state … inode`, addresses as
/// hexadecimal words in host order, the port in network order.
fn parse(line: &str) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace();
    let (ip, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes())),
        32 => {
            let mut bytes = [0; 16];
            for (at, word) in bytes.chunks_exact_mut(4).enumerate() {
                let text = ip.get(at * 8..at * 8 + 8)?;
                word.copy_from_slice(&u32::from_str_radix(text, 16).ok()?.to_ne_bytes());
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(Listener { address: SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?), inode })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Listener {
        Listener { address: text.parse().unwrap(), inode: 0 }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn reads_the_kernels_table() {
        let line = "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0";
        assert_eq!(parse(line), Some(Listener { inode: 12345, ..at("127.0.0.1:3000") }));
        let six = "   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0";
        assert_eq!(parse(six), Some(Listener { inode: 7, ..at("[::]:80") }));
        let established = line.replace(" 0A ", " 01 ");
        assert_eq!(parse(&established), None);
        assert_eq!(parse("  sl  local_address rem_address   st"), None);
    }

    #[test]
    fn says_what_is_in_the_way() {
        let wanted = "172.17.0.2:3000".parse().unwrap();
        let said =
            |listeners: &[Listener]| explain(listeners, wanted, |port| format!("port = {port}"));
        assert_eq!(
            said(&[at("127.0.0.1:3000")]).unwrap(),
            "the app listens on 127.0.0.1:3000 only, which nobody outside can reach: it must listen on 0.0.0.0:3000"
        );
        assert_eq!(
            said(&[at("127.0.0.11:4000"), at("0.0.0.0:8080")]).unwrap(),
            "the app listens on 0.0.0.0:8080, not on port 3000: port = 8080"
        );
        assert!(said(&[]).unwrap().starts_with("the app runs but listens on no TCP port yet"));
        assert!(said(&[]).unwrap().contains("port 3000 is waited for"));
        assert_eq!(said(&[at("0.0.0.0:3000")]), None);
    }

    #[test]
    fn finds_our_own_listener() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(held_by(&[own]).unwrap().iter().any(|l| l.address == address));
    }
}
