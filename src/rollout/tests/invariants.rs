//! What must be true of the world, whatever happened.

use super::world::{Life, World};
use super::*;
use crate::rollout::plan::OnInconclusive;

impl World {
    /// What must hold between any two events.
    pub(super) fn sweep(&self) {
        let Some(rollout) = &self.rollout else { return };
        match rollout.phase {
            Phase::Baking { .. } | Phase::Growing { .. } | Phase::Paused { .. } => {
                assert_eq!(self.weight, rollout.settled, "the weight in force is not the world's");
            }
            Phase::Promoting if !self.switched => assert_eq!(self.weight, rollout.settled),
            Phase::Promoting | Phase::Promoted => assert_eq!(self.weight, Weight::ZERO),
            Phase::Clearing
            | Phase::Launching
            | Phase::Probing
            | Phase::Smoke
            | Phase::Mirroring
            | Phase::RollingBack { .. }
            | Phase::Restoring { .. }
            | Phase::RolledBack { .. } => {
                assert_eq!(self.weight, Weight::ZERO, "weight in {:?}", rollout.phase);
                assert!(!self.switched, "the way back from a switch");
            }
        }
        if let Phase::Paused { weight, .. } = &rollout.phase
            && rollout.settled == rollout.weight
        {
            assert_eq!(*weight, self.weight, "it does not wait at the weight it says");
        }
        assert!(self.serves(&self.stable_instances), "stable was stopped");
        self.sweep_visitors(rollout);
        if self.weight > Weight::ZERO {
            assert!(self.serves(&rollout.instances), "what has weight was stopped");
        }
        let waits = rollout.plan.on_gate_timeout != OnInconclusive::Hold;
        let is_timeless = match &rollout.phase {
            Phase::Paused { reason: PauseReason::Gate, .. } => !waits,
            Phase::Paused { .. } => true,
            phase => phase.is_over(),
        };
        assert_eq!(rollout.deadline().is_none(), is_timeless, "{:?}", rollout.phase);
    }

    /// Whoever comes is answered: by an instance that was not stopped, or a little later.
    fn sweep_visitors(&self, rollout: &Rollout) {
        let by_canary = self.weight == Weight::FULL || self.switched;
        let late = matches!(rollout.phase, Phase::RolledBack { .. });
        assert!(
            rollout.stable.is_none()
                || by_canary
                || self.queues
                || late
                || !self.stable_instances.is_empty(),
            "nobody answers in {:?}",
            rollout.phase
        );
        if !rollout.recreates() {
            assert!(!self.queues, "visitors wait for nothing in {:?}", rollout.phase);
        }
        if self.queues {
            assert!(!by_canary, "visitors wait, and there is a canary for them");
        }
    }

    /// At the end of everything: what runs is stable or warm.
    pub(super) fn sweep_instances(&self) {
        for (number, copy) in &self.instances {
            let kept = [self.stable, self.warm].contains(&Some(copy.revision));
            assert!(kept || copy.life != Life::Running, "instance {number} was left behind");
        }
        assert!(self.serves(&self.stable_instances), "stable was stopped");
    }

    /// None of these was stopped by us.
    pub(super) fn serves(&self, instances: &[Instance]) -> bool {
        instances.iter().all(|instance| {
            let copy = self.instances.get(&u32::from(instance.address.port()));
            copy.is_none_or(|copy| copy.life != Life::Stopped)
        })
    }
}

/// The most weight that a checkpoint allows.
pub(super) fn allowed(checkpoint: &Checkpoint) -> Weight {
    match &checkpoint.phase {
        Phase::Baking { step } => checkpoint.plan.weight(*step),
        Phase::Paused { weight, .. } | Phase::Growing { weight, .. } => *weight,
        Phase::Promoting | Phase::Promoted => Weight::FULL,
        Phase::Clearing
        | Phase::Launching
        | Phase::Probing
        | Phase::Smoke
        | Phase::Mirroring
        | Phase::RollingBack { .. }
        | Phase::Restoring { .. }
        | Phase::RolledBack { .. } => Weight::ZERO,
    }
}

/// What a rollout was before a step.
pub(super) struct Before {
    phase: Phase,
    since: Moment,
    weight: Weight,
    settled: Weight,
}

impl Before {
    pub(super) fn of(rollout: &Rollout) -> Self {
        let Rollout { since, weight, settled, .. } = *rollout;
        Self { phase: rollout.phase.clone(), since, weight, settled }
    }

    /// A gate where nobody came in time, and the plan says to go on.
    fn passes_gate(&self, plan: &Plan, now: Moment) -> bool {
        matches!(self.phase, Phase::Paused { reason: PauseReason::Gate, .. })
            && plan.on_gate_timeout == OnInconclusive::Advance
            && now.since(self.since) >= plan.gate_timeout
    }

    /// The time of the copies is over, and nothing took the canary back.
    fn ends_mirror(&self, plan: &Plan, now: Moment) -> bool {
        let lasts = plan.mirror.as_ref().map(|mirror| mirror.lasts);
        self.phase == Phase::Mirroring && lasts.is_some_and(|lasts| now.since(self.since) >= lasts)
    }

    /// More weight is wanted only for a reason, and is in force only when it is written or switched.
    pub(super) fn check_rise(&self, after: &Rollout, event: &Event, now: Moment) {
        let before = self;
        let baked = now.since(before.since);
        let plan = &after.plan;
        if after.weight > before.weight.max(before.settled) {
            let has_reason = match event {
                Event::Ready { .. } | Event::Smoked { failure: None, .. } | Event::Command(_) => {
                    true
                }
                Event::Tick { .. } => self.passes_gate(plan, now) || self.ends_mirror(plan, now),
                Event::Sampled(verdict) if verdict.hold.is_some() => false,
                Event::Sampled(verdict) => match (verdict.result, &before.phase) {
                    (Finding::Pass, Phase::Paused { reason, .. }) => {
                        *reason == PauseReason::Inconclusive
                    }
                    (Finding::Pass, _) => baked >= plan.bake,
                    (Finding::Inconclusive, _) => {
                        baked >= plan.bake_max && plan.on_inconclusive == OnInconclusive::Advance
                    }
                    (Finding::Fail, _) => false,
                },
                _ => false,
            };
            assert!(has_reason, "{event:?} raised the weight in {:?}", before.phase);
        }
        if after.settled > before.settled {
            let is_written = matches!(event, Event::Saved { .. } | Event::Switched { .. });
            assert!(is_written, "{event:?} put more weight in force in {:?}", before.phase);
        }
        if after.phase != before.phase
            && matches!(after.phase, Phase::Promoting | Phase::Baking { .. })
        {
            let by_verdict = matches!(event, Event::Sampled(_))
                || (matches!(event, Event::Tick { .. }) && after.returns_by_instances())
                || (matches!(event, Event::Tick { .. })
                    && (self.passes_gate(&after.plan, now) || self.ends_mirror(&after.plan, now)));
            assert!(
                by_verdict
                    || matches!(
                        event,
                        Event::Ready { .. } | Event::Smoked { .. } | Event::Command(_)
                    ),
                "{event:?}"
            );
        }
    }
}
