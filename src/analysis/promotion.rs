//! Is the canary shown *not* to be worse? What a step must prove before traffic moves on.
//!
//! The bets of the rollback streams turned round: the null is "the canary is at least the margin
//! worse", and each of errors and three latency quantiles must be shown otherwise at α per step. All
//! must hold, so no correction for their number is needed. Evidence is fresh at every step, because
//! it must be evidence *at this load*. A part of the money is kept back and bet little by little, so
//! that a canary that stalled for a moment is not held up for as long as it takes to win back what it
//! lost: a mixture over all moments at which it may have become well, valid as any mixture. No clip: a
//! single good second proves little by itself.

use serde::{Deserialize, Serialize};

use super::baseline::Baseline;
use super::bernoulli::{Boundary, Payoffs, Tally};
use super::criteria::{Margins, QuantileMargin};
use super::histogram::{bucket_of, lower_bound};
use super::mixture::ln_add;
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

/// What is not bet when a step begins. It costs `-ln 0.8`, 7 % of the `ln 20` that a step needs.
const KEPT_BACK: f64 = 0.2;
/// What is bet of that in every slot: half of it in the first 42 s, about the length of a step.
const PER_SLOT: f64 = 1.0 / 60.0;

/// Beliefs around a reference rate for a null that starts at `bound`.
#[must_use]
pub fn beliefs(reference: f64, bound: f64) -> [f64; BELIEFS] {
    let reference = reference.min(bound * 0.9);
    [reference / 2.0, reference, reference + TOWARDS_MARGIN * (bound - reference)]
}

/// Several bets on one question, with equal money on each, and money that is not bet yet. Moving money
/// never changes the total.
#[derive(Debug, Clone, PartialEq)]
pub struct Contest<const N: usize> {
    cash: f64,
    wealth: [f64; N],
    payoffs: [Payoffs; N],
}

impl<const N: usize> Contest<N> {
    /// Nothing won or lost.
    #[must_use]
    pub fn new() -> Self {
        let each = ((1.0 - KEPT_BACK) / N as f64).ln();
        Self { cash: KEPT_BACK, wealth: [each; N], payoffs: [Payoffs::default(); N] }
    }

    /// Ends a slot: some of what is kept back is bet from now on.
    pub fn end_slot(&mut self) {
        let each = (self.cash * PER_SLOT / N as f64).ln();
        for wealth in &mut self.wealth {
            *wealth = ln_add(*wealth, each);
        }
        self.cash *= 1.0 - PER_SLOT;
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
        self.wealth.iter().copied().fold(self.cash.ln(), ln_add)
    }

    /// Logarithms of wealth and of what is not bet, to be kept over a restart.
    #[must_use]
    pub fn wealth(&self) -> Vec<f64> {
        self.wealth.iter().copied().chain([self.cash.ln()]).collect()
    }

    /// Goes on from what was kept; of another shape, begins anew.
    pub fn restore(&mut self, kept: &[f64]) {
        let Self { cash, wealth, .. } = Self::new();
        (self.cash, self.wealth) = (cash, wealth);
        if let Some((cash, wealth)) = kept.split_last()
            && let Ok(wealth) = wealth.try_into()
        {
            (self.cash, self.wealth) = (cash.exp(), wealth);
        }
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
            (drift > 1e-9).then(|| (goal.ln() - wealth) / drift)
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

    /// Ends a slot.
    pub fn end_slot(&mut self) {
        self.errors.end_slot();
        if self.ready {
            for quantile in &mut self.quantiles {
                quantile.contest.end_slot();
            }
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

    /// The quantile that is furthest from being shown: the one that a step waits for.
    #[must_use]
    pub fn slowest(&self) -> Option<f64> {
        let order = |a: &&Quantile, b: &&Quantile| {
            a.contest.ln_evidence().total_cmp(&b.contest.ln_evidence())
        };
        self.quantiles.iter().min_by(order).map(|quantile| quantile.margin.quantile)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bet() -> Contest<BELIEFS> {
        let boundary = Boundary { ratio: 1.5, plus: 0.005 };
        let mut contest = Contest::new();
        let believed = beliefs(0.001, boundary.at(0.001));
        contest.set(believed.map(|canary| Payoffs::new(canary, 0.001, 0.05, boundary)));
        contest
    }

    /// Canary requests, 50 in a slot, until 20 is reached.
    fn passes(contest: &mut Contest<BELIEFS>) -> u64 {
        for request in 1..100_000_u64 {
            contest.count(Tally::of(0, 1), Tally::of(0, 19));
            if contest.ln_evidence() >= 20_f64.ln() {
                return request;
            }
            if request.is_multiple_of(50) {
                contest.end_slot();
            }
        }
        panic!("never");
    }

    #[test]
    fn moving_money_keeps_the_total() {
        let mut contest = bet();
        for _ in 0..200 {
            assert!(contest.ln_evidence().abs() < 1e-12, "{}", contest.ln_evidence());
            contest.end_slot();
        }
    }

    #[test]
    fn what_is_kept_over_a_restart_is_all_of_it() {
        let mut contest = bet();
        contest.count(Tally::of(1, 70), Tally::of(1, 1_300));
        contest.end_slot();
        let mut again = bet();
        again.restore(&contest.wealth());
        assert!((again.ln_evidence() - contest.ln_evidence()).abs() < 1e-12);
        again.restore(&[0.0; BELIEFS]);
        assert!(again.ln_evidence().abs() < 1e-12, "another shape begins anew");
    }

    #[test]
    fn a_stall_does_not_hold_a_step_up_for_long() {
        let at_once = passes(&mut bet());
        for after in [0_u32, 10, 30, 60] {
            let mut contest = bet();
            for _ in 0..after {
                contest.count(Tally::of(0, 10), Tally::of(0, 190));
                contest.end_slot();
            }
            // For three seconds, nothing but failures.
            for _ in 0..3 {
                contest.count(Tally::of(50, 0), Tally::of(0, 950));
                contest.end_slot();
            }
            let then = passes(&mut contest);
            assert!(then < 4 * at_once, "after {after} slots: {then}, without {at_once}");
        }
    }
}
