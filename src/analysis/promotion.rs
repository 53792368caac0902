//! Is the canary shown *not* to be worse? What a step must prove before traffic moves on.
//!
//! The bets of the rollback streams turned round: the null is "the canary is at least the margin
//! worse", and each of errors and three latency quantiles must be shown otherwise at α per step. All
//! must hold, so no correction for their number is needed. Evidence is fresh at every step, because
//! it must be evidence *at this load*. No cash and no clip: a step is short and its question does not
//! change.

use serde::{Deserialize, Serialize};

use super::baseline::Baseline;
use super::bernoulli::{Boundary, Payoffs, Tally};
use super::criteria::{Margins, QuantileMargin};
use super::histogram::{bucket_of, lower_bound};
use super::ordinal::LatencyMargin;
use super::reading::Reading;

/// Beliefs about the canary's error rate: half of stable's, the same, and a third of the way to the
/// margin.
pub const BELIEFS: usize = 3;
/// How far towards the margin the third lies: with it the cost stays within 17 % of the bound.
const TOWARDS_MARGIN: f64 = 0.35;
/// A slow answer is never believed rarer than a twentieth of the null's rate: one outlier must not
/// cost more than `ln 20`, the whole of what a step needs.
const RAREST: f64 = 0.05;
/// So many requests of stable's rate are mixed into the canary's when a need is estimated.
const ESTIMATE_PRIOR: f64 = 200.0;

/// Beliefs around a reference rate for a null that starts at `bound`.
#[must_use]
pub fn beliefs(reference: f64, bound: f64) -> [f64; BELIEFS] {
    let reference = reference.min(bound * 0.9);
    [reference / 2.0, reference, reference + TOWARDS_MARGIN * (bound - reference)]
}

/// Several bets on one question, with equal money on each.
#[derive(Debug, Clone, PartialEq)]
pub struct Contest<const N: usize> {
    wealth: [f64; N],
    payoffs: [Payoffs; N],
}

impl<const N: usize> Contest<N> {
    /// Nothing bet.
    #[must_use]
    pub fn new() -> Self {
        Self { wealth: [0.0; N], payoffs: [Payoffs::default(); N] }
    }

    /// Sets the bets of the next slot.
    pub fn set(&mut self, payoffs: [Payoffs; N]) {
        self.payoffs = payoffs;
    }

    /// Counts what both sides showed.
    pub fn count(&mut self, canary: Tally, stable: Tally) {
        for (wealth, payoffs) in self.wealth.iter_mut().zip(&self.payoffs) {
            *wealth += payoffs.gain(canary, stable);
        }
    }

    /// The logarithm of the evidence.
    #[must_use]
    pub fn ln_evidence(&self) -> f64 {
        let highest = self.wealth.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = self.wealth.iter().map(|wealth| (wealth - highest).exp()).sum();
        highest + (sum / N as f64).ln()
    }

    /// Logarithms of wealth, to be kept over a restart.
    #[must_use]
    pub fn wealth(&self) -> Vec<f64> {
        self.wealth.to_vec()
    }

    /// Goes on from what was kept; of another shape, begins anew.
    pub fn restore(&mut self, wealth: &[f64]) {
        self.wealth = wealth.try_into().unwrap_or([0.0; N]);
    }

    /// About how many canary requests until the evidence reaches `goal`, at the given rates; `None`
    /// when at these rates it never would.
    #[must_use]
    pub fn needs(&self, goal: f64, canary: f64, stable: f64, share: f64) -> Option<u64> {
        if self.ln_evidence() >= goal.ln() {
            return Some(0);
        }
        let needs = self.wealth.iter().zip(&self.payoffs).filter_map(|(wealth, payoffs)| {
            let drift = payoffs.drift(canary, stable, share);
            (drift > 1e-9).then(|| (goal.ln() + (N as f64).ln() - wealth) / drift)
        });
        // Beyond a billion an estimate is another word for never.
        needs
            .min_by(f64::total_cmp)
            .filter(|need| *need < 1e9)
            .map(|need| need.max(1.0).ceil() as u64)
    }
}

impl<const N: usize> Default for Contest<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// One latency quantile: slow means beyond the edge.
#[derive(Debug, Clone, PartialEq)]
struct Quantile {
    margin: QuantileMargin,
    contest: Contest<1>,
    canary_edge: usize,
    stable_edge: usize,
    canary_rate: f64,
    stable_rate: f64,
    canary: Tally,
}

/// What one step has to prove against stable.
#[derive(Debug, Clone)]
pub struct Promotion {
    share: f64,
    boundary: Boundary,
    plus: f64,
    errors: Contest<BELIEFS>,
    errors_seen: Tally,
    stable_errors: f64,
    quantiles: Vec<Quantile>,
    ready: bool,
}

/// What a [`Promotion`] keeps over a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromotionMemory {
    errors: Vec<f64>,
    quantiles: Vec<Vec<f64>>,
}

impl Promotion {
    /// A step at which nothing is shown yet.
    #[must_use]
    pub fn new(margins: &Margins) -> Self {
        let quantile = |margin: &QuantileMargin| Quantile {
            margin: *margin,
            contest: Contest::new(),
            canary_edge: 0,
            stable_edge: 0,
            canary_rate: 0.0,
            stable_rate: 0.0,
            canary: Tally::default(),
        };
        Self {
            share: 0.0,
            boundary: margins.promote_errors.boundary(),
            plus: margins.latency.plus,
            errors: Contest::new(),
            errors_seen: Tally::default(),
            stable_errors: 0.0,
            quantiles: margins.promote_latency.iter().map(quantile).collect(),
            ready: false,
        }
    }

    /// A step begins at the given share.
    pub fn begin(&mut self, share: f64, stable_errors: f64, baseline: &Baseline) {
        self.share = share;
        self.errors = Contest::new();
        self.errors_seen = Tally::default();
        for quantile in &mut self.quantiles {
            quantile.contest = Contest::new();
            quantile.canary = Tally::default();
        }
        self.refresh(stable_errors, baseline);
    }

    /// Counts what both sides showed.
    pub fn count(&mut self, canary: &Reading, stable: &Reading) {
        self.errors.count(canary.news, stable.news);
        self.errors_seen.add(canary.news);
        if !self.ready {
            return;
        }
        for quantile in &mut self.quantiles {
            let slow = canary.slow_from(quantile.canary_edge);
            quantile.contest.count(slow, stable.slow_from(quantile.stable_edge));
            quantile.canary.add(slow);
        }
    }

    /// Sets the bets of the next slot from what stable showed until now.
    pub fn refresh(&mut self, stable_errors: f64, baseline: &Baseline) {
        let share = self.share;
        if !(share > 0.0 && share < 1.0) {
            self.errors.set([Payoffs::default(); BELIEFS]);
            self.ready = false;
            return;
        }
        self.stable_errors = stable_errors;
        let bound = self.boundary.at(stable_errors).min(0.9);
        let believed = beliefs(stable_errors, bound);
        self.errors
            .set(believed.map(|canary| Payoffs::new(canary, stable_errors, share, self.boundary)));
        self.ready = baseline.is_ready();
        if !self.ready {
            return;
        }
        let smallest = 0.5 / (baseline.total() + 1.0);
        for quantile in &mut self.quantiles {
            let QuantileMargin { quantile: q, factor } = quantile.margin;
            quantile.stable_edge = edge_of(baseline, q);
            // From the bucket of the edge on: slow is counted too often, which favours caution.
            let margin = LatencyMargin { factor, plus: self.plus };
            let edge = margin.on(lower_bound(quantile.stable_edge) as f64);
            quantile.canary_edge = bucket_of(edge as u64).max(quantile.stable_edge);
            let null = baseline.mass_from(quantile.stable_edge).clamp(smallest, 1.0 - smallest);
            let believed = baseline.mass_from(quantile.canary_edge);
            quantile.stable_rate = null;
            quantile.canary_rate = believed.clamp(null * RAREST, null * 0.9);
            let boundary = Boundary { ratio: 1.0, plus: 0.0 };
            quantile.contest.set([Payoffs::new(quantile.canary_rate, null, share, boundary)]);
        }
    }

    /// Evidence that the canary's errors are within the margin.
    #[must_use]
    pub fn errors_evidence(&self) -> f64 {
        self.errors.ln_evidence().exp()
    }

    /// Evidence that the canary's latency is within the margins: that of the quantile with the least.
    #[must_use]
    pub fn latency_evidence(&self) -> f64 {
        let logs = self.quantiles.iter().map(|quantile| quantile.contest.ln_evidence());
        if self.ready { logs.fold(f64::INFINITY, f64::min).exp() } else { 0.0 }
    }

    /// Whether stable's latency is known well enough to compare with.
    #[must_use]
    pub fn knows_latency(&self) -> bool {
        self.ready
    }

    /// About how many more canary requests are needed to show the errors to be within the margin.
    #[must_use]
    pub fn errors_need(&self, goal: f64) -> Option<u64> {
        let canary = blend(self.errors_seen, self.stable_errors);
        self.errors.needs(goal, canary, self.stable_errors, self.share)
    }

    /// The same for latency.
    #[must_use]
    pub fn latency_need(&self, goal: f64) -> Option<u64> {
        if !self.ready {
            return None;
        }
        let needs = self.quantiles.iter().map(|quantile| {
            let canary = blend(quantile.canary, quantile.canary_rate);
            quantile.contest.needs(goal, canary, quantile.stable_rate, self.share)
        });
        needs.collect::<Option<Vec<_>>>().map(|needs| needs.into_iter().max().unwrap_or(0))
    }

    /// What is kept over a restart.
    #[must_use]
    pub fn memory(&self) -> PromotionMemory {
        let quantiles = self.quantiles.iter().map(|quantile| quantile.contest.wealth()).collect();
        PromotionMemory { errors: self.errors.wealth(), quantiles }
    }

    /// Goes on from what was kept.
    pub fn restore(&mut self, memory: &PromotionMemory) {
        self.errors.restore(&memory.errors);
        for (quantile, wealth) in self.quantiles.iter_mut().zip(&memory.quantiles) {
            quantile.contest.restore(wealth);
        }
    }
}

/// The bucket from which on an answer is slower than the quantile. Where stable is so even that next
/// to nothing lies above the quantile's bucket, that bucket itself is taken in.
fn edge_of(baseline: &Baseline, q: f64) -> usize {
    let bucket = baseline.quantile_bucket(q);
    let above = baseline.mass_from(bucket + 1);
    if above >= (1.0 - q) / 2.0 { bucket + 1 } else { bucket }
}

/// What was seen, held back by what is believed while little was seen.
#[must_use]
pub fn blend(seen: Tally, believed: f64) -> f64 {
    (seen.events as f64 + believed * ESTIMATE_PRIOR) / (seen.requests() as f64 + ESTIMATE_PRIOR)
}
