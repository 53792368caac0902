//! Counters of the data plane that belong to no revision: connections, bytes, refusals.
//!
//! A shard per worker, each written by its worker alone with relaxed loads and stores; readers add
//! the shards up.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Downstream connections accepted.
    Accepted,
    /// Downstream connections that ended.
    Closed,
    /// TLS handshakes completed.
    TlsHandshakes,
    /// TLS handshakes that resumed an earlier session.
    TlsResumed,
    /// TLS handshakes that failed.
    TlsFailures,
    /// Requests received, of any kind.
    Requests,
    /// Requests that matched no route.
    Unrouted,
    /// Requests refused as malformed or over a limit.
    Refused,
    /// Upstream connections opened.
    UpstreamConnects,
    /// Upstream connections that could not be opened.
    UpstreamConnectFailures,
    /// Requests tried again on another endpoint.
    Retries,
    /// Canary failures that a user did not see, because stable answered instead.
    Rescued,
    /// Answers that the proxy made itself: 502, 503, 504.
    Synthetic,
    /// Tunnels opened by `Upgrade` or `CONNECT`.
    Tunnels,
    /// Panics caught in a connection.
    Panics,
}

const COUNTS: usize = Count::Panics as usize + 1;

/// The counters of all workers.
#[derive(Debug)]
pub struct Traffic {
    shards: Box<[Shard]>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    cells: [AtomicU64; COUNTS],
}

impl Traffic {
    /// Counters for so many workers (at least one).
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let shard = || Shard { cells: std::array::from_fn(|_| AtomicU64::new(0)) };
        Self { shards: (0..workers.max(1)).map(|_| shard()).collect() }
    }

    /// Adds one, on the shard of worker `worker`, which is its only writer.
    #[inline]
    pub fn add(&self, worker: usize, count: Count) {
        let Some(shard) = self.shards.get(worker) else { return };
        let cell = &shard.cells[count as usize];
        // Relaxed: one writer, and readers need no order among cells.
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The sum over all workers.
    #[must_use]
    pub fn total(&self, count: Count) -> u64 {
        self.shards.iter().map(|shard| shard.cells[count as usize].load(Ordering::Relaxed)).sum()
    }
}
