//! Is the canary slower than stable, anywhere in the distribution, beyond a margin?
//!
//! Any payoff that does not fall as latency grows is a fair bet against "the canary, made faster by
//! the margin, is not slower than stable", whatever the shape of the distribution and however it
//! drifts. Fifteen experts bet on the rank that a latency had in stable's earlier slots: six believe
//! that the whole distribution moved, nine that only its tail did. Decides nothing.

use super::baseline::Baseline;
use super::histogram::{BUCKETS, bucket_of, lower_bound};
use super::mixture::{Mixture, PER_SLOT, Purse};
use super::normal::{expit, logit, quantile};

/// How many experts.
pub const EXPERTS: usize = 15;
/// Whole-distribution shifts, in standard deviations of log latency.
const SHIFTS: [f64; 6] = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2];
/// Where a tail may begin.
const QUANTILES: [f64; 3] = [0.9, 0.99, 0.999];
/// Tails: which quantile they begin at, and the fraction of the canary's requests believed to lie there.
const TAILS: [(usize, f64); 9] = [
    (0, 0.14),
    (0, 0.2),
    (0, 0.4),
    (1, 0.016),
    (1, 0.03),
    (1, 0.08),
    (1, 0.3),
    (2, 0.01),
    (2, 0.1),
];

/// What "slower" leaves out: the canary may take `factor ×` as long, or `plus` microseconds longer,
/// whichever is more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyMargin {
    /// At least 1.
    pub factor: f64,
    /// Microseconds.
    pub plus: f64,
}

impl LatencyMargin {
    /// The slowest that a canary may be where stable takes `micros`.
    #[must_use]
    pub fn on(self, micros: f64) -> f64 {
        (micros * self.factor).max(micros + self.plus)
    }

    /// The inverse of [`Self::on`]; zero for what is within `plus`.
    #[must_use]
    pub fn taken_off(self, micros: f64) -> f64 {
        (micros / self.factor).min(micros - self.plus).max(0.0)
    }
}

/// Which part of the distribution the leading expert believes has moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// All of it.
    Whole,
    /// What lies above this quantile of stable's.
    Tail(f64),
}

/// The evidence that the canary is slower.
#[derive(Debug, Clone)]
pub struct OrdinalStream {
    share: f64,
    /// The bucket in which a canary latency lies once the margin is taken off it.
    shifted: Vec<u16>,
    /// Payoffs by bucket, as logarithms, for a canary latency and for one of stable.
    canary: Vec<[f64; EXPERTS]>,
    stable: Vec<[f64; EXPERTS]>,
    /// The first and last bucket with payoffs; what is faster or slower shares those of the ends.
    known: (usize, usize),
    betting: bool,
    mixture: Mixture<EXPERTS>,
}

impl OrdinalStream {
    /// A stream with all its wealth in cash.
    #[must_use]
    pub fn new(margin: LatencyMargin) -> Self {
        // The lower edge of a bucket, which favours the canary.
        let shift =
            |bucket: usize| bucket_of(margin.taken_off(lower_bound(bucket) as f64) as u64) as u16;
        // Half the money on shifts, half on tails.
        let prior = std::array::from_fn(|expert| {
            0.5 / if expert < SHIFTS.len() { SHIFTS.len() } else { TAILS.len() } as f64
        });
        Self {
            share: 0.0,
            shifted: (0..BUCKETS).map(shift).collect(),
            canary: vec![[0.0; EXPERTS]; BUCKETS],
            stable: vec![[0.0; EXPERTS]; BUCKETS],
            known: (0, 0),
            betting: false,
            mixture: Mixture::new(prior),
        }
    }

    /// The same without the clip, for comparison with bounds.
    #[must_use]
    pub fn without_clip(self) -> Self {
        Self { mixture: self.mixture.without_clip(), ..self }
    }

    /// From now on a request reaches the canary with probability `share`; `release` of the cash is bet.
    pub fn begin(&mut self, share: f64, release: f64, baseline: &Baseline) {
        self.mixture.end_slot();
        self.share = share;
        self.mixture.release(release);
        self.refresh(baseline);
    }

    /// Counts what both sides showed.
    pub fn count(&mut self, canary: &[(usize, u64)], stable: &[(usize, u64)]) {
        if !self.betting {
            return;
        }
        let slot = self.mixture.slot_mut();
        let (low, high) = self.known;
        for (bucket, count) in canary {
            let payoffs = &self.canary[usize::from(self.shifted[*bucket]).clamp(low, high)];
            for (won, payoff) in slot.iter_mut().zip(payoffs) {
                *won += *count as f64 * payoff;
            }
        }
        for (bucket, count) in stable {
            for (won, payoff) in slot.iter_mut().zip(&self.stable[(*bucket).clamp(low, high)]) {
                *won += *count as f64 * payoff;
            }
        }
    }

    /// Ends a slot. The baseline must already hold it.
    pub fn end_slot(&mut self, baseline: &Baseline) {
        self.mixture.end_slot();
        self.mixture.release(PER_SLOT);
        self.refresh(baseline);
    }

    /// The evidence: 1 to begin with, `1/α` when the null is rejected at α.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        self.mixture.total()
    }

    /// What the leading expert believes.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let leader = self.mixture.leader();
        TAILS
            .get(leader.wrapping_sub(SHIFTS.len()))
            .map_or(Shape::Whole, |(which, _)| Shape::Tail(QUANTILES[*which]))
    }

    /// What is kept over a restart.
    #[must_use]
    pub fn memory(&self) -> Purse {
        self.mixture.purse()
    }

    /// Goes on from what was kept, at the given share.
    pub fn restore(&mut self, purse: &Purse, share: f64, baseline: &Baseline) {
        self.mixture.restore(purse);
        self.share = share;
        self.refresh(baseline);
    }

    /// Sets the bets of the next slot. Buckets slower or faster than anything in the baseline share
    /// the payoffs of its ends, so only the buckets between cost a logarithm.
    fn refresh(&mut self, baseline: &Baseline) {
        self.betting = self.share > 0.0 && self.share < 1.0 && baseline.is_ready();
        if !self.betting {
            return;
        }
        let (counts, total) = (baseline.counts(), baseline.total());
        let first = counts.iter().position(|count| *count > 0.0).unwrap_or(0);
        let last = counts.iter().rposition(|count| *count > 0.0).unwrap_or(BUCKETS - 1);
        let extreme = 0.5 / (total + 1.0);
        let share = self.share;
        // A payoff from the logarithm of an assumed density ratio, canary's first.
        let payoffs = |ratio: f64| {
            let norm = (share * ratio.exp() + 1.0 - share).ln();
            (ratio - norm, -norm)
        };
        let edges = QUANTILES.map(|q| {
            let bucket = baseline.quantile_bucket(q);
            (bucket, baseline.mass_from(bucket + 1).clamp(extreme, 1.0 - extreme))
        });
        let tails = TAILS.map(|(which, believed)| {
            let (q, (bucket, above)) = (QUANTILES[which], edges[which]);
            // When the quantile falls inside a coarse bucket, the belief moves by the same odds.
            let believed = expit(logit(above) + logit(believed) - logit(1.0 - q)).max(above);
            let over = payoffs((believed / above).ln());
            (bucket, over, payoffs(((1.0 - believed) / (1.0 - above)).ln()))
        });
        let mut highest = [f64::NEG_INFINITY; SHIFTS.len()];
        let mut below = 0.0;
        let (low, high) = (first.saturating_sub(1), (last + 1).min(BUCKETS - 1));
        for (bucket, count) in counts.iter().enumerate().take(high + 1).skip(low) {
            let rank = (below + count / 2.0) / total;
            below += count;
            let z = quantile(rank.clamp(extreme, 1.0 - extreme));
            let (of_canary, of_stable) = (&mut self.canary[bucket], &mut self.stable[bucket]);
            for (expert, (shift, highest)) in SHIFTS.iter().zip(&mut highest).enumerate() {
                // Never falling: the only thing that validity asks of a payoff.
                *highest = highest.max(shift * z - shift * shift / 2.0);
                (of_canary[expert], of_stable[expert]) = payoffs(*highest);
            }
            for (expert, (edge, over, under)) in tails.iter().enumerate() {
                let expert = SHIFTS.len() + expert;
                (of_canary[expert], of_stable[expert]) =
                    if bucket > *edge { *over } else { *under };
            }
        }
        self.known = (low, high);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::histogram::Histogram;
    use super::super::mixture::AT_START;
    use super::*;

    fn stream(latencies: &[u64], share: f64, margin: LatencyMargin) -> OrdinalStream {
        let mut history = Histogram::default();
        for micros in latencies {
            history.record(*micros);
        }
        let mut stream = OrdinalStream::new(margin);
        stream.begin(share, AT_START, &Baseline::from_history(&history));
        stream
    }

    proptest! {
        #[test]
        fn payoffs_never_fall_and_are_fair(
            latencies in prop::collection::vec(50..200_000_u64, 100..300),
            share in 0.01..0.99_f64,
            truth in prop::collection::vec(50..200_000_u64, 1..20),
        ) {
            let stream = stream(&latencies, share, LatencyMargin { factor: 1.0, plus: 0.0 });
            let (low, high) = stream.known;
            for expert in 0..EXPERTS {
                for bucket in low + 1..=high {
                    prop_assert!(stream.canary[bucket][expert] >= stream.canary[bucket - 1][expert]);
                    prop_assert!(stream.stable[bucket][expert] <= stream.stable[bucket - 1][expert]);
                }
                // Whatever the latencies are: if both sides have the same, expectation is 1.
                let mut expectation = 0.0;
                for micros in &truth {
                    let bucket = bucket_of(*micros).clamp(low, high);
                    expectation += share * stream.canary[bucket][expert].exp()
                        + (1.0 - share) * stream.stable[bucket][expert].exp();
                }
                prop_assert!((expectation / truth.len() as f64 - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn the_margin_is_taken_off_before_the_bet() {
        let margin = LatencyMargin { factor: 1.2, plus: 2_000.0 };
        let stream = stream(&[1_000; 200], 0.05, margin);
        for micros in [500, 3_000, 10_000, 1_000_000] {
            let bucket = bucket_of(micros);
            let shifted = usize::from(stream.shifted[bucket]);
            let slowest = margin.on(lower_bound(shifted) as f64);
            assert!(slowest <= (lower_bound(bucket) as f64).max(2_000.0), "{micros}");
        }
    }

    #[test]
    fn no_baseline_no_bet() {
        let mut stream = stream(&[1_000; 10], 0.05, LatencyMargin { factor: 1.2, plus: 0.0 });
        stream.count(&[(700, 1_000)], &[]);
        assert!((stream.evidence() - 1.0).abs() < 1e-12);
    }
}
