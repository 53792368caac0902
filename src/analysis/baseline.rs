//! How fast stable was of late: its latency distribution with a fading memory.
//!
//! Only slots that are over enter it, so that every bet made from it is predictable. It makes bets
//! good, never valid: a stale baseline costs power and nothing else.

use serde::{Deserialize, Serialize};

use super::histogram::{BUCKETS, Histogram, bucket_of, lower_bound, upper_bound};
use super::ordinal::LatencyMargin;

/// Counts per bucket, halved every minute.
#[derive(Debug, Clone)]
pub struct Baseline {
    counts: Vec<f64>,
    total: f64,
    slot: Vec<f64>,
}

/// The buckets that are not empty; what is kept over a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaselineMemory(Vec<(u16, f32)>);

impl Baseline {
    /// Slots of a second until half is forgotten: traffic changes over minutes, not seconds.
    const HALF_LIFE_SLOTS: f64 = 60.0;
    /// History counts for at most so many requests, ten seconds at 1,000 a second.
    const HISTORY: f64 = 10_000.0;
    /// Below this a quantile is a guess, and nothing is bet on it.
    const ENOUGH: f64 = 100.0;

    /// A baseline that starts with what was seen before.
    #[must_use]
    pub fn from_history(history: &Histogram) -> Self {
        let total = history.total() as f64;
        let weight = if total > 0.0 { (Self::HISTORY / total).min(1.0) } else { 0.0 };
        let counts = history.counts().iter().map(|count| *count as f64 * weight).collect();
        Self { counts, total: total * weight, slot: vec![0.0; BUCKETS] }
    }

    /// Counts latencies of the slot under way.
    pub fn count(&mut self, latency: &[(usize, u64)]) {
        for (bucket, count) in latency {
            if let Some(cell) = self.slot.get_mut(*bucket) {
                *cell += *count as f64;
            }
        }
    }

    /// The slot is over and becomes part of the baseline.
    pub fn end_slot(&mut self) {
        let keep = (-1.0 / Self::HALF_LIFE_SLOTS).exp2();
        self.total = 0.0;
        for (count, slot) in self.counts.iter_mut().zip(&mut self.slot) {
            *count = *count * keep + std::mem::take(slot);
            self.total += *count;
        }
    }

    /// Whether there is enough to bet on.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.total >= Self::ENOUGH
    }

    /// Counts by bucket.
    #[must_use]
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// All counts.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.total
    }

    /// The bucket in which the quantile lies.
    #[must_use]
    pub fn quantile_bucket(&self, q: f64) -> usize {
        let mut seen = 0.0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0.0 && seen >= q * self.total {
                return bucket;
            }
        }
        BUCKETS - 1
    }

    /// A quantile in microseconds, from the middle of its bucket; `None` while there is too little.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let bucket = self.quantile_bucket(q);
        self.is_ready().then(|| (lower_bound(bucket) + upper_bound(bucket) - 1) as f64 / 2.0)
    }

    /// The fraction in the given bucket or slower ones.
    #[must_use]
    pub fn mass_from(&self, bucket: usize) -> f64 {
        let above: f64 = self.counts.iter().skip(bucket).sum();
        if self.total > 0.0 { (above / self.total).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The bucket of the slowest that a quantile may be, by a margin on stable's.
    #[must_use]
    pub fn bucket_beyond(&self, q: f64, margin: LatencyMargin) -> usize {
        bucket_of(margin.on(upper_bound(self.quantile_bucket(q)) as f64) as u64)
    }

    /// What is kept over a restart.
    #[must_use]
    pub fn memory(&self) -> BaselineMemory {
        let cells = self.counts.iter().enumerate().filter(|(_, count)| **count > 1e-6);
        BaselineMemory(cells.map(|(bucket, count)| (bucket as u16, *count as f32)).collect())
    }

    /// Goes on from what was kept.
    #[must_use]
    pub fn from_memory(memory: &BaselineMemory) -> Self {
        let mut counts = vec![0.0; BUCKETS];
        for (bucket, count) in &memory.0 {
            if let Some(cell) = counts.get_mut(usize::from(*bucket)) {
                *cell = f64::from(*count);
            }
        }
        let total = counts.iter().sum();
        Self { counts, total, slot: vec![0.0; BUCKETS] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_enters_when_it_is_over() {
        let mut baseline = Baseline::from_history(&Histogram::default());
        baseline.count(&[(100, 150), (200, 50)]);
        assert!(!baseline.is_ready());
        baseline.end_slot();
        assert!(baseline.is_ready());
        assert_eq!(baseline.quantile_bucket(0.5), 100);
        assert_eq!(baseline.quantile_bucket(0.9), 200);
        assert!((baseline.mass_from(101) - 0.25).abs() < 1e-12);
        assert_eq!(Baseline::from_memory(&baseline.memory()).counts(), baseline.counts());
    }
}
