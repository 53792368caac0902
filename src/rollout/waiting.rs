//! What happens when time passes and nobody says anything: no judge, and no person at a gate.

use super::machine::{Rollout, Step};
use super::phase::{Cause, PauseReason};
use super::plan::OnInconclusive;
use crate::model::moment::Moment;

impl Rollout {
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
