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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_as_configured_is_believed() {
        let share = Share { canary: 5_070, stable: 94_930 };
        assert!(share.evidence(0.05) < 2.0);
        let share = Share { canary: 1_200, stable: 18_800 };
        assert!(share.evidence(0.05) > DISBELIEF);
        assert!((Share::default().evidence(0.05) - 1.0).abs() < 1e-9);
    }
}
