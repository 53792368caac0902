//! What happens when time passes and nobody says anything: no judge, and no person at a gate.

use std::time::Duration;

use super::machine::{Rollout, Step};
use super::phase::{Cause, PauseReason};
use super::plan::OnInconclusive;
use crate::analysis::verdict::Verdict;
use crate::model::moment::Moment;

/// How much longer than `bake_max` a step may last while what was seen looks bad: where there is no
/// stable beside the canary the judge's breaker needs 1.5 s, and a limit three slots of a second.
const FAILING_SLACK: Duration = Duration::from_secs(4);

impl Rollout {
    /// How long a step may show nothing. One that looks bad so far has shown too much to go on by,
    /// however short it was meant to be.
    pub(super) fn patience(&self, verdict: &Verdict) -> Duration {
        let more = if verdict.failing { FAILING_SLACK } else { Duration::ZERO };
        self.plan.bake_max.saturating_add(more)
    }

    /// Nobody came in time.
    pub(super) fn close_gate(&mut self, step: usize, now: Moment) -> Step {
        if self.plan.on_gate_timeout == OnInconclusive::Advance {
            return self.go_on(step, now);
        }
        let (weight, waited) = (self.weight, self.plan.gate_timeout);
        let sentence = format!("nobody let it pass the gate at {weight} within {waited:?}");
        self.roll_back(Cause::GateClosed { sentence }, now)
    }

    /// The step's time is up and nobody has said anything about it. That is no reason to go on, not
    /// even where the plan says to advance when nothing is shown.
    pub(super) fn give_up_waiting(&mut self, step: usize, now: Moment) -> Step {
        let sentence = format!("the evidence was not weighed within {:?}", self.plan.bake_max);
        match self.plan.on_inconclusive {
            OnInconclusive::Rollback => self.roll_back(Cause::Inconclusive { sentence }, now),
            OnInconclusive::Hold | OnInconclusive::Advance => {
                self.pause(step, PauseReason::Hold { sentence }, now)
            }
        }
    }
}
