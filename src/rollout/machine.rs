//! The rollout machine: the whole law in one match.
//!
//! ```text
//! [Clearing] → Launching → Probing → [Smoke] → [Mirroring] → Baking{0} → … → Promoting → Promoted
//!      └────────────┴────────┴─────────┴───── any failure ────────┴─▶ RollingBack → [Restoring] → RolledBack
//!                          Paused{i} ⇄ Baking{i} → [Growing{i+1}] → Baking{i+1}
//! ```
//!
//! Every checkpoint is answered by `Saved` or `Unsaved`. What follows a checkpoint with `must` in the
//! list of effects is done when `Saved` comes back *and the machine does not ignore it*; else it is
//! forgotten, for the rollout has gone elsewhere meanwhile.
//!
//! Invariants, asserted after every step in debug builds and swept by the simulator:
//! * the canary has weight only while Baking, Growing, Paused or Promoting, and 0 in RollingBack;
//! * its weight never rises without a pass, a person, or a plan that says to advance;
//! * a Shift upwards and a Switch are preceded by a checkpoint they depend on; what leads back, a
//!   Shift downwards or the Switch of a return to what still runs, waits for no disk;
//! * nothing is stopped that was not shifted to 0 and drained first (or timed out); what of stable is
//!   given up is written first, and where nobody is left to answer, visitors are held before;
//! * every phase but Paused and the ends has a deadline, and does something when it passes;
//! * once the promotion's checkpoint is written there is no way to RollingBack.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::effect::Effect;
use super::event::{Attempt, Event};
use super::phase::{Cause, PauseReason, Phase, Stage};
use super::plan::{OnInconclusive, Plan};
use super::record::Record;
use crate::analysis::verdict::{Finding, Verdict};
use crate::model::id::{RevisionId, RolloutId, ServiceName};
use crate::model::instance::Instance;
use crate::model::moment::Moment;
use crate::model::weight::Weight;

/// What a stop may take beyond the instances' own grace before a rollback is called done regardless.
const STOP_SLACK: Duration = Duration::from_secs(60);
/// How long a promotion may wait for its checkpoint; a disk that takes longer is broken.
const PROMOTE_DEADLINE: Duration = Duration::from_secs(30);
/// How long after a step's time is up a verdict may still come. The driver weighs ten times a
/// second, so this is a judge that has stopped speaking.
const VERDICT_SLACK: Duration = Duration::from_secs(5);

/// What kind of rollout this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A new revision goes through the plan's steps.
    Canary,
    /// All at once when healthy: the first revision of a service, or a return to a kept one.
    Direct,
}

/// A rollout under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// Its number.
    pub id: RolloutId,
    /// Its service.
    pub service: ServiceName,
    /// What kind it is.
    pub kind: Kind,
    /// The revision that holds the traffic; none on a first deploy.
    pub stable: Option<RevisionId>,
    /// The revision under judgement.
    pub canary: RevisionId,
    /// How it is carried out.
    pub plan: Plan,
    /// Where it stands.
    pub phase: Phase,
    /// Counts the phases entered.
    pub attempt: Attempt,
    /// When this phase was entered.
    pub since: Moment,
    /// The canary's instances, once launched.
    pub instances: Vec<Instance>,
    /// The canary's weight that is wanted: ahead of `settled` while a checkpoint is being written.
    pub weight: Weight,
    /// The canary's weight in force: that of the last Shift or Switch that was let through.
    pub settled: Weight,
    /// What became of this phase's checkpoint.
    pub(super) record: Record,
    /// The promotion is on disk, or is a return that needs not be: the canary may hold all the traffic
    /// already, so there is no way back.
    pub(super) committed: bool,
}

/// What a step made of an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What to do, in order.
    pub effects: Vec<Effect>,
    /// The event belonged to an earlier phase, or means nothing in this one.
    pub ignored: bool,
}

impl Step {
    pub(super) fn ignored() -> Self {
        Self { effects: Vec::new(), ignored: true }
    }

    pub(super) fn nothing() -> Self {
        Self { effects: Vec::new(), ignored: false }
    }
}

impl Rollout {
    /// When this phase must have ended; `None` for Paused and the ends.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        let longest = match &self.phase {
            Phase::Launching => self.plan.launch_within(),
            // What makes room for them may drain before.
            Phase::Growing { stage: Stage::Launching, .. } => {
                self.plan.launch_deadline.saturating_add(self.plan.drain_deadline)
            }
            Phase::Clearing => self.plan.drain_deadline + STOP_SLACK,
            Phase::Restoring { .. } => {
                self.plan.launch_deadline.saturating_add(self.plan.probe_deadline)
            }
            Phase::Probing | Phase::Growing { stage: Stage::Probing, .. } => {
                self.plan.probe_deadline
            }
            Phase::Smoke | Phase::Growing { stage: Stage::Smoke, .. } => self.plan.smoke_within(),
            Phase::Mirroring => self.mirrors_for(),
            Phase::Baking { .. } => self.plan.bake_max,
            Phase::Promoting => PROMOTE_DEADLINE,
            Phase::RollingBack { .. } => self.plan.drain_deadline + STOP_SLACK,
            Phase::Paused { reason: PauseReason::Gate, .. }
                if self.plan.on_gate_timeout != OnInconclusive::Hold =>
            {
                self.plan.gate_timeout
            }
            Phase::Paused { .. } | Phase::Promoted | Phase::RolledBack { .. } => return None,
        };
        Some(self.since.after(longest))
    }

    /// What an event leads to.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Moment) -> Step {
        let before = self.settled;
        let step = self.law(event, now);
        debug_assert!(self.holds(before, &step), "{self:?} {step:?}");
        step
    }

    fn law(&mut self, event: Event, now: Moment) -> Step {
        match (&self.phase, event) {
            (_, event) if self.is_stale(&event) => Step::ignored(),
            (_, Event::Saved { .. }) => self.saved(),
            (_, Event::Unsaved { .. }) if self.record != (Record::Writing { must: true }) => {
                self.unsaved(now)
            }
            (Phase::Promoted | Phase::RolledBack { .. }, event)
                if !matches!(event, Event::Tick { .. }) =>
            {
                Step::ignored()
            }

            (Phase::Clearing | Phase::Growing { .. } | Phase::Restoring { .. }, event)
                if !matches!(event, Event::Command(_)) =>
            {
                self.exchange(event, now)
            }

            (Phase::Mirroring, event) if !matches!(event, Event::Command(_)) => {
                self.mirrored(event, now)
            }

            (Phase::Launching, Event::Launched { instances, .. }) => {
                self.instances = instances;
                self.enter(
                    Phase::Probing,
                    vec![Effect::Checkpoint { must: false }, Effect::Probe],
                    now,
                )
            }
            (Phase::Launching, Event::LaunchFailed { sentence, .. }) => {
                self.roll_back(Cause::LaunchFailed { sentence }, now)
            }
            (Phase::Launching | Phase::Probing, Event::Unsaved { sentence, .. }) => {
                self.roll_back(Cause::LaunchFailed { sentence }, now)
            }
            (Phase::Launching, Event::Tick { diagnosis }) if self.is_late(now) => {
                let late = format!("not started within {:?}", self.plan.launch_within());
                let sentence = diagnosis.map_or(late.clone(), |said| format!("{late}: {said}"));
                self.roll_back(Cause::LaunchFailed { sentence }, now)
            }

            (Phase::Probing, Event::Ready { .. }) if self.is_smoked() => self.enter(
                Phase::Smoke,
                vec![Effect::Checkpoint { must: false }, Effect::Smoke],
                now,
            ),
            (Phase::Probing, Event::Ready { .. })
            | (Phase::Smoke, Event::Smoked { failure: None, .. }) => self.begin_traffic(now),
            (Phase::Smoke, Event::Smoked { failure: Some(sentence), .. }) => {
                self.roll_back(Cause::SmokeFailed { sentence }, now)
            }
            (Phase::Smoke, Event::Tick { .. }) if self.is_late(now) => {
                let sentence = format!("not done within {:?}", self.plan.smoke_within());
                self.roll_back(Cause::SmokeFailed { sentence }, now)
            }
            (Phase::Probing, Event::Tick { diagnosis }) if self.is_late(now) => {
                let late = format!("not healthy within {:?}", self.plan.probe_deadline);
                let sentence = diagnosis.map_or(late.clone(), |said| format!("{late}: {said}"));
                self.roll_back(Cause::NeverHealthy { sentence }, now)
            }
            (Phase::Probing, Event::Lost { sentence }) => {
                self.roll_back(Cause::NeverHealthy { sentence }, now)
            }

            (
                Phase::Smoke | Phase::Baking { .. } | Phase::Paused { .. },
                Event::Lost { sentence },
            ) => self.roll_back(Cause::Lost { sentence }, now),
            (
                Phase::Launching
                | Phase::Probing
                | Phase::Smoke
                | Phase::Baking { .. }
                | Phase::Paused { .. },
                Event::Vetoed { sentence },
            ) => self.roll_back(Cause::Vetoed { sentence }, now),
            (Phase::Baking { step }, Event::Sampled(verdict)) => self.weigh(*step, &verdict, now),
            (Phase::Paused { step, reason, .. }, Event::Sampled(verdict)) => {
                match (verdict.result, reason) {
                    (Finding::Fail, _) => {
                        self.roll_back(Cause::Regression { sentence: verdict.sentence }, now)
                    }
                    // What was missing has come: nobody needs to be asked any more.
                    (Finding::Pass, PauseReason::Inconclusive) if verdict.hold.is_none() => {
                        self.advance(*step, now)
                    }
                    _ => Step::nothing(),
                }
            }
            (Phase::Paused { step, weight, reason: PauseReason::Others }, Event::Together) => {
                self.go_together(*step, *weight, now)
            }
            (Phase::Paused { step, reason: PauseReason::Gate, .. }, Event::Tick { .. })
                if self.is_late(now) =>
            {
                self.close_gate(*step, now)
            }
            (Phase::Baking { step }, Event::Tick { .. })
                if self.returns_by_instances() && self.record == Record::Saved =>
            {
                self.go_on(*step, now)
            }
            (Phase::Baking { step }, Event::Tick { .. }) if self.is_silent(now) => {
                self.give_up_waiting(*step, now)
            }
            (
                Phase::Baking { step } | Phase::Paused { step, .. },
                Event::Unsaved { sentence, .. },
            ) => self.pause(*step, PauseReason::Unsaved { sentence }, now),

            // Until the promotion is on disk the former stable holds its place and we can go back.
            (Phase::Promoting, Event::Lost { sentence }) if !self.committed => {
                self.roll_back(Cause::Lost { sentence }, now)
            }
            (Phase::Promoting, Event::Sampled(verdict))
                if !self.committed && verdict.result == Finding::Fail =>
            {
                self.roll_back(Cause::Regression { sentence: verdict.sentence }, now)
            }
            (Phase::Promoting, Event::Unsaved { .. }) if self.is_direct() => self.unsaved(now),
            (Phase::Promoting, Event::Unsaved { sentence, .. }) => {
                let last = self.plan.steps.count() - 1;
                self.pause(last, PauseReason::Unsaved { sentence }, now)
            }
            (Phase::Promoting, Event::Switched { .. }) => {
                self.committed = true;
                self.settled = self.weight;
                self.enter(Phase::Promoted, vec![Effect::Checkpoint { must: false }], now)
            }
            (Phase::Promoting, Event::Tick { .. })
                if self.is_late(now) || self.is_time_to_save_again(now) =>
            {
                self.promote(now)
            }

            (Phase::RollingBack { drained: false, cause }, Event::Drained { .. }) => {
                let phase = Phase::RollingBack { cause: cause.clone(), drained: true };
                self.enter(phase, vec![Effect::Checkpoint { must: false }, Effect::Stop], now)
            }
            (Phase::RollingBack { drained: true, cause }, Event::Stopped { .. }) => {
                self.canary_is_gone(cause.clone(), now)
            }
            (Phase::RollingBack { drained: false, cause }, Event::Tick { .. })
                if self.is_late(now) =>
            {
                let phase = Phase::RollingBack { cause: cause.clone(), drained: true };
                self.enter(phase, vec![Effect::Checkpoint { must: false }, Effect::Stop], now)
            }
            (Phase::RollingBack { drained: true, cause }, Event::Tick { .. })
                if self.is_late(now) =>
            {
                // Stopping hangs (an engine that does not answer). The canary has no traffic, and
                // recovery clears what it left behind.
                self.canary_is_gone(cause.clone(), now)
            }

            (_, Event::Command(command)) => match self.admit(command) {
                Ok(()) => self.obey(command, now),
                Err(_) => Step::ignored(),
            },
            (_, Event::Tick { .. }) if self.is_time_to_save_again(now) => self.save_again(),
            (_, Event::Tick { .. }) => Step::nothing(),
            _ => Step::ignored(),
        }
    }

    fn obey(&mut self, command: Command, now: Moment) -> Step {
        match (command, &self.phase) {
            (Command::Abort, _) => self.roll_back(Cause::Aborted, now),
            (Command::Promote { full: true }, _) => self.promote(now),
            (
                Command::Promote { full: false },
                Phase::Baking { step } | Phase::Paused { step, .. },
            ) => self.go_on(*step, now),
            (Command::Promote { full: false }, Phase::Mirroring) => self.begin_steps(now),
            (Command::Pause, Phase::Baking { step }) => {
                self.pause(*step, PauseReason::Operator, now)
            }
            // A person has seen that nothing is shown and says to go on.
            (
                Command::Resume,
                Phase::Paused {
                    step, reason: PauseReason::Inconclusive | PauseReason::Gate, ..
                },
            ) => self.go_on(*step, now),
            (Command::Resume, Phase::Paused { step, .. }) => self.bake(*step, now),
            (Command::Weight(weight), Phase::Baking { step } | Phase::Paused { step, .. }) => {
                let phase = Phase::Paused { step: *step, weight, reason: PauseReason::Operator };
                let must = weight > self.settled;
                self.weight = weight;
                if !must {
                    self.settled = weight;
                }
                self.enter(phase, vec![Effect::Checkpoint { must }, Effect::Shift(weight)], now)
            }
            _ => Step::ignored(),
        }
    }

    fn weigh(&mut self, step: usize, verdict: &Verdict, now: Moment) -> Step {
        let baked = now.since(self.since);
        match verdict.result {
            Finding::Fail => {
                self.roll_back(Cause::Regression { sentence: verdict.sentence.clone() }, now)
            }
            Finding::Pass if verdict.hold.is_none() => {
                if baked >= self.plan.bake {
                    self.advance(step, now)
                } else {
                    Step::nothing()
                }
            }
            Finding::Pass | Finding::Inconclusive if baked >= self.patience(verdict) => {
                match (&verdict.hold, self.plan.on_inconclusive) {
                    (Some(sentence), _) => {
                        let sentence = sentence.clone();
                        self.pause(step, PauseReason::Hold { sentence }, now)
                    }
                    (None, OnInconclusive::Hold) => {
                        self.pause(step, PauseReason::Inconclusive, now)
                    }
                    (None, OnInconclusive::Advance) => self.advance(step, now),
                    (None, OnInconclusive::Rollback) => {
                        let sentence = verdict.sentence.clone();
                        self.roll_back(Cause::Inconclusive { sentence }, now)
                    }
                }
            }
            Finding::Pass | Finding::Inconclusive => Step::nothing(),
        }
    }

    /// The canary is as ready as it can be without visitors.
    fn begin_traffic(&mut self, now: Moment) -> Step {
        match (self.is_direct(), self.is_mirrored()) {
            (true, _) if self.is_joined() => self.pause(0, PauseReason::Others, now),
            (true, _) => self.promote(now),
            (false, true) => self.mirror(now),
            (false, false) => self.begin_steps(now),
        }
    }

    /// The step has done what it was for. A gate waits for a person all the same.
    fn advance(&mut self, step: usize, now: Moment) -> Step {
        if self.plan.is_gated(step) {
            return self.pause(step, PauseReason::Gate, now);
        }
        self.go_on(step, now)
    }

    pub(super) fn leave(&mut self, step: usize, now: Moment) -> Step {
        match self.plan.steps.is_last(step) {
            true => self.promote(now),
            false if self.rolls() => self.grow(step + 1, now),
            false => self.bake(step + 1, now),
        }
    }

    pub(super) fn bake(&mut self, step: usize, now: Moment) -> Step {
        self.weight = self.plan.weight(step);
        let mut effects = vec![Effect::Checkpoint { must: true }];
        effects.extend(self.recreates().then_some(Effect::Queue(false)));
        effects.push(Effect::Shift(self.weight));
        self.enter(Phase::Baking { step }, effects, now)
    }

    /// Waits at the weight in force, whatever was wanted.
    pub(super) fn pause(&mut self, step: usize, reason: PauseReason, now: Moment) -> Step {
        if self.recreates() && self.settled == Weight::ZERO {
            // Nobody answers visitors: what can be had without the disk is the former revision.
            return self.roll_back(Cause::LaunchFailed { sentence: reason.to_string() }, now);
        }
        self.weight = self.settled;
        let phase = Phase::Paused { step, weight: self.weight, reason };
        self.enter(phase, vec![Effect::Checkpoint { must: false }], now)
    }

    /// Switches, again if need be: once it is on disk, nothing is written a second time.
    pub(super) fn promote(&mut self, now: Moment) -> Step {
        self.weight = Weight::FULL;
        let must = (!self.committed).then_some(Effect::Checkpoint { must: true });
        let admit = self.recreates().then_some(Effect::Queue(false));
        let effects = must.into_iter().chain(admit).chain([Effect::Switch]).collect();
        self.enter(Phase::Promoting, effects, now)
    }

    pub(super) fn roll_back(&mut self, cause: Cause, now: Moment) -> Step {
        self.weight = Weight::ZERO;
        self.settled = Weight::ZERO;
        let mut effects = vec![Effect::Checkpoint { must: false }];
        effects.extend(self.recreates().then_some(Effect::Queue(true)));
        effects.extend([Effect::Shift(Weight::ZERO), Effect::Drain]);
        self.enter(Phase::RollingBack { cause, drained: false }, effects, now)
    }

    pub(super) fn enter(&mut self, phase: Phase, effects: Vec<Effect>, now: Moment) -> Step {
        let checkpoint = |effect: &Effect| match effect {
            Effect::Checkpoint { must } => Some(*must),
            _ => None,
        };
        if let Some(must) = effects.iter().find_map(checkpoint) {
            self.record = Record::Writing { must };
        }
        self.phase = phase;
        self.attempt += 1;
        self.since = now;
        Step { effects, ignored: false }
    }

    /// Whether smoke tests come before visitors: not for a kept revision that served before.
    pub(super) fn is_smoked(&self) -> bool {
        self.plan.is_tested() && (self.kind == Kind::Canary || self.stable.is_none())
    }

    fn is_silent(&self, now: Moment) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline.after(VERDICT_SLACK))
    }

    pub(super) fn is_late(&self, now: Moment) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    fn is_stale(&self, event: &Event) -> bool {
        match event {
            Event::Launched { attempt, .. }
            | Event::LaunchFailed { attempt, .. }
            | Event::Ready { attempt }
            | Event::Cleared { attempt }
            | Event::Restored { attempt }
            | Event::Smoked { attempt, .. }
            | Event::Drained { attempt }
            | Event::Stopped { attempt }
            | Event::Switched { attempt }
            | Event::Saved { attempt }
            | Event::Unsaved { attempt, .. } => *attempt != self.attempt,
            Event::Sampled(_)
            | Event::Lost { .. }
            | Event::Vetoed { .. }
            | Event::Together
            | Event::Tick { .. }
            | Event::Command(_) => false,
        }
    }
}
