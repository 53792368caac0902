//! How many requests of a client are in flight, shared by all workers.
//!
//! An entry lives as long as a request does, so the memory is bounded by the connections that are.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Mutex, PoisonError};

use super::limit::Seed;

/// Maps, so that workers rarely wait for each other.
const SHARDS: usize = 64;

/// Counts of requests in flight.
pub struct Flights {
    most: u32,
    seed: Seed,
    shards: Box<[Mutex<HashMap<u64, u32, Seed>>]>,
}

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flights").field("most", &self.most).finish_non_exhaustive()
    }
}

/// One request in flight; it is counted until this is dropped.
#[derive(Debug)]
pub struct Flight {
    flights: Arc<Flights>,
    hash: u64,
}

impl Flights {
    /// No request is in flight; at most so many of one client may be.
    #[must_use]
    pub fn new(most: u32, seed: Seed) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(seed.clone()))).collect();
        Self { most, seed, shards }
    }

    fn with<T>(&self, hash: u64, act: impl FnOnce(&mut HashMap<u64, u32, Seed>) -> T) -> Option<T> {
        let shard = self.shards.get(hash as usize % SHARDS)?;
        // Whoever panicked with the lock left whole numbers behind.
        Some(act(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Counts one more request of a client; `None` when it has as many as it may.
    #[must_use]
    pub fn take(self: &Arc<Self>, key: impl Hash) -> Option<Flight> {
        let hash = self.seed.hash_one(key);
        let taken = self.with(hash, |counts| {
            let count = counts.entry(hash).or_default();
            let free = *count < self.most;
            *count += u32::from(free);
            free
        })?;
        taken.then(|| Flight { flights: Arc::clone(self), hash })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.with(self.hash, |counts| {
            if let Some(count) = counts.get_mut(&self.hash) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    counts.remove(&self.hash);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_and_no_more_and_nothing_is_left_behind() {
        let flights = Arc::new(Flights::new(2, Seed::new()));
        let (one, two) = (flights.take("a"), flights.take("a"));
        assert!(one.is_some() && two.is_some() && flights.take("a").is_none());
        assert!(flights.take("b").is_some(), "another client");
        drop(one);
        let three = flights.take("a");
        assert!(three.is_some() && flights.take("a").is_none());
        drop((two, three));
        let left: usize =
            flights.shards.iter().map(|shard| shard.lock().expect("no panic").len()).sum();
        assert_eq!(left, 0);
    }
}
