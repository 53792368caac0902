//! Rollouts of services that belong together: no one takes a step before all may.
//!
//! Each member is a rollout of its own, with its own verdict. Before its first step, and behind every
//! step, it waits until all the others are as far; whoever drives them looks and says so. The place where
//! it waits is on disk like any pause, so that a restart finds who waits for whom. Going back waits for
//! nobody. A return to former revisions that have to be started waits once: until all of them are ready.

use serde::{Deserialize, Serialize};

use super::machine::{Kind, Rollout, Step};
use super::phase::{PauseReason, Phase};
use crate::model::id::ServiceName;
use crate::model::moment::Moment;
use crate::model::weight::Weight;

/// The rollouts that one belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The group.
    pub group: ServiceName,
    /// Tells this deploy of the group from its others.
    pub number: u64,
    /// The services that are deployed together, this one too.
    pub members: Vec<ServiceName>,
}

impl Rollout {
    /// Whether it waits for others: not where nobody served before, for then nobody is split.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.plan.joined.is_some() && self.plan.strategy.goes_together() && self.stable.is_some()
    }

    /// All at once when healthy: so it was asked, or there is nobody to compare with.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        (self.kind == Kind::Direct && !self.rolls()) || self.stable.is_none()
    }

    /// How many steps it was let into, the one under way too; `None` before it may begin one. At its end
    /// as many as there can be.
    #[must_use]
    pub fn reached(&self) -> Option<usize> {
        match &self.phase {
            Phase::Paused { reason: PauseReason::Others, step, weight } => {
                Some(if *weight == Weight::ZERO { 0 } else { step + 1 })
            }
            Phase::Baking { step } | Phase::Paused { step, .. } => Some(*step),
            Phase::Promoting | Phase::Promoted => Some(usize::MAX),
            _ => None,
        }
    }

    /// Which step it would begin, if it waits for others to be as far.
    #[must_use]
    pub fn waits_at(&self) -> Option<usize> {
        let waits = matches!(self.phase, Phase::Paused { reason: PauseReason::Others, .. });
        self.reached().filter(|_| waits)
    }

    /// The first step begins, or is waited for.
    pub(super) fn begin_steps(&mut self, now: Moment) -> Step {
        match self.is_joined() {
            true => self.pause(0, PauseReason::Others, now),
            false => self.bake(0, now),
        }
    }

    /// A step is over: what comes behind it begins, or is waited for.
    pub(super) fn go_on(&mut self, step: usize, now: Moment) -> Step {
        match self.is_joined() {
            true => self.pause(step, PauseReason::Others, now),
            false => self.leave(step, now),
        }
    }

    /// What comes behind a step, once nobody has to be waited for any more.
    pub(super) fn go_together(&mut self, step: usize, weight: Weight, now: Moment) -> Step {
        match weight {
            // A return has no steps: all of its group are ready.
            _ if self.is_direct() => self.promote(now),
            Weight::ZERO => self.bake(0, now),
            _ => self.leave(step, now),
        }
    }
}
