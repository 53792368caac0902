//! The endpoints of one revision, and which of them takes the next request.

use std::sync::Arc;

use super::endpoint::{Claim, Endpoint, EndpointId};
use crate::model::id::RevisionId;

/// The endpoints of one revision.
#[derive(Debug)]
pub struct Pool {
    /// The revision.
    pub revision: RevisionId,
    /// Its endpoints, in the order in which they were launched.
    pub endpoints: Box<[Arc<Endpoint>]>,
}

impl Pool {
    /// A pool over endpoints.
    #[must_use]
    pub fn new(revision: RevisionId, endpoints: Vec<Arc<Endpoint>>) -> Self {
        Self { revision, endpoints: endpoints.into() }
    }

    /// Claims the less busy of two available endpoints drawn by `random` (power of two choices,
    /// Mitzenmacher 1996), never one of `tried`. When both draws are unavailable, any that is
    /// available; when none is healthy, any that was not tried and is not draining, because a probe
    /// may be wrong and refusing without asking helps nobody.
    #[must_use]
    pub fn claim(&self, random: u64, tried: &[EndpointId]) -> Option<Claim> {
        let count = self.endpoints.len();
        if count == 0 {
            return None;
        }
        let usable = |e: &&Arc<Endpoint>| e.is_available() && !tried.contains(&e.id);
        if count == 1 {
            let only = &self.endpoints[0];
            return if tried.contains(&only.id) { None } else { only.claim() };
        }
        let first = (random as u32 as usize) % count;
        // A second draw among the others, so that the two always differ.
        let second = (first + 1 + ((random >> 32) as usize) % (count - 1)) % count;
        let (a, b) = (
            Some(&self.endpoints[first]).filter(usable),
            Some(&self.endpoints[second]).filter(usable),
        );
        let chosen = match (a, b) {
            (Some(a), Some(b)) if b.in_flight() < a.in_flight() => Some(b),
            (Some(a), _) => Some(a),
            (None, b) => b,
        };
        if let Some(claim) = chosen.and_then(Endpoint::claim) {
            return Some(claim);
        }
        let from_first = || self.endpoints.iter().cycle().skip(first).take(count);
        from_first()
            .filter(usable)
            .find_map(Endpoint::claim)
            .or_else(|| from_first().filter(|e| !tried.contains(&e.id)).find_map(Endpoint::claim))
    }

    /// Whether any endpoint is available.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.is_available())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::InstanceId;
    use crate::model::revision::UpstreamProtocol;
    use std::net::SocketAddr;

    fn pool(count: u64) -> Pool {
        let endpoints = (0..count)
            .map(|n| {
                let address = SocketAddr::from(([127, 0, 0, 1], 1000 + n as u16));
                let id = InstanceId::new(&n.to_string());
                let endpoint = Endpoint::new(EndpointId(n), id, address, UpstreamProtocol::Http1);
                endpoint.set_healthy(true);
                endpoint
            })
            .collect();
        Pool::new(RevisionId(1), endpoints)
    }

    fn random(n: u64) -> u64 {
        n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    }

    #[test]
    fn the_less_busy_of_two_is_chosen() {
        let pool = pool(4);
        let mut held = Vec::new();
        for n in 0..400 {
            held.push(pool.claim(random(n), &[]).expect("a claim"));
        }
        for endpoint in &pool.endpoints {
            assert!((90..=110).contains(&endpoint.in_flight()), "{}", endpoint.in_flight());
        }
    }

    #[test]
    fn the_unhealthy_and_the_tried_are_passed_over() {
        let pool = pool(3);
        pool.endpoints[0].set_healthy(false);
        for n in 0..100 {
            let claim = pool.claim(random(n), &[EndpointId(1)]).expect("a claim");
            assert_eq!(claim.endpoint().id, EndpointId(2));
        }
        assert!(pool.claim(7, &[EndpointId(0), EndpointId(1), EndpointId(2)]).is_none());
    }

    #[test]
    fn a_pool_without_health_is_still_asked_but_a_draining_one_is_not() {
        let pool = pool(2);
        for endpoint in &pool.endpoints {
            endpoint.set_healthy(false);
        }
        assert!(pool.claim(1, &[]).is_some());
        for endpoint in &pool.endpoints {
            endpoint.begin_drain();
        }
        assert!(pool.claim(1, &[]).is_none());
        assert!(Pool::new(RevisionId(1), Vec::new()).claim(1, &[]).is_none());
    }
}
