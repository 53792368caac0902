//! The seam between evidence and rollout: samples in, verdicts out.
//!
//! A judge weighs one rollout. Every stream is a bet that starts at 1 and, while the canary is no
//! worse than allowed, tends to lose; their weighted sum therefore reaches `1/α` with probability at
//! most α over the whole rollout, all steps together, however often anyone looks. At `1/α` the verdict
//! is `Fail`; from a tenth of it on nothing passes.
//!
//! A step passes when the canary is *shown* to be no worse than the promotion margins on errors and
//! on three latency quantiles, with evidence from this step alone. At the last step, where the canary
//! has all traffic, it passes when it is shown to be within every limit (see [`super::limits`]).
//!
//! What it does not do: it knows no bake times, never acts and never asks a clock.

use super::baseline::Baseline;
use super::bernoulli::Tally;
use super::breaker::{Breaker, Opened};
use super::checks;
use super::criteria::{Criteria, Margins, Metric, Unit};
use super::effect::Effect;
use super::histogram::{BUCKETS, Histogram};
use super::instances::Instances;
use super::limits::{LimitStream, Reference};
use super::memory::Failure;
pub use super::memory::Memory;
use super::mixture::{AT_START, AT_STEP};
use super::ordinal::{LatencyMargin, OrdinalStream};
use super::promotion::Promotion;
use super::rates::{Fading, RateStream};
use super::reading::{self, Reading};
use super::recent::Recent;
use super::scorecard::{Row, Sample};
use super::share::{Arriving, Share};
use super::verdict::Verdict;
use crate::model::moment::Moment;
use crate::model::weight::{Side, Weight};
use std::time::Duration;

/// A slot: within it no expert wins more than tenfold.
pub const SLOT: Duration = Duration::from_secs(1);
/// How the wealth is shared among what is watched: errors, latency, 4xx, and the limits together.
/// Errors hurt users most and come first; a stream with a fraction `f` pays `ln 1/f` for its place,
/// 0.8 to 2.4 nats on top of the 4.6 that α = 1 % asks for. The limits by themselves matter where
/// there is no stable to compare with, and there evidence comes fast.
const SHARES: [f64; 4] = [0.5, 0.4, 0.1, 0.1];
/// From this part of `1/α` on nothing passes.
const SUSPICION: f64 = 0.1;

/// Weighs one rollout. Fed with what was newly counted at every poll; never asks a clock.
#[derive(Debug)]
pub struct Judge {
    pub(super) criteria: Criteria,
    pub(super) margins: Margins,
    pub(super) weight: Weight,
    /// The weight of what the canary is compared with: stable's, or that of its fresh instance.
    pub(super) compared: Weight,
    pub(super) steps: u32,
    pub(super) slots: u64,
    pub(super) attempt: u32,
    pub(super) errors: RateStream,
    pub(super) rejected: RateStream,
    pub(super) latency: OrdinalStream,
    pub(super) limits: Vec<LimitStream>,
    pub(super) promotion: Promotion,
    pub(super) baseline: Baseline,
    pub(super) delivered: Share,
    arriving: Arriving,
    /// As how many clients those of each side count at this step, where clients are assigned.
    pub(super) clients: [f64; 2],
    pub(super) guards: Guards,
    pub(super) failed: Option<Failure>,
    pub(super) totals: [Totals; 2],
    pub(super) effect: Effect,
    pub(super) instances: Instances,
    pub(super) breaker: Breaker,
    readings: [Reading; 2],
    started: Option<Moment>,
    step_began: Moment,
    slot_began: Moment,
    looked: Moment,
}

/// What one side showed at this step so far, for sentences.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) errors: Tally,
    pub(super) news: Tally,
    pub(super) rejected: Tally,
    pub(super) latency: Histogram,
}

/// What stable did before and does now; says when something that both sides share is wrong.
#[derive(Debug, Clone)]
pub(super) struct Guards {
    pub(super) history: Tally,
    pub(super) errors: Recent,
    pub(super) slow: Recent,
    /// From here on an answer of stable's is out of the ordinary: twice its former p95.
    pub(super) slow_from: usize,
}

/// Which stream speaks loudest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    Errors,
    Latency,
    Rejected,
    Limit(usize),
}

/// The evidence against the canary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence {
    pub(super) total: f64,
    pub(super) voice: Voice,
    pub(super) suspicious: bool,
}

impl Judge {
    /// A judge for a new rollout. `history` is what stable did before it began: a minute or more
    /// makes the first bets good ones; an empty sample is fine.
    #[must_use]
    pub fn new(criteria: Criteria, history: &Sample, now: Moment) -> Self {
        Self::again(criteria, history, 0, now)
    }

    /// A judge that begins from nothing although the same revision was judged before: a lost record,
    /// a retry after a rollback. The k-th time it begins with a wealth of `2^-k`, so that all times
    /// together err with probability 2α at most.
    #[must_use]
    pub fn again(criteria: Criteria, history: &Sample, attempt: u32, now: Moment) -> Self {
        let margins = criteria.margins();
        let errors = Tally::of(history.errors(), history.requests());
        let rejected = Tally::of(history.count(Row::Rejected), history.requests());
        let baseline = Baseline::from_history(&history.latency());
        let slow_from = if baseline.is_ready() {
            baseline.bucket_beyond(0.95, LatencyMargin { factor: 2.0, plus: margins.latency.plus })
        } else {
            BUCKETS
        };
        let stream = RateStream::new(margins.errors.boundary(), Fading::from_history(errors));
        Self {
            weight: Weight::ZERO,
            compared: Weight::ZERO,
            steps: 0,
            slots: 0,
            attempt,
            errors: if criteria.unit == Unit::Session { stream.events_only() } else { stream },
            rejected: RateStream::new(margins.rejected.boundary(), Fading::from_history(rejected)),
            latency: OrdinalStream::new(margins.latency.null()),
            limits: criteria.limits.iter().map(|limit| LimitStream::new(*limit)).collect(),
            promotion: Promotion::new(&margins),
            baseline,
            delivered: Share::default(),
            arriving: Arriving::default(),
            clients: [0.0; 2],
            guards: Guards {
                history: errors,
                errors: Recent::from_history(errors),
                slow: Recent::default(),
                slow_from,
            },
            failed: None,
            totals: Default::default(),
            effect: Effect::default(),
            instances: Instances::new(margins.latency.null()),
            breaker: Breaker::default(),
            readings: Default::default(),
            started: None,
            step_began: now,
            slot_began: now,
            looked: now,
            margins,
            criteria,
        }
    }

    /// A judge that goes on from what it knew; the gap is a bet of zero. It goes on at the weight it
    /// was at: `begin_step` is for the next one.
    #[must_use]
    pub fn resume(criteria: Criteria, memory: &Memory, now: Moment) -> Self {
        let mut judge = Self::again(criteria, &Sample::default(), memory.attempt, now);
        judge.weight = memory.weight;
        judge.compared = memory.compared.unwrap_or(memory.weight.complement());
        judge.instances.restore(memory.highest_instance);
        judge.steps = memory.steps;
        judge.slots = memory.slots;
        judge.failed = memory.failed.clone();
        judge.started = (memory.steps > 0).then(|| Moment(now.0.saturating_sub(memory.age)));
        judge.breaker = Breaker::of_one_that_answered();
        judge.baseline = Baseline::from_memory(&memory.baseline);
        judge.delivered = memory.share.into();
        let (events, requests) = memory.history_errors;
        judge.guards.history = Tally::of(events, requests);
        judge.guards.errors = Recent::from_history(judge.guards.history);
        judge.guards.slow_from = usize::from(memory.slow_from);
        let share = judge.share();
        judge.errors.restore(&memory.errors, share);
        judge.rejected.restore(&memory.rejected, share);
        judge.latency.restore(&memory.latency, share, &judge.baseline);
        judge.promotion.begin(share, judge.errors.stable_rate(), &judge.baseline);
        judge.promotion.restore(&memory.promotion);
        let reference = Reference {
            errors: judge.guards.errors.rate().max(judge.errors.stable_rate()),
            baseline: &judge.baseline,
        };
        // A limit that was added since keeps its cash; one that was taken away takes its wealth along.
        for kept in &memory.limits {
            if let Some(limit) = judge.limits.iter_mut().find(|stream| stream.limit() == kept.limit)
            {
                limit.restore(kept, share >= 1.0, reference, &judge.margins);
            }
        }
        judge
    }

    /// What must be kept to go on after a restart; store it with the counts that it rests on, once
    /// per slot. What the slot under way has shown is not in it.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {
            weight: self.weight,
            compared: Some(self.compared),
            highest_instance: self.instances.highest(),
            steps: self.steps,
            slots: self.slots,
            attempt: self.attempt,
            age: self.started.map_or(0, |started| self.looked.0.saturating_sub(started.0)),
            failed: self.failed.clone(),
            history_errors: (self.guards.history.events, self.guards.history.requests()),
            slow_from: self.guards.slow_from as u16,
            errors: self.errors.memory(),
            rejected: self.rejected.memory(),
            latency: self.latency.memory(),
            limits: self.limits.iter().map(LimitStream::memory).collect(),
            promotion: self.promotion.memory(),
            baseline: self.baseline.memory(),
            share: (self.delivered.canary, self.delivered.stable),
        }
    }

    /// Slots that are over. When it has grown since the last poll, `memory` has something new to say.
    #[must_use]
    pub fn slots(&self) -> u64 {
        self.slots
    }

    /// Steps that have begun.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The combined evidence against the canary: the rollout ends at `1/α`.
    #[must_use]
    pub fn evidence_against(&self) -> f64 {
        self.evidence().total
    }

    /// The evidence of each stream by name, for records and replays.
    pub fn streams(&self) -> impl Iterator<Item = (String, f64)> {
        let named = [
            ("errors", self.errors.evidence()),
            ("latency", self.latency.evidence()),
            ("rejected", self.rejected.evidence()),
        ];
        let limits =
            self.limits.iter().map(|stream| (stream.limit().to_string(), stream.evidence()));
        named.into_iter().map(|(name, evidence)| (name.to_owned(), evidence)).chain(limits)
    }

    /// Whether the step under way has these weights, so that there is nothing to begin.
    #[must_use]
    pub fn is_at(&self, canary: Weight, compared: Weight) -> bool {
        self.steps > 0 && self.weight == canary && self.compared == compared
    }

    /// A step begins: the split has a new weight and both scorecards are new. The canary is compared
    /// with all the rest.
    pub fn begin_step(&mut self, canary: Weight, now: Moment) {
        self.begin_step_beside(canary, canary.complement(), now);
    }

    /// The same where the canary is compared with a part of the rest, which has this weight.
    pub fn begin_step_beside(&mut self, canary: Weight, compared: Weight, now: Moment) {
        let release = if self.steps == 0 { AT_START } else { AT_STEP };
        self.steps += 1;
        self.started.get_or_insert(now);
        (self.weight, self.compared) = (canary, compared);
        self.baseline.end_slot();
        let share = self.share();
        self.errors.begin(share, release);
        self.rejected.begin(share, release);
        self.latency.begin(share, release, &self.baseline);
        self.promotion.begin(share, self.errors.stable_rate(), &self.baseline);
        let reference = Reference {
            errors: self.guards.errors.rate().max(self.errors.stable_rate()),
            baseline: &self.baseline,
        };
        for limit in &mut self.limits {
            limit.begin(share >= 1.0, release, reference, &self.margins);
        }
        self.delivered = Share::default();
        self.arriving = Arriving::default();
        self.clients = [0.0; 2];
        self.totals = Default::default();
        self.effect.begin();
        self.instances.begin();
        self.breaker.reset();
        self.slots += 1;
        (self.slot_began, self.looked, self.step_began) = (now, now, now);
    }

    /// Takes in what each of stable's instances newly counted, for criteria that compare them. To be
    /// called before [`Self::observe`], which says the rest of the same poll.
    pub fn observe_instances(&mut self, instances: &[Sample]) {
        if !self.criteria.compares_instances || self.is_warming() {
            return;
        }
        let latencies: Vec<_> = instances.iter().map(reading::latency).collect();
        self.instances.count(&latencies, AT_START, &self.baseline);
    }

    /// Takes in as how many clients those of stable and of the canary counted at this step so far, where
    /// clients are assigned. To be called before [`Self::observe`], like the above.
    pub fn observe_clients(&mut self, clients: [f64; 2]) {
        self.clients = clients;
    }

    /// Weighs what each side newly counted since the last call in this step.
    pub fn observe(&mut self, stable: &Sample, canary: &Sample, now: Moment) -> Verdict {
        let opened = self.count(stable, canary, now);
        if self.failed.is_none() {
            self.failed = checks::failure(self, opened);
        }
        checks::verdict(self)
    }

    fn count(&mut self, stable: &Sample, canary: &Sample, now: Moment) -> Option<Opened> {
        let (before, elapsed) = (self.looked, now.since(self.looked));
        self.looked = now;
        let [of_stable, of_canary] = &mut self.readings;
        of_stable.take(stable);
        of_canary.take(canary);
        let warming = self.steps <= 1
            && self.started.is_none_or(|started| now.since(started) <= self.criteria.warm_up);
        if warming {
            // Stable's latencies still become its baseline.
            self.baseline.count(&of_stable.latency);
            of_stable.latency.clear();
            of_canary.latency.clear();
        }
        let (of_stable, of_canary) = (&self.readings[0], &self.readings[1]);
        for (totals, reading) in self.totals.iter_mut().zip([of_stable, of_canary]) {
            totals.errors.add(reading.errors);
            totals.news.add(reading.news);
            totals.rejected.add(reading.rejected);
            for (bucket, count) in &reading.latency {
                totals.latency.add(*bucket, *count);
            }
        }
        self.effect.count(Side::Stable, &of_stable.latency);
        self.effect.count(Side::Canary, &of_canary.latency);
        let share = self.share();
        let (beside, alone) = (share > 0.0 && share < 1.0, share >= 1.0);
        self.guards.errors.add(of_stable.errors, elapsed);
        self.guards.slow.add(of_stable.slow_from(self.guards.slow_from), elapsed);
        let by_request = self.criteria.unit == Unit::Request;
        let comparable = !by_request || self.arriving.is_as_configured(share);
        if beside {
            self.delivered.count(of_canary.ended, of_stable.ended);
            if comparable {
                self.errors.count(of_canary.news, of_stable.news);
                self.rejected.count(of_canary.rejected, of_stable.rejected);
                self.latency.count(&of_canary.latency, &of_stable.latency);
                self.promotion.count(of_canary, of_stable);
            }
            self.arriving.count(of_canary.ended, of_stable.ended, share);
            self.baseline.count(&of_stable.latency);
        }
        if (beside && comparable) || alone {
            for limit in &mut self.limits {
                limit.count(of_canary, of_stable, elapsed);
            }
        }
        let recent = &self.guards.errors;
        let (canary, stable) = (of_canary.errors, of_stable.errors);
        let opened = self.breaker.observe(canary, stable, recent, alone, before, now);
        if now.since(self.slot_began) >= SLOT {
            self.end_slot(beside, now);
        }
        opened
    }

    fn end_slot(&mut self, beside: bool, now: Moment) {
        self.slot_began = now;
        self.slots += 1;
        self.effect.end_slot();
        self.errors.end_slot();
        self.rejected.end_slot();
        for limit in &mut self.limits {
            limit.end_slot();
        }
        if beside {
            self.baseline.end_slot();
            self.promotion.end_slot();
            self.promotion.refresh(self.errors.stable_rate(), &self.baseline);
        }
        self.latency.end_slot(&self.baseline);
        self.instances.end_slot(&self.baseline);
    }

    /// The probability with which a request that counts is the canary's.
    pub(super) fn share(&self) -> f64 {
        let (canary, compared) = (self.weight.fraction(), self.compared.fraction());
        if canary > 0.0 { canary / (canary + compared) } else { 0.0 }
    }

    /// How many seconds so many canary requests take, at the rate of this step.
    pub(super) fn lasts(&self, requests: u64) -> Option<f64> {
        let seen = self.totals_of(Side::Canary).errors.requests();
        let lasted = self.looked.since(self.step_began).as_secs_f64();
        (seen > 0).then(|| requests as f64 * lasted / seen as f64)
    }

    pub(super) fn evidence(&self) -> Evidence {
        let mut shares = SHARES;
        if !self.criteria.watches_errors() {
            (shares[0], shares[2]) = (0.0, 0.0);
        }
        if self.criteria.unit == Unit::Session {
            // One client who is refused again and again would speak for many.
            shares[2] = 0.0;
        }
        if !self.criteria.watches_latency() {
            shares[1] = 0.0;
        }
        if self.limits.is_empty() {
            shares[3] = 0.0;
        }
        let all: f64 = shares.iter().sum();
        if self.criteria.unit == Unit::Session && !self.is_slow_enough() {
            // Requests of few clients are surely different, and say little.
            shares[1] = 0.0;
        }
        let each = shares[3] / self.limits.len().max(1) as f64;
        let beside = [
            (Voice::Errors, shares[0] * self.errors.evidence()),
            (Voice::Latency, shares[1] * self.latency.evidence()),
            (Voice::Rejected, shares[2] * self.rejected.evidence()),
        ];
        let limits = self.limits.iter().enumerate();
        let limits = limits.map(|(index, stream)| (Voice::Limit(index), each * stream.evidence()));
        let (mut sum, mut loudest, mut voice) = (0.0, 0.0, Voice::Errors);
        for (who, worth) in beside.into_iter().chain(limits) {
            sum += worth;
            if worth > loudest {
                (loudest, voice) = (worth, who);
            }
        }
        // Nothing watched, nothing known: evidence of 1.
        let start = (-f64::from(self.attempt)).exp2();
        let total = if all > 0.0 { sum / all * start } else { start };
        Evidence { total, voice, suspicious: total >= SUSPICION / self.criteria.alpha }
    }

    pub(super) fn totals_of(&self, side: Side) -> &Totals {
        &self.totals[side.index()]
    }

    pub(super) fn is_alone(&self) -> bool {
        self.weight > Weight::ZERO && self.compared == Weight::ZERO
    }

    pub(super) fn is_warming(&self) -> bool {
        self.steps <= 1
            && self.started.is_none_or(|at| self.looked.since(at) <= self.criteria.warm_up)
    }

    /// The first latency limit: the one that speaks for the whole distribution.
    pub(super) fn latency_metric(&self) -> Option<Metric> {
        let metrics = self.criteria.limits.iter().map(|limit| limit.metric);
        metrics.into_iter().find(|metric| matches!(metric, Metric::Latency(_)))
    }
}
