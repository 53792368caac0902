//! What a step will take, said before it begins: canary requests, time, and what would be caught.
//!
//! Estimates from stable's history for a canary that equals it. For `deploy --dry-run`; the judge
//! itself never asks.

use std::time::Duration;

use super::baseline::Baseline;
use super::bernoulli::{Boundary, Payoffs, Tally};
use super::criteria::Criteria;
use super::histogram::Histogram;
use super::promotion::Promotion;
use super::rates::Fading;
use super::scorecard::Sample;
use crate::model::weight::Weight;

/// What to expect of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// The canary's weight.
    pub weight: Weight,
    /// Canary requests until it passes, if canary and stable are equal. Half of all steps need less.
    pub requests: Option<u64>,
    /// The time that takes.
    pub time: Option<Duration>,
    /// The smallest error rate that would be caught on average within those requests.
    pub catches_errors: Option<f64>,
    /// The smallest factor on all latencies that would be.
    pub catches_slower: Option<f64>,
}

/// From so many requests on, three beyond the p99, stable is known well enough for an estimate.
const ENOUGH: u64 = 300;
/// Beyond the bound of theory a verdict takes about so many times more (measured 1.2 to 2.1).
const ABOVE_BOUND: f64 = 1.7;

/// Foretells a step beside stable (a weight strictly between none and all), from what stable did in
/// `lasted`.
#[must_use]
pub fn step(criteria: &Criteria, history: &Sample, lasted: Duration, weight: Weight) -> Forecast {
    let nothing =
        Forecast { weight, requests: None, time: None, catches_errors: None, catches_slower: None };
    let share = weight.fraction();
    let is_known = history.requests() >= ENOUGH && !lasted.is_zero();
    let has_both = share > 0.0 && share < 1.0;
    if !(has_both && is_known) {
        return nothing;
    }
    let margins = criteria.margins();
    let errors = Fading::from_history(Tally::of(history.errors(), history.requests())).rate();
    let mut promotion = Promotion::new(&margins);
    promotion.begin(share, errors, &Baseline::from_history(&history.latency()));
    let goal = 1.0 / criteria.promotion_alpha;
    let errors_need = if criteria.watches_errors() { promotion.errors_need(goal) } else { Some(0) };
    let latency_need =
        if criteria.watches_latency() { promotion.latency_need(goal) } else { Some(0) };
    let Some((a, b)) = errors_need.zip(latency_need) else { return nothing };
    let requests = a.max(b).max(criteria.min_requests);
    let rate = history.requests() as f64 / lasted.as_secs_f64() * share;
    let needed = ABOVE_BOUND * (1.0 / criteria.alpha).ln() / requests as f64;
    Forecast {
        weight,
        requests: Some(requests),
        time: Some(Duration::from_secs_f64(requests as f64 / rate)),
        catches_errors: (criteria.watches_errors())
            .then(|| smallest(errors, share, margins.errors.boundary(), needed))
            .flatten(),
        catches_slower: (criteria.watches_latency())
            .then(|| slower(&history.latency(), share, margins.latency.factor, needed))
            .flatten(),
    }
}

/// The factor at which a bet on a shift of all latencies gains `needed` per canary request: for a
/// shift by `d` standard deviations of log latency a bet gains `(1 − share) d² / 2`, beyond the margin.
/// Within 3 % of the factors that the tables took as many requests for.
fn slower(history: &Histogram, share: f64, margin: f64, needed: f64) -> Option<f64> {
    let (low, high) = history.quantile(0.16).zip(history.quantile(0.84))?;
    // Two standard deviations lie between these two quantiles.
    let spread = 0.5 * (high.max(1.0) / low.max(1.0)).ln();
    Some(margin * ((2.0 * needed / (1.0 - share)).sqrt() * spread).exp())
}

/// The lowest rate of the canary at which a bet on it gains `needed` per canary request.
fn smallest(stable: f64, share: f64, boundary: Boundary, needed: f64) -> Option<f64> {
    let gain = |canary: f64| {
        Payoffs::new(canary, stable, share, boundary).drift(canary, stable, share) - needed
    };
    let (mut low, mut high) = (boundary.at(stable), 0.98);
    if low >= high || gain(high) < 0.0 {
        return None;
    }
    // Two digits are all that an estimate is worth; 30 halvings give nine.
    for _ in 0..30 {
        let middle = 0.5 * (low + high);
        if gain(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::super::scorecard::Row;
    use super::*;

    #[test]
    fn a_step_is_foretold() {
        let mut history = Sample::default();
        for request in 0..60_000_u64 {
            let row = if request % 1_000 == 0 { Row::Failure } else { Row::Success };
            history.row_mut(row).record(10_000 + request * 37 % 20_000);
        }
        let lasted = Duration::from_secs(60);
        let weight = Weight::from_percent(5.0).expect("a weight");
        let forecast = step(&Criteria::default(), &history, lasted, weight);
        let requests = forecast.requests.expect("an estimate");
        assert!((600..1_500).contains(&requests), "{forecast:?}");
        let seconds = forecast.time.expect("an estimate").as_secs_f64();
        assert!((seconds - requests as f64 / 50.0).abs() < 0.1);
        let caught = forecast.catches_errors.expect("an estimate");
        assert!((0.005..0.02).contains(&caught), "{caught}");
        let slower = forecast.catches_slower.expect("an estimate");
        assert!((1.2..1.5).contains(&slower), "{slower}");
        let whole = step(&Criteria::default(), &history, lasted, Weight::FULL);
        assert_eq!(whole.requests, None);
    }
}
