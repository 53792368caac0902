//! How a rollout begins, and how it is taken up again after a restart.
//!
//! What the checkpoint says is the truth: a daemon that starts again routes everything to the
//! checkpoint's stable revision, then does what [`Rollout::resume`] says. Before that it looks which
//! of the canary's instances still run; if they do not, it steps the rollout with `Lost` and does
//! what *that* says instead, so that no request ever goes to what is already dead.

use super::checkpoint::Checkpoint;
use super::effect::Effect;
use super::machine::{Kind, Record, Rollout};
use super::phase::Phase;
use crate::model::moment::Moment;
use crate::model::weight::Weight;

impl Rollout {
    /// Begins a rollout. The effects launch the canary. Where the checkpoint has instances that
    /// already run, they are probed, unless it says that they are to be promoted: that is a return to
    /// healthy instances of a revision that was stable before. Its switch leads back, so it waits for
    /// no disk, and there is no way back from it.
    #[must_use]
    pub fn begin(checkpoint: Checkpoint, now: Moment) -> (Self, Vec<Effect>) {
        let mut rollout = Self::restore(checkpoint, now);
        let must = Effect::Checkpoint { must: true };
        let returns = rollout.kind == Kind::Direct && rollout.phase == Phase::Promoting;
        let step = match (rollout.instances.is_empty(), returns) {
            (true, _) => rollout.enter(Phase::Launching, vec![must, Effect::Launch], now),
            (false, true) => {
                rollout.committed = true;
                rollout.promote(now)
            }
            (false, false) => rollout.enter(Phase::Probing, vec![must, Effect::Probe], now),
        };
        (rollout, step.effects)
    }

    /// Takes a rollout up again after a restart. The effects put the world where the phase wants it;
    /// performing them on a world that is already there changes nothing.
    #[must_use]
    pub fn resume(checkpoint: Checkpoint, now: Moment) -> (Self, Vec<Effect>) {
        let mut rollout = Self::restore(checkpoint, now);
        rollout.attempt = 1;
        let effects = match &mut rollout.phase {
            Phase::Launching => vec![Effect::Launch],
            // What was found healthy by another process is asked again before it is tested again.
            Phase::Probing | Phase::Smoke => {
                rollout.phase = Phase::Probing;
                vec![Effect::Probe]
            }
            Phase::Baking { step } => {
                rollout.weight = rollout.plan.weight(*step);
                vec![Effect::Shift(rollout.weight)]
            }
            Phase::Paused { weight, .. } => {
                rollout.weight = *weight;
                vec![Effect::Shift(*weight)]
            }
            // Written once more so that there is a moment in which a dead canary is still noticed.
            Phase::Promoting => return rollout.promote_again(now),
            Phase::RollingBack { drained, .. } => {
                // Whatever was drained, it was another process that did it.
                *drained = false;
                vec![Effect::Shift(Weight::ZERO), Effect::Drain]
            }
            Phase::Promoted | Phase::RolledBack { .. } => Vec::new(),
        };
        rollout.settled = rollout.weight;
        (rollout, effects)
    }

    fn promote_again(mut self, now: Moment) -> (Self, Vec<Effect>) {
        let step = self.promote(now);
        (self, step.effects)
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
            settled: Weight::ZERO,
            record: Record::Saved,
            committed: false,
        }
    }
}
