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
    /// Times that a connection could not be accepted.
    AcceptFailures,
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
    /// Requests that a policy turned away: by address, method, header or for want of credentials.
    Denied,
    /// Requests turned away because too many came.
    Limited,
    /// Requests turned away because too many waited for who is asked about them.
    AuthBusy,
    /// Requests that a policy answered itself: redirects and fixed responses.
    Answered,
    /// Upstream connections opened.
    UpstreamConnects,
    /// Upstream connections that could not be opened.
    UpstreamConnectFailures,
    /// Requests tried again on another endpoint.
    Retries,
    /// Requests that were not, because too many were.
    RetriesRefused,
    /// Canary failures that a user did not see, because stable answered instead.
    Rescued,
    /// Assets that one revision did not have and the other did.
    AssetsFound,
    /// Answers that the proxy made itself: 502, 503, 504.
    Synthetic,
    /// Tunnels opened by `Upgrade` or `CONNECT`.
    Tunnels,
    /// Panics caught in a connection.
    Panics,
}

const COUNTS: usize = Count::Panics as usize + 1;

/// Why a client was refused: what it asked for, or its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The head is not what the grammar allows.
    Malformed,
    /// Where the message ends is in doubt: its `Content-Length` or `Transfer-Encoding`.
    Framing,
    /// A transfer coding, or a protocol in a tunnel, that is not ours.
    Coding,
    /// No `Host`, several, a bad one, or one that says something else than the target.
    Host,
    /// The target is not one, or leads out of its root.
    Target,
    /// A version of HTTP that is not spoken here.
    Version,
    /// A method that is not for proxies.
    Method,
    /// An `Expect` that cannot be met.
    Expectation,
    /// The target is too long.
    TargetSize,
    /// The header section is too large, or has too many fields.
    HeaderSize,
    /// The body is too large.
    BodySize,
    /// The body's chunks are malformed.
    Chunks,
    /// The request's service needs a client certificate, and there is none.
    Certificate,
    /// The request came round to us again.
    Loop,
    /// The handshake, or the first byte, did not come in time.
    HandshakeTime,
    /// The head did not come in time.
    HeaderTime,
    /// The body stalled, or came too slowly.
    BodyTime,
    /// The client took no byte of what waited for it.
    WriteTime,
    /// There were as many connections as are allowed.
    Connections,
    /// There were as many connections from this address as are allowed.
    AddressConnections,
    /// There was not enough memory.
    Memory,
    /// A flood of frames, or of requests given up.
    Flood,
    /// What a connection was to begin with is not there, or may not be said by this peer.
    Preamble,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::Malformed,
        Self::Framing,
        Self::Coding,
        Self::Host,
        Self::Target,
        Self::Version,
        Self::Method,
        Self::Expectation,
        Self::TargetSize,
        Self::HeaderSize,
        Self::BodySize,
        Self::Chunks,
        Self::Certificate,
        Self::Loop,
        Self::HandshakeTime,
        Self::HeaderTime,
        Self::BodyTime,
        Self::WriteTime,
        Self::Connections,
        Self::AddressConnections,
        Self::Memory,
        Self::Flood,
        Self::Preamble,
    ];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Framing => "framing",
            Self::Coding => "coding",
            Self::Host => "host",
            Self::Target => "target",
            Self::Version => "version",
            Self::Method => "method",
            Self::Expectation => "expectation",
            Self::TargetSize => "target_size",
            Self::HeaderSize => "header_size",
            Self::BodySize => "body_size",
            Self::Chunks => "chunks",
            Self::Certificate => "certificate",
            Self::Loop => "loop",
            Self::HandshakeTime => "handshake_time",
            Self::HeaderTime => "header_time",
            Self::BodyTime => "body_time",
            Self::WriteTime => "write_time",
            Self::Connections => "connections",
            Self::AddressConnections => "address_connections",
            Self::Memory => "memory",
            Self::Flood => "flood",
            Self::Preamble => "preamble",
        }
    }
}

const REASONS: usize = Reason::ALL.len();

/// The counters of all workers.
#[derive(Debug)]
pub struct Traffic {
    shards: Box<[Shard]>,
    /// Lines of the access log that nobody will read; counted by whoever drops them.
    lost_lines: AtomicU64,
}

#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    cells: [AtomicU64; COUNTS],
    refused: [AtomicU64; REASONS],
}

impl Traffic {
    /// Counters for so many workers (at least one).
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let shard = || Shard {
            cells: std::array::from_fn(|_| AtomicU64::new(0)),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        let shards = (0..workers.max(1)).map(|_| shard()).collect();
        Self { shards, lost_lines: AtomicU64::new(0) }
    }

    /// Adds one, on the shard of worker `worker`, which is its only writer.
    #[inline]
    pub fn add(&self, worker: usize, count: Count) {
        let Some(shard) = self.shards.get(worker) else { return };
        add_one(&shard.cells[count as usize]);
    }

    /// Adds one refusal, on the shard of worker `worker`, which is its only writer.
    pub fn refuse(&self, worker: usize, reason: Reason) {
        let Some(shard) = self.shards.get(worker) else { return };
        add_one(&shard.refused[reason as usize]);
    }

    /// Lines of the access log were dropped.
    pub fn lose_lines(&self, count: u32) {
        // Relaxed: a sum, in no order with anything.
        self.lost_lines.fetch_add(count.into(), Ordering::Relaxed);
    }

    /// Lines of the access log that were dropped.
    #[must_use]
    pub fn lost_lines(&self) -> u64 {
        self.lost_lines.load(Ordering::Relaxed)
    }

    /// What one worker counted.
    #[must_use]
    pub fn of(&self, worker: usize, count: Count) -> u64 {
        self.shards
            .get(worker)
            .map_or(0, |shard| shard.cells[count as usize].load(Ordering::Relaxed))
    }

    /// The sum over all workers.
    #[must_use]
    pub fn total(&self, count: Count) -> u64 {
        self.shards.iter().map(|shard| shard.cells[count as usize].load(Ordering::Relaxed)).sum()
    }

    /// The refusals for one reason, over all workers.
    #[must_use]
    pub fn refused(&self, reason: Reason) -> u64 {
        let one = |shard: &Shard| shard.refused[reason as usize].load(Ordering::Relaxed);
        self.shards.iter().map(one).sum()
    }

    /// All refusals, over all workers.
    #[must_use]
    pub fn all_refused(&self) -> u64 {
        Reason::ALL.iter().map(|reason| self.refused(*reason)).sum()
    }
}

#[inline]
fn add_one(cell: &AtomicU64) {
    // Relaxed: one writer, and readers need no order among cells.
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_cell_and_a_name_of_its_own() {
        let traffic = Traffic::new(2);
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            traffic.refuse(place % 2, reason);
            assert_eq!(traffic.refused(reason), 1);
        }
        assert_eq!(traffic.all_refused(), REASONS as u64);
        let names: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::label).into();
        assert_eq!(names.len(), REASONS);
    }
}
