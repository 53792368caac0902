//! Is what is certain also large enough to matter?
//!
//! Evidence says that latencies differ by more than chance; it says so in time even of a difference
//! that nobody asked about, such as the slowest hundredth on a busy machine. A canary is taken back
//! for its latency only when a quantile that the operator named, or the median, was lately beyond the
//! margin as well. This only ever takes verdicts away, so the bound on false rollbacks stands.

use super::criteria::SlowMargin;
use super::histogram::Histogram;
use crate::model::weight::Side;

/// What was seen counts half after so many slots (seconds): long enough for a p99 at a few requests
/// per second and side, short enough that a fault which begins late is not hidden by what went before.
const HALVED_AFTER: u64 = 10;

/// So many answers beyond a quantile make it known within a fifth or so of its distance from the end.
const BEYOND: f64 = 20.0;

/// Latencies of both sides over about the last twenty seconds.
#[derive(Debug, Default)]
pub struct Effect {
    lately: [Histogram; 2],
    slots: u64,
}

impl Effect {
    /// Takes in what a side was newly seen to take: (bucket, count).
    pub fn count(&mut self, side: Side, latency: &[(usize, u64)]) {
        for (bucket, count) in latency {
            self.lately[side.index()].add(*bucket, *count);
        }
    }

    /// A slot is over.
    pub fn end_slot(&mut self) {
        self.slots += 1;
        if self.slots.is_multiple_of(HALVED_AFTER) {
            for histogram in &mut self.lately {
                histogram.halve();
            }
        }
    }

    /// A step begins: both sides have new shares, so what went before does not compare.
    pub fn begin(&mut self) {
        *self = Self::default();
    }

    /// Whether a quantile of the canary is more than a guess, where nothing else says that it is not one.
    #[must_use]
    pub fn knows(&self, quantile: f64) -> bool {
        let beyond = self.lately[Side::Canary.index()].total() as f64 * (1.0 - quantile);
        beyond >= BEYOND
    }

    /// Whether any of these quantiles of the canary lies beyond the margin on stable's.
    #[must_use]
    pub fn is_beyond(&self, quantiles: impl IntoIterator<Item = f64>, margin: SlowMargin) -> bool {
        let [stable, canary] = &self.lately;
        quantiles.into_iter().any(|q| match (stable.quantile(q), canary.quantile(q)) {
            (Some(stable), Some(canary)) => {
                canary > (stable * margin.factor).max(stable + margin.plus)
            }
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::histogram::bucket_of;

    const MARGIN: SlowMargin = SlowMargin { factor: 1.2, plus: 2_000.0 };

    fn seen(stable: u64, canary: u64) -> Effect {
        let mut effect = Effect::default();
        effect.count(Side::Stable, &[(bucket_of(stable), 1_000)]);
        effect.count(Side::Canary, &[(bucket_of(canary), 100)]);
        effect
    }

    #[test]
    fn only_what_is_beyond_the_margin_matters() {
        assert!(!seen(14_000, 16_000).is_beyond([0.5, 0.95], MARGIN));
        assert!(seen(14_000, 21_000).is_beyond([0.95], MARGIN));
        assert!(!seen(2_000, 3_500).is_beyond([0.95], MARGIN), "below two milliseconds apart");
        assert!(!Effect::default().is_beyond([0.95], MARGIN));
    }

    #[test]
    fn a_fault_that_begins_late_is_seen() {
        let mut effect = seen(10_000, 10_000);
        for _ in 0..30 {
            effect.count(Side::Stable, &[(bucket_of(10_000), 100)]);
            effect.count(Side::Canary, &[(bucket_of(30_000), 10)]);
            effect.end_slot();
        }
        assert!(effect.is_beyond([0.95], MARGIN));
    }
}
