//! How much do instances of one revision differ among themselves?
//!
//! A canary of one instance on a noisy machine is slower for no fault of its revision, and no amount of
//! requests tells the two apart. Stable's own instances do: each of them is put through the same test
//! against the others, and a canary is taken back for its latency only when the evidence against it is
//! ten times that against any of them, at any time. It only takes verdicts away, so the bound on false
//! rollbacks stands; with K instances of stable a canary that differs as they do is taken back with a
//! probability of about 1/(K + 1) at most. Where instances really differ much, a real regression is
//! found later, or by its errors.

use super::baseline::Baseline;
use super::ordinal::{LatencyMargin, OrdinalStream};

/// Instances that are compared; of more, the first so many.
pub const MOST: usize = 8;
/// How much stronger the evidence against the canary must be. Measured: with 10 a canary whose machine
/// is as noisy as its neighbours' was taken back in 18 % of rollouts in place of 53 %.
const STRONGER: f64 = 10.0;

/// The evidence against each of stable's instances.
#[derive(Debug, Clone)]
pub struct Instances {
    margin: LatencyMargin,
    streams: Vec<OrdinalStream>,
    highest: f64,
}

impl Instances {
    /// None compared yet.
    #[must_use]
    pub fn new(margin: LatencyMargin) -> Self {
        Self { margin, streams: Vec::new(), highest: 1.0 }
    }

    /// A step begins: with other instances or another load, the comparison begins anew. What it showed
    /// before is remembered.
    pub fn begin(&mut self) {
        self.streams.clear();
    }

    /// Counts what each instance newly took, by bucket. One instance alone is compared with nothing.
    pub fn count(&mut self, latencies: &[Vec<(usize, u64)>], release: f64, baseline: &Baseline) {
        let latencies = &latencies[..latencies.len().min(MOST)];
        if latencies.len() < 2 {
            self.streams.clear();
            return;
        }
        if self.streams.len() != latencies.len() {
            let stream = || {
                let mut stream = OrdinalStream::new(self.margin);
                stream.begin(1.0 / latencies.len() as f64, release, baseline);
                stream
            };
            self.streams = (0..latencies.len()).map(|_| stream()).collect();
        }
        for (one, stream) in self.streams.iter_mut().enumerate() {
            for (other, latency) in latencies.iter().enumerate() {
                if other == one {
                    stream.count(latency, &[]);
                } else {
                    stream.count(&[], latency);
                }
            }
            self.highest = self.highest.max(stream.evidence());
        }
    }

    /// Ends a slot. The baseline must already hold it.
    pub fn end_slot(&mut self, baseline: &Baseline) {
        for stream in &mut self.streams {
            stream.end_slot(baseline);
        }
    }

    /// Whether evidence against the canary's latency is more than instances of one revision show.
    #[must_use]
    pub fn are_outdone_by(&self, evidence: f64) -> bool {
        evidence >= STRONGER * self.highest
    }

    /// The most evidence that there ever was against one of them, to be kept over a restart.
    #[must_use]
    pub fn highest(&self) -> f64 {
        self.highest
    }

    /// Goes on from what was kept.
    pub fn restore(&mut self, highest: f64) {
        self.highest = highest.max(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::histogram::{Histogram, bucket_of};
    use super::super::mixture::AT_START;
    use super::super::normal::quantile;
    use super::super::simulation::Dice;
    use super::*;

    /// Instances whose median drifts by themselves, each with the given spread.
    fn highest(instances: usize, spread: f64, seconds: usize) -> f64 {
        let mut dice = Dice::new(5);
        let one = |dice: &mut Dice, level: f64| {
            bucket_of((20_000.0 * (level + 0.8 * quantile(dice.roll())).exp()) as u64)
        };
        let mut history = Histogram::default();
        for _ in 0..10_000 {
            let bucket = one(&mut dice, 0.0);
            history.add(bucket, 1);
        }
        let mut baseline = Baseline::from_history(&history);
        let mut compared = Instances::new(LatencyMargin { factor: 1.2, plus: 2_000.0 });
        let mut levels = vec![0.0_f64; instances];
        for _ in 0..seconds {
            let latencies: Vec<Vec<(usize, u64)>> = levels
                .iter_mut()
                .map(|level| {
                    // AR(1) with a time constant of 20 s.
                    *level = *level * 0.951 + spread * 0.309 * quantile(dice.roll());
                    (0..50).map(|_| (one(&mut dice, *level), 1)).collect()
                })
                .collect();
            compared.count(&latencies, AT_START, &baseline);
            for latency in &latencies {
                baseline.count(latency);
            }
            baseline.end_slot();
            compared.end_slot(&baseline);
        }
        compared.highest()
    }

    #[test]
    fn noise_among_instances_raises_what_is_asked_of_the_canary() {
        let (even, noisy) = (highest(4, 0.0, 60), highest(4, 0.4, 60));
        assert!(even < 10.0, "{even}");
        assert!(noisy > 1_000.0, "{noisy}");
        let mut compared = Instances::new(LatencyMargin { factor: 1.2, plus: 2_000.0 });
        compared.restore(noisy);
        assert!(!compared.are_outdone_by(noisy * 9.0));
        assert!(compared.are_outdone_by(noisy * 10.0));
    }

    #[test]
    fn one_instance_is_compared_with_nothing() {
        assert!((highest(1, 0.4, 30) - 1.0).abs() < 1e-12);
    }
}
