//! The rollout machine: the whole law in one match.
//!
//! ```text
//! Launching → Probing → Baking{0} → … → Baking{last} → Promoting → Promoted
//!      └────────┴────────────┴──── any failure ────┴─▶ RollingBack → RolledBack
//!                       Paused{i} ⇄ Baking{i}
//! ```
//!
//! Invariants, asserted after every step in debug builds and swept by the simulator:
//! * the canary has weight only while Baking, Paused or Promoting, and 0 in RollingBack;
//! * its weight never rises without a pass, a person, or a plan that says to advance;
//! * a Shift upwards and a Switch are preceded by a checkpoint they depend on;
//! * nothing is stopped that was not shifted to 0 and drained first (or timed out);
//! * every phase but Paused and the ends has a deadline;
//! * from Promoting there is no way to RollingBack.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::command::Command;
use super::effect::Effect;
use super::event::{Attempt, Event};
use super::phase::{Cause, PauseReason, Phase};
use super::plan::{OnInconclusive, Plan};
use crate::analysis::verdict::{Finding, Verdict};
use crate::model::id::{RevisionId, RolloutId, ServiceName};
use crate::model::instance::Instance;
use crate::model::moment::Moment;
use crate::model::weight::Weight;

/// What a stop may take beyond the instances' own grace before a rollback is called done regardless.
const STOP_SLACK: Duration = Duration::from_secs(60);
/// How long a promotion may wait for its checkpoint; a disk that takes longer is broken.
const PROMOTE_DEADLINE: Duration = Duration::from_secs(30);

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
    /// The canary's weight: what the last Shift or Switch asked for.
    pub weight: Weight,
    /// The weight before that, to which we keep when the checkpoint in between cannot be written.
    kept: Weight,
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
    fn ignored() -> Self {
        Self { effects: Vec::new(), ignored: true }
    }

    fn nothing() -> Self {
        Self { effects: Vec::new(), ignored: false }
    }
}

impl Rollout {
    /// Begins a rollout. The effects launch the canary, or switch to it at once when `warm` gives
    /// instances that already run and are healthy.
    #[must_use]
    pub fn begin(checkpoint: Checkpoint, now: Moment) -> (Self, Vec<Effect>) {
        let mut rollout = Self::restore(checkpoint, now);
        let step = if rollout.instances.is_empty() {
            rollout.enter(
                Phase::Launching,
                vec![Effect::Checkpoint { must: true }, Effect::Launch],
                now,
            )
        } else {
            rollout.promote(now)
        };
        (rollout, step.effects)
    }

    /// Takes a rollout up again after a restart. The effects put the world where the phase wants it;
    /// performing them on a world that is already there changes nothing.
    #[must_use]
    pub fn resume(checkpoint: Checkpoint, now: Moment) -> (Self, Vec<Effect>) {
        let mut rollout = Self::restore(checkpoint, now);
        rollout.attempt = 1;
        let effects = match &rollout.phase {
            Phase::Launching => vec![Effect::Launch],
            Phase::Probing => vec![Effect::Probe],
            Phase::Baking { step } => {
                rollout.weight = rollout.plan.steps.weight(*step);
                vec![Effect::Shift(rollout.weight)]
            }
            Phase::Paused { weight, .. } => {
                rollout.weight = *weight;
                vec![Effect::Shift(*weight)]
            }
            Phase::Promoting => {
                rollout.weight = Weight::FULL;
                vec![Effect::Checkpoint { must: true }, Effect::Switch]
            }
            Phase::RollingBack { .. } => vec![Effect::Shift(Weight::ZERO), Effect::Drain],
            Phase::Promoted | Phase::RolledBack { .. } => Vec::new(),
        };
        (rollout, effects)
    }

    fn restore(checkpoint: Checkpoint, now: Moment) -> Self {
        Self {
            id: checkpoint.id,
            service: checkpoint.service,
            kind: checkpoint.kind,
            stable: checkpoint.stable,
            canary: checkpoint.canary,
            plan: checkpoint.plan,
            phase: checkpoint.phase,
            attempt: 0,
            since: now,
            instances: checkpoint.instances,
            weight: Weight::ZERO,
            kept: Weight::ZERO,
        }
    }

    /// When this phase must have ended; `None` for Paused and the ends.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        let longest = match &self.phase {
            Phase::Launching => self.plan.launch_deadline,
            Phase::Probing => self.plan.probe_deadline,
            Phase::Baking { .. } => self.plan.bake_max,
            Phase::Promoting => PROMOTE_DEADLINE,
            Phase::RollingBack { .. } => self.plan.drain_deadline + STOP_SLACK,
            Phase::Paused { .. } | Phase::Promoted | Phase::RolledBack { .. } => return None,
        };
        Some(self.since.after(longest))
    }

    /// What an event leads to.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Moment) -> Step {
        let before = self.weight;
        let step = self.law(event, now);
        debug_assert!(self.invariants(before, &step), "{self:?} {step:?}");
        step
    }

    fn law(&mut self, event: Event, now: Moment) -> Step {
        match (&self.phase, event) {
            (_, event) if self.is_stale(&event) => Step::ignored(),
            (Phase::Promoted | Phase::RolledBack { .. }, _) => Step::ignored(),

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
                let late = format!("not started within {:?}", self.plan.launch_deadline);
                let sentence = diagnosis.map_or(late.clone(), |said| format!("{late}: {said}"));
                self.roll_back(Cause::LaunchFailed { sentence }, now)
            }

            (Phase::Probing, Event::Ready { .. }) => match self.kind {
                Kind::Direct => self.promote(now),
                Kind::Canary => self.bake(0, now),
            },
            (Phase::Probing, Event::Tick { diagnosis }) if self.is_late(now) => {
                let late = format!("not healthy within {:?}", self.plan.probe_deadline);
                let sentence = diagnosis.map_or(late.clone(), |said| format!("{late}: {said}"));
                self.roll_back(Cause::NeverHealthy { sentence }, now)
            }
            (Phase::Probing, Event::Lost { sentence }) => {
                self.roll_back(Cause::NeverHealthy { sentence }, now)
            }

            (Phase::Baking { .. } | Phase::Paused { .. }, Event::Lost { sentence }) => {
                self.roll_back(Cause::Lost { sentence }, now)
            }
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
            (
                Phase::Baking { step } | Phase::Paused { step, .. },
                Event::Unsaved { sentence, .. },
            ) => {
                let step = *step;
                self.weight = self.kept;
                self.pause(step, PauseReason::Unsaved { sentence }, now)
            }
            (Phase::Promoting, Event::Unsaved { sentence, .. }) if self.kind == Kind::Canary => {
                let last = self.plan.steps.count() - 1;
                self.weight = self.kept;
                self.pause(last, PauseReason::Unsaved { sentence }, now)
            }
            // A direct switch that could not be saved is tried again at its deadline; nothing has
            // moved yet.
            (Phase::Promoting, Event::Unsaved { .. }) => Step::nothing(),

            (Phase::Promoting, Event::Switched { .. }) => {
                self.enter(Phase::Promoted, vec![Effect::Checkpoint { must: false }], now)
            }
            (Phase::Promoting, Event::Tick { .. }) if self.is_late(now) => self.promote(now),

            (Phase::RollingBack { drained: false, cause }, Event::Drained { .. }) => {
                let phase = Phase::RollingBack { cause: cause.clone(), drained: true };
                self.enter(phase, vec![Effect::Stop], now)
            }
            (Phase::RollingBack { cause, .. }, Event::Stopped { .. }) => {
                let phase = Phase::RolledBack { cause: cause.clone() };
                self.enter(phase, vec![Effect::Checkpoint { must: false }], now)
            }
            (Phase::RollingBack { drained: false, cause }, Event::Tick { .. })
                if self.is_late(now) =>
            {
                let phase = Phase::RollingBack { cause: cause.clone(), drained: true };
                self.enter(phase, vec![Effect::Stop], now)
            }
            (Phase::RollingBack { drained: true, cause }, Event::Tick { .. })
                if self.is_late(now) =>
            {
                // Stopping hangs (an engine that does not answer). The canary has no traffic, and
                // recovery clears what it left behind.
                let phase = Phase::RolledBack { cause: cause.clone() };
                self.enter(phase, vec![Effect::Checkpoint { must: false }], now)
            }

            (phase, Event::Command(command)) => match command.admit(phase) {
                Ok(()) => self.obey(command, now),
                Err(_) => Step::ignored(),
            },
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
            ) => self.advance(*step, now),
            (Command::Pause, Phase::Baking { step }) => {
                self.pause(*step, PauseReason::Operator, now)
            }
            // A person has seen that nothing is shown and says to go on.
            (Command::Resume, Phase::Paused { step, reason: PauseReason::Inconclusive, .. }) => {
                self.advance(*step, now)
            }
            (Command::Resume, Phase::Paused { step, .. }) => self.bake(*step, now),
            (Command::Weight(weight), Phase::Baking { step } | Phase::Paused { step, .. }) => {
                let step = *step;
                self.reweigh(weight);
                self.enter(
                    Phase::Paused { step, weight, reason: PauseReason::Operator },
                    vec![Effect::Checkpoint { must: true }, Effect::Shift(weight)],
                    now,
                )
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
            Finding::Pass | Finding::Inconclusive if baked >= self.plan.bake_max => {
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

    fn advance(&mut self, step: usize, now: Moment) -> Step {
        if self.plan.steps.is_last(step) { self.promote(now) } else { self.bake(step + 1, now) }
    }

    fn bake(&mut self, step: usize, now: Moment) -> Step {
        self.reweigh(self.plan.steps.weight(step));
        let effects = vec![Effect::Checkpoint { must: true }, Effect::Shift(self.weight)];
        self.enter(Phase::Baking { step }, effects, now)
    }

    fn pause(&mut self, step: usize, reason: PauseReason, now: Moment) -> Step {
        let weight = self.weight;
        let phase = Phase::Paused { step, weight, reason };
        self.enter(phase, vec![Effect::Checkpoint { must: false }], now)
    }

    fn promote(&mut self, now: Moment) -> Step {
        self.reweigh(Weight::FULL);
        let effects = vec![Effect::Checkpoint { must: true }, Effect::Switch];
        self.enter(Phase::Promoting, effects, now)
    }

    fn reweigh(&mut self, weight: Weight) {
        self.kept = self.weight;
        self.weight = weight;
    }

    fn roll_back(&mut self, cause: Cause, now: Moment) -> Step {
        self.weight = Weight::ZERO;
        let effects =
            vec![Effect::Checkpoint { must: false }, Effect::Shift(Weight::ZERO), Effect::Drain];
        self.enter(Phase::RollingBack { cause, drained: false }, effects, now)
    }

    fn enter(&mut self, phase: Phase, effects: Vec<Effect>, now: Moment) -> Step {
        self.phase = phase;
        self.attempt += 1;
        self.since = now;
        Step { effects, ignored: false }
    }

    fn is_late(&self, now: Moment) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    fn is_stale(&self, event: &Event) -> bool {
        match event {
            Event::Launched { attempt, .. }
            | Event::LaunchFailed { attempt, .. }
            | Event::Ready { attempt }
            | Event::Drained { attempt }
            | Event::Stopped { attempt }
            | Event::Switched { attempt }
            | Event::Unsaved { attempt, .. } => *attempt != self.attempt,
            Event::Sampled(_) | Event::Lost { .. } | Event::Tick { .. } | Event::Command(_) => {
                false
            }
        }
    }

    fn invariants(&self, before: Weight, step: &Step) -> bool {
        let has_weight = matches!(
            self.phase,
            Phase::Baking { .. } | Phase::Paused { .. } | Phase::Promoting | Phase::Promoted
        );
        let rises = self.weight > before;
        let saved_first = matches!(step.effects.first(), Some(Effect::Checkpoint { must: true }));
        let switches = step.effects.contains(&Effect::Switch);
        (has_weight || self.weight == Weight::ZERO)
            && (!(rises || switches) || saved_first)
            && (!step.effects.contains(&Effect::Stop)
                || matches!(self.phase, Phase::RollingBack { drained: true, .. }))
            && (self.phase.is_over()
                || matches!(self.phase, Phase::Paused { .. })
                || self.deadline().is_some())
    }
}
