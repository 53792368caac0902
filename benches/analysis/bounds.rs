//! What the measurements are held against: the bound of theory, and the test a dashboard would do.

use crate::analysis::bernoulli::Tally;

/// One-sided two-proportion z-test at 1 %, pooled over everything so far: what a dashboard would do.
pub fn z_test(canary: Tally, stable: Tally) -> bool {
    let (n, m) = (canary.requests() as f64, stable.requests() as f64);
    let pooled = (canary.events + stable.events) as f64 / (n + m);
    let error = (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
    let difference = canary.events as f64 / n - stable.events as f64 / m;
    canary.events + stable.events >= 5 && difference > 2.326 * error
}

/// The least canary requests any valid test needs on average: `ln(1/α) / inf KL`, by ternary search.
pub fn bound(canary: f64, stable: f64, share: f64, alpha: f64) -> f64 {
    let kl = |p: f64, q: f64| {
        let term = |a: f64, b: f64| if a > 0.0 { a * (a / b).ln() } else { 0.0 };
        term(p, q) + term(1.0 - p, 1.0 - q)
    };
    let divergence = |c: f64| kl(canary, c) + (1.0 - share) / share * kl(stable, c);
    let (mut low, mut high) = (stable.max(1e-12), canary.min(1.0 - 1e-12));
    for _ in 0..200 {
        let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if divergence(a) < divergence(b) { high = b } else { low = a }
    }
    (1.0 / alpha).ln() / divergence(low)
}
