//! How a rollout begins, and how it is taken up again after a restart.
//!
//! What the checkpoint says is the truth: a daemon that starts again routes everything to the
//! checkpoint's stable revision, then does what [`Rollout::resume`] says. Before that it looks which
//! of the canary's instances still run; if they do not, it steps the rollout with `Lost` and does
//! what *that* says instead, so that no request ever goes to what is already dead.

use super::checkpoint::Checkpoint;
use super::effect::Effect;
use super::machine::{Kind, Rollout};
use super::phase::{Phase, Stage};
use super::record::Record;
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
        let returns = rollout.kind == Kind::Direct && rollout.phase == Phase::Promoting;
        let step = match (rollout.instances.is_empty(), returns) {
            (true, _) => rollout.begin_launch(now),
            (false, true) => {
                rollout.committed = true;
                rollout.promote(now)
            }
            (false, false) => {
                let must = Effect::Checkpoint { must: true };
                rollout.enter(Phase::Probing, vec![must, Effect::Probe], now)
            }
        };
        (rollout, step.effects)
    }

    /// Takes a rollout up again after a restart. The effects put the world where the phase wants it;
    /// performing them on a world that is already there changes nothing.
    #[must_use]
    pub fn resume(checkpoint: Checkpoint, now: Moment) -> (Self, Vec<Effect>) {
        let mut rollout = Self::restore(checkpoint, now);
        rollout.attempt = 1;
        let hold = rollout.recreates().then_some(Effect::Queue(true));
        let mut effects = match &mut rollout.phase {
            Phase::Clearing => vec![Effect::Clear],
            Phase::Launching => vec![Effect::Launch],
            // What was found healthy by another process is asked again before it is tested again.
            Phase::Probing | Phase::Smoke => {
                rollout.phase = Phase::Probing;
                vec![Effect::Probe]
            }
            Phase::Mirroring => vec![Effect::Mirror],
            Phase::Baking { step } => {
                rollout.weight = rollout.plan.weight(*step);
                vec![Effect::Shift(rollout.weight)]
            }
            Phase::Paused { weight, .. } => {
                rollout.weight = *weight;
                vec![Effect::Shift(*weight)]
            }
            Phase::Growing { weight, stage, .. } => {
                rollout.weight = *weight;
                let shift = Effect::Shift(*weight);
                match stage {
                    Stage::Launching => vec![shift, Effect::Launch],
                    Stage::Probing | Stage::Smoke => {
                        *stage = Stage::Probing;
                        vec![shift, Effect::Probe]
                    }
                }
            }
            // Written once more so that there is a moment in which a dead canary is still noticed.
            Phase::Promoting => return rollout.promote_again(now),
            Phase::RollingBack { drained, .. } => {
                // Whatever was drained, it was another process that did it.
                *drained = false;
                vec![Effect::Shift(Weight::ZERO), Effect::Drain]
            }
            // What was stopped may have been the engine's to stop, and it did not.
            Phase::Restoring { cause } => {
                rollout.phase = Phase::RollingBack { cause: cause.clone(), drained: false };
                vec![Effect::Shift(Weight::ZERO), Effect::Drain]
            }
            Phase::Promoted | Phase::RolledBack { .. } => Vec::new(),
        };
        if let Some(hold) = hold.filter(|_| !rollout.phase.is_over()) {
            // Visitors wait since the start; where the canary has them all, they come in with it.
            let serves = rollout.weight == Weight::FULL;
            effects.insert(0, if serves { Effect::Queue(false) } else { hold });
        }
        // What was given up before the end of the former process, and may not have been stopped.
        let after_shift = usize::from(!effects.is_empty());
        effects.splice(after_shift..after_shift, rollout.given_up());
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
