//! One limit of the operator's, held against the canary alone.
//!
//! A one-sample bet that the canary's rate of breaking the limit (errors; answers slower than the
//! limit, where a quantile allows `1 − q`) is above what is allowed. It bets only while stable itself is
//! within the limit: where both are beyond it something they share is at fault, and the step holds.
//!
//! Beside stable only absolute limits bet, because factors are what the two-sample streams are for.
//! When the canary has all traffic there is no stable to compare with. Then every limit bets, with
//! factors of stable's last minute, and the same bets turned round decide whether the step passes:
//! the canary must be shown to be *within* every limit. This cannot tell a canary from the hour of
//! day, which is why the comparison should be over before the last step (or end at 95 %).

use serde::{Deserialize, Serialize};

use super::baseline::Baseline;
use super::bernoulli::{Payoffs, Tally};
use super::criteria::{Bound, Limit, Margins, Metric};
use super::histogram::bucket_of;
use super::mixture::{Mixture, PER_SLOT, Purse};
use super::normal::{expit, logit};
use super::ordinal::LatencyMargin;
use super::promotion::{BELIEFS, Contest, beliefs, blend};
use super::rates::{EXPERTS, ODDS};
use super::reading::Reading;
use super::recent::Recent;

/// What stable was like when it was last seen.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// Its error rate.
    pub errors: f64,
    /// Its latency.
    pub baseline: &'a Baseline,
}

/// How a limit is held against the canary at the present step.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    /// The rate that is allowed.
    bound: f64,
    /// For a latency: the first bucket that is beyond the limit for sure, and the first that may be.
    edges: (usize, usize),
}

/// The evidence that the canary breaks one limit, and that it keeps it.
#[derive(Debug, Clone)]
pub struct LimitStream {
    limit: Limit,
    held: Option<Held>,
    alone: bool,
    stable: Recent,
    seen: Tally,
    believed: f64,
    mixture: Mixture<EXPERTS>,
    bets: [Payoffs; EXPERTS],
    proof: Contest<BELIEFS>,
}

/// What a [`LimitStream`] keeps over a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitMemory {
    /// Which limit it was.
    pub limit: Limit,
    purse: Purse,
    proof: Vec<f64>,
}

impl LimitStream {
    /// A stream with all its wealth in cash.
    #[must_use]
    pub fn new(limit: Limit) -> Self {
        Self {
            limit,
            held: None,
            alone: false,
            stable: Recent::default(),
            seen: Tally::default(),
            believed: 0.0,
            mixture: Mixture::new([1.0 / EXPERTS as f64; EXPERTS]),
            bets: [Payoffs::default(); EXPERTS],
            proof: Contest::new(),
        }
    }

    /// A step begins; `release` of the cash is bet. The limit does not move during a step.
    pub fn begin(
        &mut self,
        alone: bool,
        release: f64,
        reference: Reference<'_>,
        margins: &Margins,
    ) {
        self.mixture.end_slot();
        self.mixture.release(release);
        self.proof = Contest::new();
        self.hold_against(alone, reference, margins);
    }

    fn hold_against(&mut self, alone: bool, reference: Reference<'_>, margins: &Margins) {
        self.alone = alone;
        self.seen = Tally::default();
        self.held = self.held_at(reference, margins);
        self.bets = [Payoffs::default(); EXPERTS];
        let Some(Held { bound, edges }) = self.held else { return };
        for (bet, odds) in self.bets.iter_mut().zip(ODDS) {
            // Above 0.98 one success would ruin the expert.
            let canary = expit(logit(bound) + odds.ln()).min(0.98).max(bound);
            *bet = Payoffs::alone(canary, bound);
        }
        self.believed = match self.limit.metric {
            Metric::Errors => reference.errors,
            // Never rarer than a twentieth of what is allowed: see the promotion's quantiles.
            Metric::Latency(_) => reference.baseline.mass_from(edges.1).max(bound / 20.0),
        };
        let beliefs = beliefs(self.believed, bound);
        self.proof.set(beliefs.map(|canary| Payoffs::alone(canary, bound)));
    }

    fn held_at(&self, reference: Reference<'_>, margins: &Margins) -> Option<Held> {
        let baseline = reference.baseline;
        let held = match (self.limit.metric, self.limit.bound) {
            (Metric::Errors, Bound::Absolute(rate)) if !self.alone => {
                Held { bound: rate, edges: (0, 0) }
            }
            (Metric::Errors, bound) if self.alone => {
                // Never stricter than what a step beside stable would have let pass.
                let passed = margins.promote_errors.boundary().at(reference.errors);
                let bound = match bound {
                    Bound::Absolute(rate) => rate.max(passed),
                    Bound::Ratio(_) => passed,
                };
                Held { bound, edges: (0, 0) }
            }
            (Metric::Latency(quantile), Bound::Absolute(seconds)) => {
                let bucket = bucket_of((seconds * 1e6) as u64);
                Held { bound: 1.0 - quantile, edges: (bucket + 1, bucket) }
            }
            (Metric::Latency(quantile), Bound::Ratio(ratio))
                if self.alone && baseline.is_ready() =>
            {
                let margin = LatencyMargin { factor: ratio, plus: margins.latency.plus };
                let bucket = baseline.bucket_beyond(quantile, margin);
                Held { bound: 1.0 - quantile, edges: (bucket + 1, bucket) }
            }
            _ => return None,
        };
        (held.bound < 0.9).then_some(held)
    }

    /// Counts what both sides showed since the last poll, `elapsed` ago.
    pub fn count(&mut self, canary: &Reading, stable: &Reading, elapsed: std::time::Duration) {
        let Some(Held { bound, edges }) = self.held else { return };
        let (sure, possible) = match self.limit.metric {
            Metric::Errors => (canary.news, canary.news),
            Metric::Latency(_) => (canary.slow_from(edges.0), canary.slow_from(edges.1)),
        };
        let of_stable = match self.limit.metric {
            Metric::Errors => stable.news,
            Metric::Latency(_) => stable.slow_from(edges.1),
        };
        self.stable.add(of_stable, elapsed);
        self.seen.add(possible);
        if self.alone {
            self.proof.count(possible, Tally::default());
        }
        // What stable showed in this poll is looked at before the bet on the canary is.
        if self.alone || self.stable.rate() <= bound {
            for (won, bet) in self.mixture.slot_mut().iter_mut().zip(&self.bets) {
                *won += bet.gain(sure, Tally::default());
            }
        }
    }

    /// Ends a slot.
    pub fn end_slot(&mut self) {
        self.mixture.end_slot();
        self.mixture.release(PER_SLOT);
        self.proof.end_slot();
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// The evidence that the canary breaks the limit.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        self.mixture.total()
    }

    /// Whether canary and stable are both beyond the limit now, beside each other.
    #[must_use]
    pub fn is_broken_by_both(&self) -> bool {
        let Some(Held { bound, .. }) = self.held else { return false };
        !self.alone && self.stable.is_clearly_above(bound)
    }

    /// When the canary has all traffic: the evidence that it keeps the limit. `None` when the limit
    /// says nothing then, because stable was never seen.
    #[must_use]
    pub fn proof(&self) -> Option<f64> {
        (self.alone && self.held.is_some()).then(|| self.proof.ln_evidence().exp())
    }

    /// About how many more canary requests that proof needs.
    #[must_use]
    pub fn need(&self, goal: f64) -> Option<u64> {
        self.proof.needs(goal, blend(self.seen, self.believed), 0.0, 1.0)
    }

    /// What is kept over a restart.
    #[must_use]
    pub fn memory(&self) -> LimitMemory {
        LimitMemory { limit: self.limit, purse: self.mixture.purse(), proof: self.proof.wealth() }
    }

    /// Goes on from what was kept.
    pub fn restore(
        &mut self,
        memory: &LimitMemory,
        alone: bool,
        reference: Reference<'_>,
        margins: &Margins,
    ) {
        self.mixture.restore(&memory.purse);
        self.proof.restore(&memory.proof);
        self.hold_against(alone, reference, margins);
    }
}
