//! One address in a pool: its health, its claims, its drain.
//!
//! A [`Claim`] is the right to send one request. It is counted before the draining flag is read, and
//! a drain sets the flag before it reads the count, both sequentially consistent: of a claim and a
//! drain that meet, at least one sees the other. So once a drain has seen zero, no request will
//! start.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::model::id::InstanceId;
use crate::model::preamble::Preamble;
use crate::model::revision::{Speech, UpstreamProtocol};

/// The number of an endpoint, never used twice in the life of a process. Connections belong to this
/// number and not to an address, because Docker gives addresses out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u64);

/// An address that requests may be sent to.
#[derive(Debug)]
pub struct Endpoint {
    /// Its number.
    pub id: EndpointId,
    /// The instance behind it.
    pub instance: InstanceId,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: UpstreamProtocol,
    /// What each connection to it begins with.
    pub preamble: Preamble,
    healthy: AtomicBool,
    draining: AtomicBool,
    cut: AtomicBool,
    in_flight: AtomicU32,
    connect_failures: AtomicU32,
}

impl Endpoint {
    /// A new endpoint, not yet healthy.
    #[must_use]
    pub fn new(
        id: EndpointId,
        instance: InstanceId,
        address: SocketAddr,
        speech: impl Into<Speech>,
    ) -> Arc<Self> {
        let Speech { protocol, preamble } = speech.into();
        Arc::new(Self {
            id,
            instance,
            address,
            protocol,
            preamble,
            healthy: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            connect_failures: AtomicU32::new(0),
        })
    }

    /// Takes the right to send one request, unless a drain has begun.
    #[must_use]
    pub fn claim(self: &Arc<Self>) -> Option<Claim> {
        // SeqCst on both: pairs with begin_drain, so that one side always sees the other.
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        if self.draining.load(Ordering::SeqCst) {
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        Some(Claim { endpoint: Arc::clone(self) })
    }

    /// From now on no claim is given. Those that exist finish, or are cut.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Takes a drain back: the endpoint is wanted again (a rollback to a warm revision).
    pub fn end_drain(&self) {
        self.draining.store(false, Ordering::SeqCst);
        self.cut.store(false, Ordering::SeqCst);
    }

    /// The drain deadline has passed: workers end the connections that still carry requests.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// Whether connections to it must end now.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Whether a drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Requests that hold a claim.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// What probes concluded.
    pub fn set_healthy(&self, healthy: bool) {
        // Relaxed: a hint to balancing; a request that misses it by a moment meets a live retry.
        self.healthy.store(healthy, Ordering::Relaxed);
        if healthy {
            self.connect_failures.store(0, Ordering::Relaxed);
        }
    }

    /// What probes concluded.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Healthy and not draining.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.is_healthy() && !self.draining.load(Ordering::Relaxed)
    }

    /// A connection could not be made. Returns how many in a row could not.
    pub fn connect_failed(&self) -> u32 {
        // Relaxed: a count for the fast lane, nothing is ordered by it.
        self.connect_failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A connection was made.
    pub fn connected(&self) {
        if self.connect_failures.load(Ordering::Relaxed) != 0 {
            self.connect_failures.store(0, Ordering::Relaxed);
        }
    }

    /// Failures to connect in a row.
    #[must_use]
    pub fn connect_failures(&self) -> u32 {
        self.connect_failures.load(Ordering::Relaxed)
    }
}

/// The right to send one request; held until the last byte of the answer. Dropping it gives it back.
#[derive(Debug)]
pub struct Claim {
    endpoint: Arc<Endpoint>,
}

impl Claim {
    /// The endpoint claimed.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn endpoint() -> Arc<Endpoint> {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let endpoint =
            Endpoint::new(EndpointId(1), InstanceId::new("i"), address, UpstreamProtocol::Http1);
        endpoint.set_healthy(true);
        endpoint
    }

    #[test]
    fn a_claim_counts_until_it_is_dropped() {
        let endpoint = endpoint();
        let claim = endpoint.claim().expect("a claim");
        assert_eq!(endpoint.in_flight(), 1);
        endpoint.begin_drain();
        assert!(endpoint.claim().is_none());
        assert!(!endpoint.is_available());
        assert_eq!(endpoint.in_flight(), 1);
        drop(claim);
        assert_eq!(endpoint.in_flight(), 0);
        endpoint.end_drain();
        assert!(endpoint.claim().is_some());
    }

    #[test]
    fn once_a_drain_has_seen_zero_nothing_starts() {
        for _ in 0..200 {
            let endpoint = endpoint();
            let drained = Arc::new(AtomicBool::new(false));
            let claimers: Vec<_> = (0..2)
                .map(|_| {
                    let (endpoint, drained) = (Arc::clone(&endpoint), Arc::clone(&drained));
                    thread::spawn(move || {
                        while let Some(claim) = endpoint.claim() {
                            assert!(!drained.load(Ordering::SeqCst), "a claim after the drain");
                            drop(claim);
                        }
                    })
                })
                .collect();
            endpoint.begin_drain();
            while endpoint.in_flight() != 0 {
                std::hint::spin_loop();
            }
            drained.store(true, Ordering::SeqCst);
            for claimer in claimers {
                claimer.join().expect("no claim after the drain");
            }
        }
    }
}
