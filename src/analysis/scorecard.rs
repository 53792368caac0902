//! What was seen of one side during one epoch: the cells that workers write and the controller reads.
//!
//! A cell is `row × latency bucket`, so that a finished request is one increment. Each worker has a
//! shard of its own and is its only writer: an increment is a relaxed load and a relaxed store, no
//! locked instruction. Readers add the shards up; they may be behind by the increments in flight,
//! never torn, and never see a count fall.
//!
//! An *epoch* is the time during which a service's split has one value. A request is counted in the
//! epoch in which it arrived, because it holds that epoch's scorecard until it ends; stragglers
//! never count for a later weight.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::clients;
use super::histogram::{BUCKETS, Histogram, bucket_of};
use super::sessions::Sessions;
use super::troubled::Troubled;

/// How a finished first attempt counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Row {
    /// Answered, and not an error by the service's rule (1xx to 3xx by default).
    Success,
    /// Answered with 4xx: the client's doing, watched by a stream of its own.
    Rejected,
    /// Answered with what the service calls an error (5xx by default).
    Failure,
    /// Not answered: refused, reset, timed out, overdue. Counts as an error.
    Fault,
    /// The client went away first. Nobody's error; latency is the age at which it left.
    Abandoned,
    /// An error of a client who is kept on a side and met one before: an error for the user, no news
    /// for the analysis (see [`super::sessions`]).
    Repeated,
}

impl Row {
    /// How many rows there are.
    pub const COUNT: usize = 6;
    /// All rows, in the order in which cells are laid out.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Success,
        Self::Rejected,
        Self::Failure,
        Self::Fault,
        Self::Abandoned,
        Self::Repeated,
    ];

    /// Its place in [`Row::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word for metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Rejected => "rejected",
            Self::Failure => "failure",
            Self::Fault => "fault",
            Self::Abandoned => "abandoned",
            Self::Repeated => "repeated",
        }
    }

    /// Whether it is an error that is counted for the first time.
    #[inline]
    #[must_use]
    pub fn is_error(self) -> bool {
        matches!(self, Self::Failure | Self::Fault)
    }
}

/// What is known of the request behind an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Whose<'a> {
    /// The hash of what keeps its client on a side.
    pub session: Option<u32>,
    /// Its path.
    pub path: Option<&'a str>,
}

/// The cells of one side in one epoch, sharded by worker.
#[derive(Debug)]
pub struct Scorecard {
    shards: Box<[Shard]>,
    sessions: Option<Arc<Sessions>>,
}

/// One worker's cells. Aligned to two cache lines, because the prefetcher fetches them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    cells: Box<[AtomicU64]>,
    /// Requests by hash of their client, where clients are kept on a side; else empty.
    clients: Box<[AtomicU64]>,
    /// Locked by its worker for an error only, and by whoever wants to tell where errors are.
    troubled: Mutex<Troubled>,
}

impl Scorecard {
    /// An empty scorecard for so many workers (at least one).
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let shard = || Shard {
            cells: (0..Row::COUNT * BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            clients: Box::default(),
            troubled: Mutex::default(),
        };
        Self { shards: (0..workers.max(1)).map(|_| shard()).collect(), sessions: None }
    }

    /// The same for clients who are kept on a side: the first error of each counts. Both sides share
    /// `sessions`, for the whole rollout.
    #[must_use]
    pub fn of_sessions(mut self, sessions: Option<Arc<Sessions>>) -> Self {
        if sessions.is_some() {
            for shard in &mut self.shards {
                shard.clients = (0..clients::GROUPS).map(|_| AtomicU64::new(0)).collect();
            }
        }
        self.sessions = sessions;
        self
    }

    /// Notes whose request it was, by the hash of its client; nothing where a coin was thrown for it.
    #[inline]
    pub fn note_client(&self, worker: usize, hash: u32) {
        let Some(shard) = self.shards.get(worker) else { return };
        // Other bits than those by which errors are remembered.
        if let Some(cell) = shard.clients.get((hash >> 24) as usize) {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// As how many clients, all alike, those who came speak.
    #[must_use]
    pub fn clients(&self) -> f64 {
        let of = |group: usize| -> u64 {
            let cells = self.shards.iter().filter_map(|shard| shard.clients.get(group));
            cells.map(|cell| cell.load(Ordering::Relaxed)).sum()
        };
        clients::alike((0..clients::GROUPS).map(of))
    }

    /// Counts one finished first attempt. Only worker `worker` may call this with its own number:
    /// two writers of one shard would lose counts (nothing worse).
    #[inline]
    pub fn record(&self, worker: usize, row: Row, micros: u64) {
        let Some(shard) = self.shards.get(worker) else { return };
        if let Some(cell) = shard.cells.get(row.index() * BUCKETS + bucket_of(micros)) {
            // Relaxed: one writer, and readers need no order among cells.
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Counts a finished first attempt that was an error, like [`Self::record`], and where it was.
    #[cold]
    pub fn record_error(&self, worker: usize, row: Row, micros: u64, whose: Whose<'_>) {
        let is_news = match (&self.sessions, whose.session) {
            (Some(sessions), Some(session)) => sessions.is_news(session),
            _ => true,
        };
        self.record(worker, if is_news { row } else { Row::Repeated }, micros);
        if let (Some(path), Some(shard)) = (whose.path, self.shards.get(worker)) {
            shard.troubled.lock().unwrap_or_else(PoisonError::into_inner).add(path);
        }
    }

    /// On which routes the errors were: the worst first.
    #[must_use]
    pub fn troubled(&self) -> Troubled {
        let mut all = Troubled::default();
        for shard in &self.shards {
            all.merge(&shard.troubled.lock().unwrap_or_else(PoisonError::into_inner));
        }
        all
    }

    /// Adds up the shards.
    #[must_use]
    pub fn sample(&self) -> Sample {
        let mut sample = Sample::default();
        self.add_to(&mut sample);
        sample
    }

    /// Adds the shards to a sample.
    pub fn add_to(&self, sample: &mut Sample) {
        for shard in &self.shards {
            for (row, cells) in shard.cells.chunks_exact(BUCKETS).enumerate() {
                for (bucket, cell) in cells.iter().enumerate() {
                    let count = cell.load(Ordering::Relaxed);
                    if count != 0 {
                        sample.rows[row].add(bucket, count);
                    }
                }
            }
        }
    }
}

/// A scorecard read at an instant: a histogram per row. Latencies are microseconds to the response
/// headers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    rows: [Histogram; Row::COUNT],
}

impl Sample {
    /// The histogram of a row.
    #[must_use]
    pub fn row(&self, row: Row) -> &Histogram {
        &self.rows[row.index()]
    }

    /// The histogram of a row, to add to.
    pub fn row_mut(&mut self, row: Row) -> &mut Histogram {
        &mut self.rows[row.index()]
    }

    /// How many requests of a row there were.
    #[must_use]
    pub fn count(&self, row: Row) -> u64 {
        self.row(row).total()
    }

    /// Requests that had an outcome: all rows but the abandoned.
    #[must_use]
    pub fn requests(&self) -> u64 {
        Row::ALL.iter().filter(|row| **row != Row::Abandoned).map(|row| self.count(*row)).sum()
    }

    /// All errors: failures and faults, those of clients who met one before included.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.news() + self.count(Row::Repeated)
    }

    /// Errors that are news: without those of clients who met one before.
    #[must_use]
    pub fn news(&self) -> u64 {
        self.count(Row::Failure) + self.count(Row::Fault)
    }

    /// Latencies of requests that were answered without an error (fast failures must not look fast).
    #[must_use]
    pub fn latency(&self) -> Histogram {
        let mut latency = self.row(Row::Success).clone();
        latency.merge(self.row(Row::Rejected));
        latency
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut rows = self.rows.iter().zip(&earlier.rows).map(|(now, then)| now.since(then));
        Self { rows: std::array::from_fn(|_| rows.next().unwrap_or_default()) }
    }

    /// Adds another sample to this one.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.rows.iter_mut().zip(&other.rows) {
            mine.merge(theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_add_up_the_shards_and_windows_subtract() {
        let card = Scorecard::new(2);
        card.record(0, Row::Success, 1_000);
        card.record(1, Row::Success, 3_000);
        card.record(1, Row::Failure, 10);
        let earlier = card.sample();
        assert_eq!((earlier.requests(), earlier.errors()), (3, 1));
        card.record(0, Row::Fault, 5_000);
        card.record(0, Row::Abandoned, 5_000);
        let window = card.sample().since(&earlier);
        assert_eq!((window.requests(), window.errors()), (1, 1));
        assert_eq!(window.count(Row::Abandoned), 1);
        assert_eq!(window.latency().total(), 0);
    }

    #[test]
    fn a_worker_beyond_the_shards_is_ignored() {
        let card = Scorecard::new(1);
        card.record(7, Row::Success, 1);
        assert_eq!(card.sample().requests(), 0);
    }
}
