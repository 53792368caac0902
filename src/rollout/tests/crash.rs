//! The daemon dies, and another one takes up what the disk has.

use super::chance::Chance;
use super::invariants::allowed;
use super::world::{Life, World};
use super::*;

impl World {
    /// The daemon dies at this moment, and another takes up what the disk has.
    pub(super) fn crash(&mut self, chance: &mut Chance) {
        // Of the writes under way, the first few may have arrived.
        for write in std::mem::take(&mut self.writes) {
            if chance.one_in(2) {
                break;
            }
            self.disk = Some(write.checkpoint);
            self.unwritten = None;
        }
        let was_saved = self.acknowledged.take();
        self.leave_rollout();
        self.rollout = None;
        let Some(stored) = &self.disk else {
            assert!(was_saved.is_none());
            self.stable = None;
            self.warm = None;
            self.sweep_orphans(None);
            return;
        };
        // What a disk has is text.
        let text = serde_json::to_string(stored).expect("it is written");
        let checkpoint: Checkpoint = serde_json::from_str(&text).expect("it is read");
        self.acknowledged = Some(checkpoint.clone());
        let is_promoted = checkpoint.phase == Phase::Promoted;
        self.warm = if is_promoted { checkpoint.stable } else { self.warm };
        self.stable = if is_promoted { Some(checkpoint.canary) } else { checkpoint.stable };
        self.warm = self.warm.filter(|revision| Some(*revision) != self.stable);
        let forgotten = self.unwritten.take();
        if let Some((stable, instances, warm)) = forgotten.clone() {
            (self.stable, self.stable_instances, self.warm) = (stable, instances, warm);
            self.forgotten += 1;
        }
        let most = allowed(&checkpoint);
        self.sweep_orphans(Some(&checkpoint));
        if !is_promoted && forgotten.is_none() {
            self.stable_instances = self.former(checkpoint.stable);
        }
        assert!(self.serves(&self.stable_instances), "stable was stopped too early");
        let (mut rollout, mut effects) = Rollout::resume(checkpoint, self.now);
        // A daemon that starts knows no more than this, and visitors come at once.
        self.queues = rollout.may_be_down();
        let is_gone = self.running(rollout.canary).is_empty();
        let needs = matches!(
            rollout.phase,
            Phase::Probing
                | Phase::Mirroring
                | Phase::Baking { .. }
                | Phase::Growing { .. }
                | Phase::Paused { .. }
                | Phase::Promoting
        );
        if chance.one_in(4) && needs {
            self.kill(&rollout);
        }
        if needs && (is_gone || self.running(rollout.canary).is_empty()) {
            let step = rollout.step(Event::Lost { sentence: "gone".to_owned() }, self.now);
            assert!(!step.ignored, "a canary that is gone is not ignored");
            effects = step.effects;
        }
        self.switched = rollout.phase == Phase::Promoted;
        self.rollout = Some(rollout);
        self.perform(effects, chance);
        assert!(self.weight <= most, "{} after a crash, {most} was written", self.weight);
    }

    fn kill(&mut self, rollout: &Rollout) {
        for copy in self.instances.values_mut() {
            if copy.revision == rollout.canary && copy.life == Life::Running {
                copy.life = Life::Dead;
            }
        }
    }
}
