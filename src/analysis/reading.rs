//! One poll of one side, in the form that the streams eat: three tallies and the few latency buckets
//! that are not empty. Buffers are reused, so that a poll allocates nothing.

use super::bernoulli::Tally;
use super::scorecard::{Row, Sample};

/// Counts by latency bucket of all that was no error; see [`Reading::latency`].
#[must_use]
pub fn latency(sample: &Sample) -> Vec<(usize, u64)> {
    let mut latency = Vec::new();
    fill(&mut latency, sample);
    latency
}

fn fill(latency: &mut Vec<(usize, u64)>, sample: &Sample) {
    let rows = [Row::Success, Row::Rejected, Row::Abandoned].map(|row| sample.row(row).counts());
    let [success, rejected, abandoned] = rows;
    for (bucket, ((a, b), c)) in success.iter().zip(rejected).zip(abandoned).enumerate() {
        let count = a + b + c;
        if count != 0 {
            latency.push((bucket, count));
        }
    }
}

/// What one side newly counted.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Errors among requests with an outcome.
    pub errors: Tally,
    /// The same without errors of clients who met one before, in either number: what is bet on.
    pub news: Tally,
    /// Rejections (4xx) among requests with an outcome.
    pub rejected: Tally,
    /// Everything that ended, the abandoned included: what the split delivered.
    pub ended: u64,
    /// Counts by latency bucket, without errors (a fast failure must not look fast). An abandoned
    /// request counts at the age at which its client left: a lower bound, the same for both sides.
    pub latency: Vec<(usize, u64)>,
}

impl Reading {
    /// Replaces the reading by a sample.
    pub fn take(&mut self, sample: &Sample) {
        let requests = sample.requests();
        self.errors = Tally::of(sample.errors(), requests);
        self.news = Tally::of(sample.news(), requests - sample.count(Row::Repeated));
        self.rejected = Tally::of(sample.count(Row::Rejected), requests);
        self.ended = requests + sample.count(Row::Abandoned);
        self.latency.clear();
        fill(&mut self.latency, sample);
    }

    /// Requests in the given bucket or a slower one, among all that have a latency.
    #[must_use]
    pub fn slow_from(&self, bucket: usize) -> Tally {
        let mut tally = Tally::default();
        for (at, count) in &self.latency {
            if *at >= bucket {
                tally.events += count;
            } else {
                tally.others += count;
            }
        }
        tally
    }
}
