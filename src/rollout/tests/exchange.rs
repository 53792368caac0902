//! What strategies do to stable's instances, in the simulator's world.

use super::chance::Chance;
use super::world::{Copy, Life, World, instance};
use super::*;

impl World {
    /// All of stable's instances stop.
    pub(super) fn clear(&mut self, chance: &mut Chance) {
        assert!(self.queues, "stable is stopped and visitors do not wait");
        self.assert_written();
        self.give_up(0);
        let attempt = self.current().attempt;
        self.complete(Event::Cleared { attempt }, chance, 12);
    }

    /// Some of them stop.
    pub(super) fn release(&mut self, taken: u32, of: u32) {
        self.assert_written();
        let rollout = self.current();
        assert!(taken < of, "the last one of stable is given up");
        assert!(rollout.instances.len() >= taken as usize, "{taken} were not started");
        let all = self.full_stable.max(1);
        let keep = (all - all * taken as usize / of as usize).max(1);
        self.give_up(keep);
    }

    /// They start again, as those that are missing after a rollback do.
    pub(super) fn restore(&mut self, chance: &mut Chance) {
        assert!(self.queues, "stable starts and visitors do not wait");
        self.top_up();
        let attempt = self.current().attempt;
        self.complete(Event::Restored { attempt }, chance, 12);
    }

    /// What of stable is missing is started again.
    pub(super) fn top_up(&mut self) {
        let Some(revision) = self.stable else { return };
        while self.stable_instances.len() < self.full_stable {
            self.next += 1;
            let rollout = RolloutId(0);
            self.instances.insert(self.next, Copy { rollout, revision, life: Life::Running });
            self.stable_instances.push(instance(self.next));
        }
    }

    fn give_up(&mut self, keep: usize) {
        for gone in self.stable_instances.split_off(keep.min(self.stable_instances.len())) {
            let number = u32::from(gone.address.port());
            if let Some(copy) = self.instances.get_mut(&number) {
                copy.life = Life::Stopped;
            }
        }
    }

    /// A daemon that dies at this moment finds why instances of stable are missing.
    fn assert_written(&self) {
        let stored = self.acknowledged.as_ref().expect("what is given up was written first");
        let rollout = self.current();
        assert_eq!(stored.id, rollout.id, "what is given up was written first");
        assert!(!matches!(stored.phase, Phase::RolledBack { .. }), "{:?}", stored.phase);
    }
}
