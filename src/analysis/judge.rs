//! The seam between evidence and rollout: samples in, verdicts out.

use serde::{Deserialize, Serialize};

use super::criteria::Criteria;
use super::scorecard::Sample;
use super::verdict::Verdict;
use crate::model::moment::Moment;
use crate::model::weight::Weight;

/// Weighs one rollout. Fed with what was newly counted at every poll; never asks a clock.
#[derive(Debug)]
pub struct Judge {
    criteria: Criteria,
}

/// What a judge needs to go on after a restart.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Memory {}

impl Judge {
    /// A judge for a new rollout. `history` is what stable did before it began.
    #[must_use]
    pub fn new(criteria: Criteria, history: &Sample, now: Moment) -> Self {
        let _ = (history, now);
        Self { criteria }
    }

    /// A judge that goes on from what it knew; the gap is a bet of zero.
    #[must_use]
    pub fn resume(criteria: Criteria, memory: &Memory, now: Moment) -> Self {
        let _ = (memory, now);
        Self { criteria }
    }

    /// What must be kept to go on after a restart.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {}
    }

    /// A step begins: the split has a new weight and both scorecards are new.
    pub fn begin_step(&mut self, canary: Weight, now: Moment) {
        let _ = (canary, now, &self.criteria);
    }

    /// Weighs what each side newly counted since the last call in this step.
    pub fn observe(&mut self, stable: &Sample, canary: &Sample, now: Moment) -> Verdict {
        let _ = (stable, canary, now);
        Verdict::unknown("")
    }
}
