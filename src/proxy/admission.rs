//! Who may connect, and how pressed we are for memory: what the workers share about it.
//!
//! A connection counts from its accept to its end. Addresses are only counted when there is a limit,
//! in shards, so that workers rarely wait for each other; IPv6 addresses count by their network of
//! 64 bits, because that is what one visitor has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::limits::Limits;
use crate::telemetry::traffic::Reason;

const SHARDS: usize = 16;

/// How pressed for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Pressure {
    /// Not at all.
    #[default]
    None,
    /// Idle connections are given up: 85 % are used.
    High,
    /// Nothing new is begun: 95 % are used. Envoy stops accepting at 98 % of its heap.
    Full,
}

/// What the workers share about who may connect.
#[derive(Debug)]
pub struct Admission {
    most: usize,
    most_per_address: u32,
    open: AtomicUsize,
    addresses: [Mutex<HashMap<u64, u32>>; SHARDS],
    memory: Option<u64>,
    pressure: AtomicU8,
}

/// The right of a connection to be open; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: std::sync::Arc<Admission>,
    address: Option<u64>,
}

impl Admission {
    /// Under these limits, with so many bytes of memory if that is known.
    pub fn new(limits: &Limits, memory: Option<u64>) -> Self {
        Self {
            most: limits.connections,
            most_per_address: limits.connections_per_address,
            open: AtomicUsize::new(0),
            addresses: std::array::from_fn(|_| Mutex::default()),
            memory,
            pressure: AtomicU8::new(0),
        }
    }

    /// Admits a connection, or says why not. `exempt` is for proxies that speak for many.
    pub fn admit(
        self: &std::sync::Arc<Self>,
        peer: IpAddr,
        exempt: bool,
    ) -> Result<Admitted, Reason> {
        // Relaxed: only the number itself is looked at.
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Reason::Connections);
        }
        let mut admitted = Admitted { admission: std::sync::Arc::clone(self), address: None };
        if !exempt {
            admitted.count_for(peer)?;
        }
        Ok(admitted)
    }

    fn shard(&self, key: u64) -> std::sync::MutexGuard<'_, HashMap<u64, u32>> {
        let shard = &self.addresses[(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize];
        // Poisoned by a panic elsewhere, the counts are still counts.
        shard.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes note of how much memory is used.
    pub fn uses(&self, bytes: u64) {
        let Some(memory) = self.memory.filter(|memory| *memory > 0) else { return };
        let percent = bytes.saturating_mul(100) / memory;
        let level = u8::from(percent >= 85) + u8::from(percent >= 95);
        self.pressure.store(level, Ordering::Relaxed);
    }

    /// How pressed for memory.
    pub fn pressure(&self) -> Pressure {
        match self.pressure.load(Ordering::Relaxed) {
            0 => Pressure::None,
            1 => Pressure::High,
            _ => Pressure::Full,
        }
    }
}

impl Admitted {
    /// Counts the connection as one of this address from now on, or says why it may not be.
    pub fn count_for(&mut self, address: IpAddr) -> Result<(), Reason> {
        if self.admission.most_per_address == 0 {
            return Ok(());
        }
        let key = key(address);
        {
            let mut shard = self.admission.shard(key);
            let count = shard.entry(key).or_insert(0);
            if *count >= self.admission.most_per_address {
                return Err(Reason::AddressConnections);
            }
            *count += 1;
        }
        self.forget();
        self.address = Some(key);
        Ok(())
    }

    fn forget(&mut self) {
        if let Some(key) = self.address.take() {
            let mut shard = self.admission.shard(key);
            if let Some(count) = shard.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    shard.remove(&key);
                }
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        self.forget();
    }
}

/// What an address counts as.
fn key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        // The upper half is a network; the lowest bits of an IPv4 address cannot look like one.
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn admission(connections: usize, per_address: u32) -> Arc<Admission> {
        let limits =
            Limits { connections, connections_per_address: per_address, ..Limits::default() };
        Arc::new(Admission::new(&limits, Some(1_000)))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn so_many_and_no_more() {
        let door = admission(2, 0);
        let one = door.admit(address("10.0.0.1"), false).expect("room");
        let _two = door.admit(address("10.0.0.1"), false).expect("room");
        assert_eq!(door.admit(address("10.0.0.2"), false).err(), Some(Reason::Connections));
        drop(one);
        door.admit(address("10.0.0.2"), false).expect("room again");
    }

    #[test]
    fn an_address_has_its_share() {
        let door = admission(100, 2);
        let peer = address("2001:db8::1");
        let one = door.admit(peer, false).expect("room");
        let _two = door.admit(address("2001:db8::2"), false).expect("room");
        assert_eq!(door.admit(peer, false).err(), Some(Reason::AddressConnections));
        let _other = door.admit(address("2001:db8:0:1::1"), false).expect("another network");
        let _exempt = door.admit(peer, true).expect("a proxy");
        drop(one);
        drop(door.admit(peer, false).expect("room again"));
        assert_eq!(door.open.load(Ordering::Relaxed), 3);
        let entries: usize = door.addresses.iter().map(|s| s.lock().expect("sound").len()).sum();
        assert_eq!(entries, 2);
    }

    #[test]
    fn memory_has_two_marks() {
        let door = admission(1, 0);
        for (used, pressure) in [
            (849, Pressure::None),
            (850, Pressure::High),
            (949, Pressure::High),
            (950, Pressure::Full),
            (2_000, Pressure::Full),
            (10, Pressure::None),
        ] {
            door.uses(used);
            assert_eq!(door.pressure(), pressure, "{used}");
        }
    }
}
