//! Is the split that was delivered the split that was configured?
//!
//! The proofs rest on the weight. When the share of requests that reached the canary is not what was
//! configured, something routes behind our back, and nobody should draw conclusions: the step holds.
//! A beta-binomial bet on the share against the configured one (the two-sided Dirichlet–multinomial
//! test of Lindon & Malek 2022). Its present value is used, not its maximum, so that a hold ends when
//! the cause does (a canary whose first answers are merely late).

use super::normal::ln_gamma;

/// The evidence at which the split is not believed: α = 1e-4.
pub const DISBELIEF: f64 = 1e4;
/// How closely the bet is centred on the configured share: like a thousand requests, so that at 5 % it
/// is on shares that are off by a point.
pub const CENTRED: f64 = 1_000.0;

/// Requests delivered to each side at one weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// To the canary.
    pub canary: u64,
    /// To stable.
    pub stable: u64,
}

impl Share {
    /// Counts what ended on each side.
    pub fn count(&mut self, canary: u64, stable: u64) {
        self.canary += canary;
        self.stable += stable;
    }

    /// The evidence that the share is not `configured`, which lies strictly between 0 and 1.
    #[must_use]
    pub fn evidence(&self, configured: f64) -> f64 {
        self.ln_evidence(configured).exp()
    }

    /// Its logarithm.
    #[must_use]
    pub fn ln_evidence(&self, configured: f64) -> f64 {
        let (canary, stable) = (self.canary as f64, self.stable as f64);
        let (a, b) = (CENTRED * configured, CENTRED * (1.0 - configured));
        let ln_beta = |a: f64, b: f64| ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
        ln_beta(a + canary, b + stable)
            - ln_beta(a, b)
            - canary * configured.ln()
            - stable * (1.0 - configured).ln()
    }

    /// The share delivered.
    #[must_use]
    pub fn delivered(&self) -> f64 {
        let all = self.canary + self.stable;
        if all > 0 { self.canary as f64 / all as f64 } else { 0.0 }
    }
}

/// Whether both sides are being asked at all, as configured: the experts win by what is *not* seen too,
/// and a side that nobody can ask shows nothing. Looks at what came before and never at the poll that is
/// bet on, so that a bet stays one that was made before.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arriving {
    canary: f64,
    stable: f64,
}

impl Arriving {
    /// Requests of the smaller side after which half of all is forgotten.
    const FORGETS: f64 = 128.0;

    /// Counts what ended on each side in a poll that is over, at the configured share.
    pub fn count(&mut self, canary: u64, stable: u64, share: f64) {
        self.canary += canary as f64;
        self.stable += stable as f64;
        if (self.canary + self.stable) * share.min(1.0 - share) >= Self::FORGETS {
            self.canary /= 2.0;
            self.stable /= 2.0;
        }
    }

    /// Whether each side had about what its share of all lets expect. Too little is less than half of
    /// that, by a standard deviation more: nothing, where four were expected. A coin does so once in
    /// fifty times at first and later never; answers that take a second longer do so for a second.
    #[must_use]
    pub fn is_as_configured(&self, share: f64) -> bool {
        let all = self.canary + self.stable;
        let enough = |seen: f64, expected: f64| seen >= 0.5 * expected - expected.sqrt();
        enough(self.canary, all * share) && enough(self.stable, all * (1.0 - share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_nobody_asks_is_noticed() {
        for share in [0.05, 0.5] {
            let mut arriving = Arriving::default();
            assert!(arriving.is_as_configured(share));
            let stable_for_one = ((1.0 - share) / share) as u64;
            (0..12).for_each(|_| arriving.count(0, stable_for_one, share));
            assert!(!arriving.is_as_configured(share), "{share}: many were expected");
            (0..400).for_each(|_| arriving.count(1, stable_for_one, share));
            assert!(arriving.is_as_configured(share), "{share}: it is asked again");
            (0..4_000).for_each(|_| arriving.count(1, 0, share));
            assert!(!arriving.is_as_configured(share), "{share}: only it is asked");
        }
    }

    #[test]
    fn a_split_as_configured_is_believed() {
        let share = Share { canary: 5_070, stable: 94_930 };
        assert!(share.evidence(0.05) < 2.0);
        let share = Share { canary: 1_200, stable: 18_800 };
        assert!(share.evidence(0.05) > DISBELIEF);
        assert!((Share::default().evidence(0.05) - 1.0).abs() < 1e-9);
    }
}
