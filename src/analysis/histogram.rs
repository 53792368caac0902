//! A log-linear latency histogram: 32 sub-buckets per octave, so that a value is known within 3.2 %.
//!
//! The layout is that of HdrHistogram (Gil Tene) with five significant bits: below 32 µs a bucket is
//! one microsecond wide; above, each doubling is cut into 32 equal parts. The last bucket takes
//! everything from [`MAX_TRACKED`] on.

use std::time::Duration;

/// Sub-buckets per octave, as a power of two.
const SUB_BITS: u32 = 5;
/// Sub-buckets per octave.
pub const SUB_BUCKETS: usize = 1 << SUB_BITS;
/// Octaves above the linear range; 2^(5+22) µs is 134 s, longer than any default timeout.
const OCTAVES: usize = 22;
/// How many buckets a histogram has.
pub const BUCKETS: usize = SUB_BUCKETS * (OCTAVES + 1);
/// Latencies from here on share the last bucket.
pub const MAX_TRACKED: Duration = Duration::from_micros((1 << (SUB_BITS + OCTAVES as u32)) - 1);

/// The bucket of a latency in microseconds.
#[inline]
#[must_use]
pub fn bucket_of(micros: u64) -> usize {
    if micros < SUB_BUCKETS as u64 {
        return micros as usize;
    }
    let octave = 63 - micros.leading_zeros() - SUB_BITS;
    let index = (octave as usize + 1) * SUB_BUCKETS + ((micros >> octave) as usize - SUB_BUCKETS);
    index.min(BUCKETS - 1)
}

/// The smallest latency, in microseconds, that falls into a bucket.
#[must_use]
pub fn lower_bound(bucket: usize) -> u64 {
    if bucket < SUB_BUCKETS {
        return bucket as u64;
    }
    let octave = bucket / SUB_BUCKETS - 1;
    ((bucket % SUB_BUCKETS + SUB_BUCKETS) as u64) << octave
}

/// The first latency, in microseconds, above a bucket.
#[must_use]
pub fn upper_bound(bucket: usize) -> u64 {
    lower_bound(bucket + 1)
}

/// Counts per bucket; an owned value, cheap to add and subtract.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    /// None where nothing was counted yet: of a sample's rows most are empty, ten times a second.
    counts: Option<Box<[u64; BUCKETS]>>,
}

/// The counts of an empty histogram.
static NOTHING: [u64; BUCKETS] = [0; BUCKETS];

impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        self.counts() == other.counts()
    }
}

impl Eq for Histogram {}

impl Histogram {
    /// Adds one latency.
    pub fn record(&mut self, micros: u64) {
        self.add(bucket_of(micros), 1);
    }

    /// Adds `count` observations to a bucket. Buckets beyond the last count as the last.
    pub fn add(&mut self, bucket: usize, count: u64) {
        self.counts_mut()[bucket.min(BUCKETS - 1)] += count;
    }

    /// Adds another histogram to this one.
    pub fn merge(&mut self, other: &Self) {
        let Some(theirs) = &other.counts else { return };
        for (mine, theirs) in self.counts_mut().iter_mut().zip(theirs.iter()) {
            *mine += theirs;
        }
    }

    /// Forgets half of every bucket, rounding down.
    pub fn halve(&mut self) {
        for count in self.counts.iter_mut().flat_map(|counts| counts.iter_mut()) {
            *count /= 2;
        }
    }

    /// What was added since `earlier`. Counters only grow, so nothing goes below zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        if let (Some(counts), Some(then)) = (&mut since.counts, &earlier.counts) {
            for (count, then) in counts.iter_mut().zip(then.iter()) {
                *count = count.saturating_sub(*then);
            }
        }
        since
    }

    /// How many observations there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.as_ref().map_or(0, |counts| counts.iter().sum())
    }

    /// Counts by bucket, [`BUCKETS`] of them.
    #[must_use]
    pub fn counts(&self) -> &[u64; BUCKETS] {
        self.counts.as_deref().unwrap_or(&NOTHING)
    }

    fn counts_mut(&mut self) -> &mut [u64; BUCKETS] {
        self.counts.get_or_insert_with(|| Box::new(NOTHING))
    }

    /// The latency in microseconds that a fraction `q` of observations do not exceed: the middle of
    /// the bucket in which that observation lies. `None` when nothing was observed.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let rank = ((q * total as f64).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        for (bucket, count) in self.counts().iter().enumerate() {
            seen += count;
            if seen >= rank {
                let (low, high) = (lower_bound(bucket), upper_bound(bucket));
                return Some((low + high - 1) as f64 / 2.0);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_tile_the_line() {
        for bucket in 0..BUCKETS - 1 {
            assert_eq!(bucket_of(lower_bound(bucket)), bucket);
            assert_eq!(bucket_of(upper_bound(bucket) - 1), bucket);
            assert_eq!(upper_bound(bucket), lower_bound(bucket + 1));
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_of(MAX_TRACKED.as_micros() as u64), BUCKETS - 1);
    }

    #[test]
    fn a_bucket_is_at_most_a_thirty_second_wide() {
        for bucket in SUB_BUCKETS..BUCKETS {
            let (low, high) = (lower_bound(bucket), upper_bound(bucket));
            assert!((high - low) * 32 <= low, "{bucket}: {low}..{high}");
        }
    }

    #[test]
    fn quantiles_agree_with_hdrhistogram() {
        let mut ours = Histogram::default();
        let mut theirs = hdrhistogram::Histogram::<u64>::new(3).expect("a histogram");
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..50_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let micros = 1 << (state % 20);
            let micros = micros + (state >> 32) % micros;
            ours.record(micros);
            theirs.record(micros).expect("in range");
        }
        for q in [0.5, 0.9, 0.95, 0.99, 0.999] {
            let (a, b) = (ours.quantile(q).expect("data"), theirs.value_at_quantile(q) as f64);
            assert!((a / b - 1.0).abs() < 0.04, "{q}: {a} against {b}");
        }
    }
}
