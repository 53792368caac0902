//! How sure is a number: an interval that holds however often it is looked at.
//!
//! For people: nothing is decided by it. A rate is inside as long as the bet against exactly that rate
//! (a mixture over all others, Beta(½, ½); Robbins 1970) has not won `1/α`; so the true rate leaves it
//! at any time with probability α at most, as long as it does not change. For a quantile the same bet
//! is on how many answers are faster than it.

use super::bernoulli::Tally;
use super::histogram::{BUCKETS, Histogram, lower_bound, upper_bound};
use super::normal::ln_gamma;

/// How sure an interval is that people are shown: 95 %.
pub const ALPHA: f64 = 0.05;
/// The mixture's parameters: Jeffreys' prior, good for rates near 0 and 1.
const HALF: f64 = 0.5;
/// Halvings of an interval below 1: nine digits.
const BISECTIONS: u32 = 30;

/// The logarithm of what the bet against one rate has won.
#[must_use]
pub fn ln_evidence(seen: Tally, rate: f64) -> f64 {
    let (events, others) = (seen.events as f64, seen.others as f64);
    let ln_beta = |a: f64, b: f64| ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    // Nothing times the logarithm of nothing is nothing.
    let times = |count: f64, ln: f64| if count > 0.0 { count * ln } else { 0.0 };
    ln_beta(HALF + events, HALF + others)
        - ln_beta(HALF, HALF)
        - times(events, rate.ln())
        - times(others, (-rate).ln_1p())
}

/// The lowest and highest rate that what was seen does not contradict.
#[must_use]
pub fn rate(seen: Tally, alpha: f64) -> (f64, f64) {
    let Some(middle) = seen.rate() else { return (0.0, 1.0) };
    let limit = -alpha.ln();
    let contradicted = |rate: f64| ln_evidence(seen, rate) >= limit;
    let edge = |mut inside: f64, mut outside: f64| {
        if !contradicted(outside) {
            return outside;
        }
        for _ in 0..BISECTIONS {
            let between = 0.5 * (inside + outside);
            if contradicted(between) {
                outside = between;
            } else {
                inside = between;
            }
        }
        outside
    };
    (edge(middle, 0.0), edge(middle, 1.0))
}

/// The lowest and highest value of a quantile, in the histogram's unit, that what was seen does not
/// contradict; `None` when nothing was seen, or not enough for an upper end.
#[must_use]
pub fn quantile(seen: &Histogram, q: f64, alpha: f64) -> Option<(f64, f64)> {
    let all = seen.total();
    let limit = -alpha.ln();
    let (mut below, mut low) = (0, None);
    for (bucket, count) in seen.counts().iter().enumerate().take(BUCKETS) {
        if *count == 0 {
            continue;
        }
        below += count;
        let until = Tally::of(below, all);
        // Were the quantile at or below here, answers faster than it would be too few.
        let contradicted = ln_evidence(until, q) >= limit;
        let rate = until.rate().unwrap_or(0.0);
        if low.is_none() && !(rate < q && contradicted) {
            low = Some(lower_bound(bucket) as f64);
        }
        // Were it above here, they would be too many: it was in or before this bucket.
        if rate > q && contradicted {
            let high = (upper_bound(bucket) - 1) as f64;
            return low.map(|low| (low.min(high), high));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::simulation::Dice;
    use super::*;

    #[test]
    fn an_interval_narrows_around_what_was_seen() {
        let (low, high) = rate(Tally::of(11, 312), ALPHA);
        assert!(low > 0.009 && low < 0.02, "{low}");
        assert!(high > 0.06 && high < 0.09, "{high}");
        let (low, high) = rate(Tally::of(0, 1_000), ALPHA);
        assert!(low.abs() < 1e-12 && high < 0.01, "{low} {high}");
        let (_, high) = rate(Tally::of(0, 0), ALPHA);
        assert!((high - 1.0).abs() < 1e-12);
        assert_eq!(rate(Tally::of(7, 7), ALPHA).1, 1.0);
    }

    /// Looked at after every request, the truth is outside at some time in at most 5 % of all runs.
    #[test]
    fn the_truth_stays_inside_however_often_one_looks() {
        let (mut dice, mut left, runs) = (Dice::new(11), 0, 400);
        for _ in 0..runs {
            let mut seen = Tally::default();
            let is_out = (0..2_000).any(|_| {
                let event = u64::from(dice.roll() < 0.02);
                seen.add(Tally::of(event, 1));
                ln_evidence(seen, 0.02) >= -ALPHA.ln()
            });
            left += u64::from(is_out);
        }
        assert!(left as f64 / runs as f64 <= 0.05 + 3.0 * (0.05_f64 * 0.95 / runs as f64).sqrt());
    }

    #[test]
    fn a_quantile_has_an_interval_once_enough_was_seen() {
        let mut seen = Histogram::default();
        assert_eq!(quantile(&seen, 0.95, ALPHA), None);
        for request in 1..=10_000_u64 {
            seen.record(request * 10);
        }
        let (low, high) = quantile(&seen, 0.95, ALPHA).expect("enough");
        assert!((88_000.0..95_000.0).contains(&low), "{low}");
        assert!((95_000.0..100_001.0).contains(&high), "{high}");
        let mut few = Histogram::default();
        few.record(10);
        assert_eq!(quantile(&few, 0.95, ALPHA), None, "no upper end yet");
    }
}
