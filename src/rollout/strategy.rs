//! How a new revision takes the place of the old one: what a strategy makes of a plan.
//!
//! | strategy | instances beside stable's | weights |
//! |---|---|---|
//! | canary | all | the plan's steps |
//! | blue-green | all | everything at once, watched for a while |
//! | rolling | one at a time, as many of stable's given up | as many as run |
//! | recreate | none: stable's stop first, and visitors wait | everything at once, watched for a while |

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::event::Event;
use super::machine::{Kind, Rollout, Step};
use super::phase::{Cause, PauseReason, Phase, Stage};
use super::plan::{Plan, Steps};
use crate::analysis::verdict::Finding;
use crate::model::instance::Instance;
use crate::model::moment::Moment;
use crate::model::weight::Weight;

/// How a new revision takes the place of the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Step by step, both revisions running.
    #[default]
    Canary,
    /// All at once, both revisions running until it is promoted.
    BlueGreen,
    /// Instance by instance: one more than stable has, at the most.
    Rolling,
    /// The old one stops, then the new one starts; visitors wait meanwhile.
    Recreate,
}

impl Strategy {
    /// All of them, as they are written.
    pub const WORDS: [&str; 4] = ["canary", "blue-green", "rolling", "recreate"];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::BlueGreen => "blue-green",
            Self::Rolling => "rolling",
            Self::Recreate => "recreate",
        }
    }

    /// Whether several services can take its steps together: both revisions of each run all the while.
    #[must_use]
    pub fn goes_together(self) -> bool {
        matches!(self, Self::Canary | Self::BlueGreen)
    }

    /// Whether the weights are the operator's to choose.
    #[must_use]
    pub fn has_steps(self) -> bool {
        self == Self::Canary
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Strategy {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "canary" => Ok(Self::Canary),
            "blue-green" => Ok(Self::BlueGreen),
            "rolling" => Ok(Self::Rolling),
            "recreate" => Ok(Self::Recreate),
            _ => Err(format!("{text:?} is no strategy: there are {}", Self::WORDS.join(", "))),
        }
    }
}

impl Plan {
    /// The plan as its strategy carries it out, for a canary of so many instances.
    #[must_use]
    pub fn carried_out(mut self, instances: u32) -> Self {
        self.instances = instances.max(1);
        let weights = match self.strategy {
            Strategy::Canary => return self,
            Strategy::BlueGreen | Strategy::Recreate => vec![Weight::FULL],
            Strategy::Rolling => rolling_weights(self.instances),
        };
        // They rise to the whole, and are as many as there may be.
        self.steps = Steps::new(weights).unwrap_or_default();
        self.hold_back = Weight::ZERO;
        self.fresh_baseline &= self.strategy == Strategy::BlueGreen;
        self
    }

    /// How many instances the canary has at a step.
    #[must_use]
    pub fn instances_at(&self, step: usize) -> u32 {
        let (all, steps) = (u64::from(self.instances.max(1)), self.steps.count() as u64);
        if self.strategy != Strategy::Rolling {
            return self.instances.max(1);
        }
        let at = (step as u64 + 1).saturating_mul(all).div_ceil(steps).min(all);
        u32::try_from(at).unwrap_or(u32::MAX)
    }
}

/// As much for the new ones as are there: 1 of 4, 2 of 4, … In more than [`Steps::MAX`] of them a step
/// is several.
fn rolling_weights(instances: u32) -> Vec<Weight> {
    let steps = (instances as usize).min(Steps::MAX);
    let weight = |step: usize| {
        let basis_points = step * usize::from(Weight::WHOLE) / steps;
        u16::try_from(basis_points).ok().and_then(|bp| Weight::from_basis_points(bp).ok())
    };
    (1..=steps).filter_map(weight).collect()
}

impl Rollout {
    /// Whether stable's instances stop before the canary's start.
    #[must_use]
    pub fn recreates(&self) -> bool {
        self.plan.strategy == Strategy::Recreate && self.stable.is_some()
    }

    /// Whether instances are exchanged one by one.
    #[must_use]
    pub fn rolls(&self) -> bool {
        self.plan.strategy == Strategy::Rolling && self.stable.is_some()
    }

    /// Whether visitors have to wait when nothing is known but the phase, as after a restart: what
    /// they would be sent to has been stopped, or may be.
    #[must_use]
    pub fn may_be_down(&self) -> bool {
        self.recreates() && !self.phase.is_over()
    }

    /// Which instances of the canary are to run in this phase: those that are there, and then up to
    /// this many.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        let step = if self.rolls() { self.phase.step().unwrap_or(0) } else { usize::MAX - 1 };
        self.plan.instances_at(step)
    }

    /// The canary's instances that nobody has met yet.
    #[must_use]
    pub fn newest(&self) -> &[Instance] {
        let met = match self.phase {
            Phase::Growing { step, .. } => self.plan.instances_at(step.saturating_sub(1)) as usize,
            _ => 0,
        };
        self.instances.get(met..).unwrap_or_default()
    }

    /// What of stable is given up in this phase.
    pub(super) fn given_up(&self) -> Option<Effect> {
        let before = self.phase.step().filter(|_| self.rolls())?.checked_sub(1)?;
        let (taken, of) = (self.plan.instances_at(before), self.plan.instances);
        Some(Effect::Release { taken, of })
    }

    /// What happens where instances of both revisions are exchanged: phases that only some strategies
    /// have.
    pub(super) fn exchange(&mut self, event: Event, now: Moment) -> Step {
        let may = Effect::Checkpoint { must: false };
        match (self.phase.clone(), event) {
            (Phase::Clearing, Event::Cleared { .. }) => {
                self.enter(Phase::Launching, vec![may, Effect::Launch], now)
            }
            (Phase::Clearing, Event::Unsaved { sentence, .. }) => {
                self.roll_back(Cause::LaunchFailed { sentence }, now)
            }
            (Phase::Clearing, Event::Tick { .. }) if self.is_late(now) => {
                let sentence = "the instances of stable do not stop".to_owned();
                self.roll_back(Cause::LaunchFailed { sentence }, now)
            }

            (Phase::Restoring { cause }, Event::Restored { .. }) => self.restored(cause, now),
            // They are started again and again, also when nobody waits for them any more.
            (Phase::Restoring { cause }, Event::Tick { .. }) if self.is_late(now) => {
                self.restored(cause, now)
            }

            (
                Phase::Growing { step, stage: Stage::Launching, .. },
                Event::Launched { instances, .. },
            ) => {
                self.instances.extend(instances);
                self.grow_on(step, Stage::Probing, now)
            }
            (
                Phase::Growing { stage: Stage::Launching, .. },
                Event::LaunchFailed { sentence, .. },
            ) => self.roll_back(Cause::LaunchFailed { sentence }, now),
            (Phase::Growing { step, .. }, Event::Unsaved { sentence, .. }) => {
                self.pause(step.saturating_sub(1), PauseReason::Unsaved { sentence }, now)
            }
            (Phase::Growing { step, stage: Stage::Probing, .. }, Event::Ready { .. }) => {
                match self.is_smoked() {
                    true => self.grow_on(step, Stage::Smoke, now),
                    false => self.bake(step, now),
                }
            }
            (
                Phase::Growing { step, stage: Stage::Smoke, .. },
                Event::Smoked { failure: None, .. },
            ) => self.bake(step, now),
            (
                Phase::Growing { stage: Stage::Smoke, .. },
                Event::Smoked { failure: Some(sentence), .. },
            ) => self.roll_back(Cause::SmokeFailed { sentence }, now),
            (Phase::Growing { .. }, Event::Lost { sentence }) => {
                self.roll_back(Cause::Lost { sentence }, now)
            }
            (Phase::Growing { .. }, Event::Sampled(verdict)) => match verdict.result {
                Finding::Fail => {
                    self.roll_back(Cause::Regression { sentence: verdict.sentence }, now)
                }
                Finding::Pass | Finding::Inconclusive => Step::nothing(),
            },
            (Phase::Growing { stage, .. }, Event::Tick { diagnosis }) if self.is_late(now) => {
                self.did_not_grow(stage, diagnosis.as_deref(), now)
            }
            (_, Event::Tick { .. }) if self.is_time_to_save_again(now) => self.save_again(),
            (_, Event::Tick { .. }) => Step::nothing(),
            _ => Step::ignored(),
        }
    }

    /// A further instance took too long.
    fn did_not_grow(&mut self, stage: Stage, diagnosis: Option<&str>, now: Moment) -> Step {
        let within = self.deadline().map(|deadline| deadline.since(self.since)).unwrap_or_default();
        let late = |verb: &str| {
            let late = format!("{verb} within {within:?}");
            diagnosis.map_or(late.clone(), |said| format!("{late}: {said}"))
        };
        let cause = match stage {
            Stage::Launching => Cause::LaunchFailed { sentence: late("not started") },
            Stage::Probing => Cause::NeverHealthy { sentence: late("not healthy") },
            Stage::Smoke => Cause::SmokeFailed { sentence: late("not done") },
        };
        self.roll_back(cause, now)
    }

    /// The canary's instances are gone. Where stable's were stopped for them, they start again.
    pub(super) fn canary_is_gone(&mut self, cause: Cause, now: Moment) -> Step {
        let may = Effect::Checkpoint { must: false };
        if self.recreates() {
            return self.enter(Phase::Restoring { cause }, vec![may, Effect::Restore], now);
        }
        self.enter(Phase::RolledBack { cause }, vec![may], now)
    }

    /// Stable is back, or will be.
    fn restored(&mut self, cause: Cause, now: Moment) -> Step {
        let effects = vec![Effect::Queue(false), Effect::Checkpoint { must: false }];
        self.enter(Phase::RolledBack { cause }, effects, now)
    }

    /// The first thing that is done: stable makes room, or the canary starts beside it.
    pub(super) fn begin_launch(&mut self, now: Moment) -> Step {
        let must = Effect::Checkpoint { must: true };
        if self.recreates() {
            return self.enter(
                Phase::Clearing,
                vec![must, Effect::Queue(true), Effect::Clear],
                now,
            );
        }
        self.enter(Phase::Launching, vec![must, Effect::Launch], now)
    }

    /// Gives up instances of stable for those that the canary has, and starts the next ones.
    pub(super) fn grow(&mut self, step: usize, now: Moment) -> Step {
        self.weight = self.settled;
        let mut effects = vec![Effect::Checkpoint { must: true }];
        self.phase = Phase::Growing { step, weight: self.weight, stage: Stage::Launching };
        effects.extend(self.given_up());
        effects.push(Effect::Launch);
        self.enter(self.phase.clone(), effects, now)
    }

    /// The next stage of growing.
    pub(super) fn grow_on(&mut self, step: usize, stage: Stage, now: Moment) -> Step {
        let phase = Phase::Growing { step, weight: self.weight, stage };
        let effect = match stage {
            Stage::Launching => Effect::Launch,
            Stage::Probing => Effect::Probe,
            Stage::Smoke => Effect::Smoke,
        };
        self.enter(phase, vec![Effect::Checkpoint { must: false }, effect], now)
    }

    /// Whether nobody has to see how each instance does: a kept revision comes back.
    pub(super) fn returns_by_instances(&self) -> bool {
        self.kind == Kind::Direct && self.rolls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_takes_instance_by_instance() {
        let plan = |instances| {
            let plan = Plan { strategy: Strategy::Rolling, ..Plan::default() };
            plan.carried_out(instances)
        };
        assert_eq!(plan(1).steps.to_string(), "100%");
        assert_eq!(plan(4).steps.to_string(), "25% 50% 75% 100%");
        assert_eq!(plan(3).steps.to_string(), "33.33% 66.66% 100%");
        let counts = |plan: &Plan| -> Vec<u32> {
            (0..plan.steps.count()).map(|step| plan.instances_at(step)).collect()
        };
        assert_eq!(counts(&plan(3)), [1, 2, 3]);
        let many = plan(250);
        let counts = counts(&many);
        assert_eq!((counts.len(), counts[0], counts[99]), (100, 3, 250));
        assert!(counts.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn all_at_once_is_one_step() {
        for strategy in [Strategy::BlueGreen, Strategy::Recreate] {
            let plan = Plan { strategy, ..Plan::default() }.carried_out(3);
            assert_eq!((plan.steps.to_string(), plan.instances_at(0)), ("100%".to_owned(), 3));
        }
        let plan = Plan::default().carried_out(3);
        assert_eq!((plan.steps, plan.instances), (Steps::default(), 3));
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in Strategy::WORDS {
            assert_eq!(word.parse::<Strategy>().map(Strategy::as_str), Ok(word));
        }
        let said = "bluegreen".parse::<Strategy>();
        assert!(said.is_err_and(|why| why.contains("blue-green, rolling")));
    }
}
