//! What must hold after every step of the machine; its page says it in words.

use super::effect::Effect;
use super::machine::{Rollout, Step};
use super::phase::Phase;
use crate::model::weight::Weight;

impl Rollout {
    /// Whether a step from the weight `before` kept the law.
    pub(super) fn holds(&self, before: Weight, step: &Step) -> bool {
        let has_weight = matches!(
            self.phase,
            Phase::Baking { .. }
                | Phase::Growing { .. }
                | Phase::Paused { .. }
                | Phase::Promoting
                | Phase::Promoted
        );
        let does = |wanted: fn(&Effect, Weight) -> bool| {
            step.effects.iter().any(|effect| wanted(effect, before))
        };
        let goes_back = matches!(
            self.phase,
            Phase::RollingBack { .. } | Phase::Restoring { .. } | Phase::RolledBack { .. }
        );
        // What ends stable's instances is written first, and what leaves nobody there has visitors wait.
        let gives_up = does(|effect, _| matches!(effect, Effect::Clear | Effect::Release { .. }));
        let clears = does(|effect, _| *effect == Effect::Clear);
        let queues = does(|effect, _| *effect == Effect::Queue(true));
        let rises = does(|effect, before| matches!(effect, Effect::Shift(to) if *to > before));
        let switches = does(|effect, _| *effect == Effect::Switch);
        let stops = does(|effect, _| *effect == Effect::Stop);
        let saved_first = matches!(step.effects.first(), Some(Effect::Checkpoint { must: true }));
        (has_weight || (self.weight == Weight::ZERO && self.settled == Weight::ZERO))
            && (!rises || saved_first)
            && (!gives_up || saved_first)
            && (!clears || queues)
            && (!switches || saved_first || self.committed)
            && (!stops || matches!(self.phase, Phase::RollingBack { drained: true, .. }))
            && !(self.committed && goes_back)
            && (self.phase.is_over()
                || matches!(self.phase, Phase::Paused { .. })
                || self.deadline().is_some())
    }
}
