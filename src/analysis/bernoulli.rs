//! The bet on one request that either shows an event (an error, a slow answer) or does not.
//!
//! A request goes to the canary by a coin of known weight `w`. Against the null "the canary's rate
//! is at most `ratio × stable's + plus`" an expert that believes in rates `(p1, p0)` bets with four
//! payoffs, from the point of the null's boundary that is nearest to its belief (a projection in
//! Kullback–Leibler divergence). Expectation is exactly 1 on the whole boundary and at most 1 inside,
//! for any belief: a wrong belief costs power, never validity (Turner, Ly & Grünwald 2024, written
//! for coin-flip assignment with a margin). With the inequality turned round the same payoffs show
//! that a canary is *not* worse.

/// Steps of bisection: an interval below 1 shrinks beyond the resolution of an `f64` near its root.
const BISECTIONS: u32 = 60;
/// Probabilities are kept so far from 0 and 1.
const EDGE: f64 = 1e-15;

/// Where the null ends: `canary = ratio × stable + plus`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Boundary {
    /// Factor on stable's rate.
    pub ratio: f64,
    /// Added to it, as a fraction.
    pub plus: f64,
}

impl Boundary {
    /// The canary's rate on the boundary where stable's is `stable`.
    #[must_use]
    pub fn at(self, stable: f64) -> f64 {
        self.ratio * stable + self.plus
    }
}

/// Requests with and without the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Requests that showed it.
    pub events: u64,
    /// Requests that did not.
    pub others: u64,
}

impl Tally {
    /// So many events among so many requests.
    #[must_use]
    pub fn of(events: u64, requests: u64) -> Self {
        Self { events, others: requests.saturating_sub(events) }
    }

    /// All requests.
    #[must_use]
    pub fn requests(self) -> u64 {
        self.events + self.others
    }

    /// The fraction with the event.
    #[must_use]
    pub fn rate(self) -> Option<f64> {
        (self.requests() > 0).then(|| self.events as f64 / self.requests() as f64)
    }

    /// Adds another tally.
    pub fn add(&mut self, more: Self) {
        self.events += more.events;
        self.others += more.others;
    }
}

/// Logarithms of what a request multiplies an expert's wealth by.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Payoffs {
    /// The canary showed the event.
    pub canary_event: f64,
    /// The canary did not.
    pub canary_other: f64,
    /// Stable showed the event.
    pub stable_event: f64,
    /// Stable did not.
    pub stable_other: f64,
}

impl Payoffs {
    /// The bet of an expert who believes in rates `canary` and `stable`, where a request reaches the
    /// canary with probability `share` (strictly between 0 and 1).
    #[must_use]
    pub fn new(canary: f64, stable: f64, share: f64, boundary: Boundary) -> Self {
        let (null_canary, null_stable) = project(canary, stable, share, boundary);
        Self {
            canary_event: (canary / null_canary).ln(),
            canary_other: (-canary).ln_1p() - (-null_canary).ln_1p(),
            stable_event: (stable / null_stable).ln(),
            stable_other: (-stable).ln_1p() - (-null_stable).ln_1p(),
        }
    }

    /// The bet of an expert who believes that events are `odds` times as frequent on the canary as
    /// `ratio` allows, from events alone: given an event, it was the canary's with a probability that
    /// follows from the share. Needs no count of what went well, where that count means nothing, and
    /// knows no absolute margin for the same reason.
    #[must_use]
    pub fn events_only(odds: f64, share: f64, ratio: f64) -> Self {
        let of_canary = |odds: f64| {
            let weight = share * ratio * odds;
            weight / (weight + 1.0 - share)
        };
        let (null, believed) = (of_canary(1.0), of_canary(odds));
        Self {
            canary_event: (believed / null).ln(),
            canary_other: 0.0,
            stable_event: ((1.0 - believed) / (1.0 - null)).ln(),
            stable_other: 0.0,
        }
    }

    /// The bet against a rate of the canary alone being `bound`: no stable to compare with.
    #[must_use]
    pub fn alone(canary: f64, bound: f64) -> Self {
        Self {
            canary_event: (canary / bound).ln(),
            canary_other: (-canary).ln_1p() - (-bound).ln_1p(),
            stable_event: 0.0,
            stable_other: 0.0,
        }
    }

    /// What a batch of requests adds to the logarithm of wealth.
    #[must_use]
    pub fn gain(&self, canary: Tally, stable: Tally) -> f64 {
        canary.events as f64 * self.canary_event
            + canary.others as f64 * self.canary_other
            + stable.events as f64 * self.stable_event
            + stable.others as f64 * self.stable_other
    }

    /// The gain to expect per canary request at the given true rates.
    #[must_use]
    pub fn drift(&self, canary: f64, stable: f64, share: f64) -> f64 {
        let of_stable = stable * self.stable_event + (1.0 - stable) * self.stable_other;
        canary * self.canary_event
            + (1.0 - canary) * self.canary_other
            + (1.0 - share) / share * of_stable
    }
}

/// The point of the boundary nearest to `(canary, stable)`: the root of an increasing function that
/// lies between stable's rate and the rate at which the boundary meets the canary's.
fn project(canary: f64, stable: f64, share: f64, boundary: Boundary) -> (f64, f64) {
    let Boundary { ratio, plus } = boundary;
    let highest = (1.0_f64 - EDGE).min((1.0 - plus) / ratio - EDGE);
    let other = ((canary - plus) / ratio).clamp(EDGE, highest);
    let (mut low, mut high) = if stable < other { (stable, other) } else { (other, stable) };
    high = high.min(highest);
    for _ in 0..BISECTIONS {
        let b = 0.5 * (low + high);
        let c = ratio * b + plus;
        let slope = share * ratio * (c - canary) / (c * (1.0 - c))
            + (1.0 - share) * (b - stable) / (b * (1.0 - b));
        if slope < 0.0 {
            low = b;
        } else {
            high = b;
        }
    }
    let b = (0.5 * (low + high)).clamp(EDGE, 1.0 - EDGE);
    (boundary.at(b).clamp(EDGE, 1.0 - EDGE), b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expectation(payoffs: Payoffs, share: f64, canary: f64, stable: f64) -> f64 {
        share * (canary * payoffs.canary_event.exp() + (1.0 - canary) * payoffs.canary_other.exp())
            + (1.0 - share)
                * (stable * payoffs.stable_event.exp()
                    + (1.0 - stable) * payoffs.stable_other.exp())
    }

    proptest! {
        #[test]
        fn expectation_is_one_on_the_boundary_and_less_inside(
            share in 0.01..0.99_f64,
            stable in 1e-4..0.4_f64,
            odds in 1.2..50.0_f64,
            ratio in 1.0..1.5_f64,
            plus in 0.0..0.02_f64,
            at in 1e-4..0.4_f64,
            less in 0.0..1.0_f64,
        ) {
            let boundary = Boundary { ratio, plus };
            let start = boundary.at(stable);
            let canary = (start * odds / (1.0 - start + start * odds)).min(0.98);
            let payoffs = Payoffs::new(canary, stable, share, boundary);
            let edge = boundary.at(at);
            // The largest payoff scales what rounding does to an expectation of 1.
            let scale = payoffs.canary_event.exp().max(1.0);
            let on = expectation(payoffs, share, edge, at);
            prop_assert!((on - 1.0).abs() < 1e-12 * scale.max(10.0), "{on}");
            prop_assert!(expectation(payoffs, share, edge * less, at) <= 1.0 + 1e-12 * scale);
            // Monotone: an error of the canary is worth more than its success, and the reverse for stable.
            prop_assert!(payoffs.canary_event > payoffs.canary_other);
            prop_assert!(payoffs.stable_event < payoffs.stable_other);
        }

        #[test]
        fn the_reverse_bet_is_fair_too(
            share in 0.01..0.99_f64,
            stable in 1e-4..0.3_f64,
            fraction in 0.05..0.95_f64,
            at in 1e-4..0.3_f64,
            more in 1.0..1.5_f64,
        ) {
            let boundary = Boundary { ratio: 1.5, plus: 0.005 };
            let canary = boundary.at(stable) * fraction;
            let payoffs = Payoffs::new(canary, stable, share, boundary);
            let edge = boundary.at(at);
            let on = expectation(payoffs, share, edge, at);
            prop_assert!((on - 1.0).abs() < 1e-11, "{on}");
            prop_assert!(expectation(payoffs, share, (edge * more).min(1.0), at) <= 1.0 + 1e-11);
        }

        #[test]
        fn events_alone_are_a_fair_bet(
            share in 0.01..0.99_f64,
            odds in 1.1..2000.0_f64,
            ratio in 1.0..1.5_f64,
            less in 0.0..1.0_f64,
        ) {
            let payoffs = Payoffs::events_only(odds, share, ratio);
            // Given an event, at a ratio of the two rates that the null allows.
            let expected = |ratio: f64| {
                let canary = share * ratio / (share * ratio + 1.0 - share);
                canary * payoffs.canary_event.exp() + (1.0 - canary) * payoffs.stable_event.exp()
            };
            prop_assert!((expected(ratio) - 1.0).abs() < 1e-12);
            prop_assert!(expected(ratio * less) <= 1.0 + 1e-12);
        }

        #[test]
        fn a_batch_may_be_split_anywhere(
            events in 0..50_u64, others in 0..5_000_u64, first in 0..50_u64, second in 0..5_000_u64,
        ) {
            let payoffs = Payoffs::new(0.05, 0.01, 0.05, Boundary { ratio: 1.1, plus: 0.001 });
            let (first, second) = (first.min(events), second.min(others));
            let whole = Tally { events, others };
            let head = Tally { events: first, others: second };
            let tail = Tally { events: events - first, others: others - second };
            let parts = payoffs.gain(head, tail) + payoffs.gain(tail, head);
            prop_assert!((payoffs.gain(whole, whole) - parts).abs() < 1e-9);
        }
    }
}
