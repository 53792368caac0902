//! A world for the machine to act on: instances, a split, a disk, and a controller that performs
//! effects by the rules. It checks at every act that the act was allowed.

use std::collections::{BTreeMap, VecDeque};

use super::chance::{Chance, plan};
use super::invariants::{Before, allowed};
use super::*;
use crate::rollout::event::Attempt;

/// How an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    /// It ended by itself.
    Dead,
    /// We stopped it.
    Stopped,
}

#[derive(Debug)]
pub(super) struct Copy {
    pub(super) rollout: RolloutId,
    pub(super) revision: RevisionId,
    pub(super) life: Life,
}

/// A checkpoint on its way to the disk, and what waits for it.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) rollout: RolloutId,
    pub(super) attempt: Attempt,
    pub(super) checkpoint: Checkpoint,
    pub(super) tail: Vec<Effect>,
}

/// A launch that was cancelled or goes on; it creates its instances when it completes.
#[derive(Debug)]
pub(super) struct Launch {
    attempt: Attempt,
    cancelled: bool,
}

/// The world and its controller.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Moment,
    pub(super) rollout: Option<Rollout>,
    /// Completions on their way.
    pub(super) completions: Vec<Event>,
    /// The last thing that was delivered, to be delivered twice.
    pub(super) delivered: Option<Event>,
    pub(super) ended: u32,
    pub(super) promoted: u32,
    /// Returns that were done and not written when the daemon died.
    pub(super) forgotten: u32,
    pub(super) instances: BTreeMap<u32, Copy>,
    pub(super) stable: Option<RevisionId>,
    /// The instances that stable's traffic goes to.
    pub(super) stable_instances: Vec<Instance>,
    /// How many there are of them, when none was given up.
    pub(super) full_stable: usize,
    /// The stable before that, and its instances.
    pub(super) former: Option<(RevisionId, Vec<Instance>)>,
    pub(super) warm: Option<RevisionId>,
    pub(super) weight: Weight,
    pub(super) drain: Option<Moment>,
    pub(super) is_drained: bool,
    pub(super) switched: bool,
    pub(super) is_stop_asked: bool,
    /// Visitors wait.
    pub(super) queues: bool,
    pub(super) launch: Option<Launch>,
    pub(super) writes: VecDeque<Write>,
    pub(super) disk: Option<Checkpoint>,
    /// What the disk said it has.
    pub(super) acknowledged: Option<Checkpoint>,
    /// What the disk has of stable and warm while a return that was done is not written.
    pub(super) unwritten: Option<(Option<RevisionId>, Vec<Instance>, Option<RevisionId>)>,
    pub(super) next: u32,
    pub(super) revisions: u32,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: Moment(0),
            rollout: None,
            completions: Vec::new(),
            delivered: None,
            ended: 0,
            promoted: 0,
            forgotten: 0,
            instances: BTreeMap::new(),
            stable: None,
            stable_instances: Vec::new(),
            full_stable: 0,
            former: None,
            warm: None,
            weight: Weight::ZERO,
            drain: None,
            is_drained: false,
            switched: false,
            is_stop_asked: false,
            queues: false,
            launch: None,
            writes: VecDeque::new(),
            disk: None,
            acknowledged: None,
            unwritten: None,
            next: 0,
            revisions: 0,
        }
    }

    /// Begins the next rollout: the first revision, a canary, or a return to a warm one.
    pub(super) fn deploy(&mut self, chance: &mut Chance) {
        // What stable ran on before the last switch is of no use to this rollout.
        self.former = None;
        let returns = self.warm.filter(|_| chance.one_in(3));
        let canary = returns.unwrap_or_else(|| {
            self.revisions += 1;
            RevisionId(self.revisions)
        });
        if returns.is_none() && chance.one_in(2) {
            self.retire_warm();
        }
        let is_direct = returns.is_some() || (self.stable.is_none() && chance.one_in(2));
        let instances = match returns {
            Some(revision) => self.running(revision),
            None => Vec::new(),
        };
        // A return to what is known to be healthy is done before it is written.
        let at_once = !instances.is_empty() && chance.one_in(2);
        self.next += 1;
        let id = RolloutId(u64::from(self.next));
        for copy in self.instances.values_mut() {
            if Some(copy.revision) == returns {
                copy.rollout = id;
            }
        }
        let checkpoint = Checkpoint {
            id,
            service: ServiceName::new("web").expect("a name"),
            kind: if is_direct || chance.one_in(8) { Kind::Direct } else { Kind::Canary },
            stable: self.stable,
            canary,
            plan: plan(chance),
            phase: if at_once { Phase::Promoting } else { Phase::Launching },
            instances,
            memory: None,
            started: 0,
        };
        self.writes.clear();
        self.leave_rollout();
        if at_once {
            self.unwritten = Some((self.stable, self.stable_instances.clone(), self.warm));
        }
        let (rollout, effects) = Rollout::begin(checkpoint, self.now);
        self.rollout = Some(rollout);
        self.perform(effects, chance);
    }

    /// Hands an event to the machine and does what it says.
    pub(super) fn step(&mut self, event: Event, chance: &mut Chance) -> bool {
        let Some(rollout) = &mut self.rollout else { return false };
        let before = Before::of(rollout);
        let told = event.clone();
        let step = rollout.step(event, self.now);
        before.check_rise(rollout, &told, self.now);
        self.perform(step.effects, chance);
        !step.ignored
    }

    pub(super) fn perform(&mut self, effects: Vec<Effect>, chance: &mut Chance) {
        let mut effects = effects.into_iter();
        while let Some(effect) = effects.next() {
            match effect {
                Effect::Checkpoint { must } => {
                    let rollout = self.current();
                    let checkpoint = Checkpoint::of(rollout, None, 0);
                    let (rollout, attempt) = (rollout.id, rollout.attempt);
                    let tail = if must { effects.by_ref().collect() } else { Vec::new() };
                    self.writes.push_back(Write { rollout, attempt, checkpoint, tail });
                }
                Effect::Launch => self.begin_launch(chance),
                Effect::Probe => {
                    let attempt = self.current().attempt;
                    self.complete(Event::Ready { attempt }, chance, 12);
                }
                Effect::Smoke => {
                    // Those that are added later are new, the others are not.
                    let grows = matches!(self.current().phase, Phase::Growing { .. });
                    assert!(grows || self.weight == Weight::ZERO, "what is smoked has visitors");
                    let attempt = self.current().attempt;
                    let failure = chance.one_in(6).then(|| "GET / answered 500".to_owned());
                    self.complete(Event::Smoked { attempt, failure }, chance, 12);
                }
                Effect::Mirror => {
                    let rollout = self.current();
                    assert_eq!(rollout.phase, Phase::Mirroring, "copies are sent for their phase");
                    assert_eq!(self.weight, Weight::ZERO, "what is mirrored has visitors");
                    assert!(self.serves(&rollout.instances), "copies to what was stopped");
                    assert!(!self.queues && !self.switched, "nobody answers what is copied");
                }
                Effect::Queue(queues) => self.queues = queues,
                Effect::Clear => self.clear(chance),
                Effect::Release { taken, of } => self.release(taken, of),
                Effect::Restore => self.restore(chance),
                Effect::Shift(weight) => self.shift(weight),
                Effect::Drain => {
                    assert!(!self.switched, "what is drained has become stable");
                    assert_eq!(self.weight, Weight::ZERO, "what is drained has weight");
                    self.drain = Some(self.now);
                    self.is_drained = false;
                    let attempt = self.current().attempt;
                    self.complete(Event::Drained { attempt }, chance, 12);
                }
                Effect::Stop => self.stop(chance),
                Effect::Switch => self.switch(chance),
            }
        }
    }

    /// Most work completes; one in `never` hangs.
    pub(super) fn complete(&mut self, event: Event, chance: &mut Chance, never: u64) {
        if !chance.one_in(never) {
            self.completions.push(event);
        }
    }

    fn begin_launch(&mut self, chance: &mut Chance) {
        let attempt = self.current().attempt;
        self.launch = Some(Launch { attempt, cancelled: false });
        if chance.one_in(2) {
            self.finish_launch(chance);
        }
    }

    /// A launch completes, which may be long after anybody cares. Idempotent by ownership.
    pub(super) fn finish_launch(&mut self, chance: &mut Chance) {
        let Some(launch) = self.launch.take() else { return };
        let rollout = self.current();
        let (id, revision) = (rollout.id, rollout.canary);
        let mut instances = self.running(revision);
        let (wanted, there) = (rollout.wanted() as usize, rollout.instances.clone());
        while instances.len() < wanted {
            self.next += 1;
            let life = if launch.cancelled { Life::Stopped } else { Life::Running };
            self.instances.insert(self.next, Copy { rollout: id, revision, life });
            instances.push(instance(self.next));
        }
        instances.retain(|instance| !there.contains(instance));
        let attempt = launch.attempt;
        if chance.one_in(8) {
            let sentence = "no such image".to_owned();
            self.completions.push(Event::LaunchFailed { attempt, sentence });
        } else {
            self.complete(Event::Launched { attempt, instances }, chance, 12);
        }
    }

    fn shift(&mut self, weight: Weight) {
        let rollout = self.current();
        if weight > self.weight {
            let stored = self.acknowledged.as_ref();
            let checkpoint = stored.expect("a shift upwards was written first");
            assert_eq!(checkpoint.id, rollout.id, "a shift upwards was written first");
            assert!(
                weight <= allowed(checkpoint),
                "{weight} is more than what is written: {:?}",
                checkpoint.phase
            );
            assert!(!self.switched, "stable was shifted");
            assert!(self.serves(&rollout.instances), "weight to what was stopped");
        }
        self.weight = weight;
        assert_eq!(weight.basis_points() + weight.complement().basis_points(), Weight::WHOLE);
    }

    fn stop(&mut self, chance: &mut Chance) {
        let rollout = self.current();
        let (id, attempt) = (rollout.id, rollout.attempt);
        let patience = rollout.plan.drain_deadline;
        assert!(!self.switched, "what is stopped has become stable");
        assert_eq!(self.weight, Weight::ZERO, "what is stopped has weight");
        let begun = self.drain.expect("what is stopped was drained");
        assert!(
            self.is_drained || self.now.since(begun) >= patience,
            "what is stopped was neither drained nor late"
        );
        if let Some(launch) = &mut self.launch {
            launch.cancelled = true;
        }
        self.is_stop_asked = true;
        if chance.one_in(12) {
            return; // An engine that does not answer; recovery clears it.
        }
        for copy in self.instances.values_mut().filter(|copy| copy.rollout == id) {
            copy.life = Life::Stopped;
        }
        self.complete(Event::Stopped { attempt }, chance, 12);
    }

    fn switch(&mut self, chance: &mut Chance) {
        let rollout = self.current();
        let (canary, attempt) = (rollout.canary, rollout.attempt);
        if self.unwritten.is_none() {
            let stored = self.acknowledged.as_ref().expect("a switch was written first");
            assert_eq!((stored.id, &stored.phase), (rollout.id, &Phase::Promoting));
        } else {
            assert_eq!(rollout.kind, Kind::Direct, "only a return is not written first");
        }
        assert!(self.drain.is_none(), "what becomes stable is being drained");
        assert!(self.serves(&rollout.instances), "what becomes stable was stopped");
        let instances = rollout.instances.clone();
        if self.stable != Some(canary) {
            self.warm = self.stable;
            let before = std::mem::replace(&mut self.stable_instances, instances);
            self.former = self.stable.map(|revision| (revision, before));
        }
        self.stable = Some(canary);
        self.weight = Weight::ZERO;
        self.switched = true;
        self.complete(Event::Switched { attempt }, chance, 6);
    }

    /// The disk answers the oldest write, well or badly. A failed write may be on the disk all the
    /// same.
    pub(super) fn answer_write(&mut self, fails: bool, chance: &mut Chance) {
        let Some(write) = self.writes.pop_front() else { return };
        let Write { rollout, attempt, checkpoint, tail } = write;
        if fails {
            if chance.one_in(5) {
                self.disk = Some(checkpoint);
                self.unwritten = None;
            }
            if self.rollout.as_ref().is_some_and(|current| current.id == rollout) {
                self.step(Event::Unsaved { attempt, sentence: "disk full".to_owned() }, chance);
            }
            return;
        }
        self.disk = Some(checkpoint.clone());
        self.acknowledged = Some(checkpoint);
        self.unwritten = None;
        if self.rollout.as_ref().is_some_and(|current| current.id == rollout)
            && self.step(Event::Saved { attempt }, chance)
        {
            self.perform(tail, chance);
            assert!(!self.step(Event::Saved { attempt }, chance), "the tail is done twice");
        }
    }

    /// Delivers a completion.
    pub(super) fn deliver(&mut self, at: usize, chance: &mut Chance) {
        if self.completions.is_empty() {
            return;
        }
        let at = at % self.completions.len();
        let event = self.completions.swap_remove(at);
        if let Event::Drained { .. } = event {
            self.is_drained = true;
        }
        self.delivered = Some(event.clone());
        self.step(event, chance);
    }

    /// An instance of the canary ends by itself.
    pub(super) fn lose(&mut self, chance: &mut Chance) {
        let Some(rollout) = &self.rollout else { return };
        let (id, canary) = (rollout.id, rollout.canary);
        if rollout.phase.is_over() {
            return;
        }
        let mut lost = false;
        for copy in self.instances.values_mut() {
            if copy.rollout == id && copy.revision == canary && copy.life == Life::Running {
                copy.life = Life::Dead;
                lost = true;
            }
        }
        if lost {
            self.step(Event::Lost { sentence: "exited with code 1".to_owned() }, chance);
        }
    }

    /// What a rollout leaves in the controller's memory is forgotten with it.
    pub(super) fn leave_rollout(&mut self) {
        // Its task ends with the process, or was cancelled by Stop; either way nothing comes.
        self.launch = None;
        self.completions.clear();
        self.delivered = None;
        self.weight = Weight::ZERO;
        self.drain = None;
        self.is_drained = false;
        self.switched = false;
        self.is_stop_asked = false;
        self.queues = false;
    }

    /// Recovery: what runs and belongs to nobody is stopped.
    pub(super) fn sweep_orphans(&mut self, checkpoint: Option<&Checkpoint>) {
        let canary = checkpoint.filter(|found| !found.phase.is_over()).map(|found| found.canary);
        for copy in self.instances.values_mut() {
            let kept = [self.stable, self.warm, canary].contains(&Some(copy.revision));
            if !kept && copy.life == Life::Running {
                copy.life = Life::Stopped;
            }
        }
    }

    /// The former stable's time is up. Only when the rollout that replaced it is done.
    pub(super) fn retire_warm(&mut self) {
        let may = self.rollout.as_ref().is_none_or(Rollout::is_done);
        if let Some(warm) = self.warm.filter(|_| may) {
            self.warm = None;
            for copy in self.instances.values_mut().filter(|copy| copy.revision == warm) {
                copy.life = Life::Stopped;
            }
        }
    }

    /// A rollout that is done is forgotten; says whether there is room for the next.
    pub(super) fn settle(&mut self) -> bool {
        let Some(rollout) = &self.rollout else { return true };
        if !rollout.is_done() {
            return false;
        }
        self.ended += 1;
        self.promoted += u32::from(rollout.phase == Phase::Promoted);
        if rollout.phase == Phase::Promoted {
            assert_eq!(self.stable, Some(rollout.canary), "promoted and not stable");
        } else {
            assert_eq!(self.stable, rollout.stable, "rolled back and not stable");
            let is_left = |copy: &Copy| copy.rollout == rollout.id && copy.life == Life::Running;
            assert!(
                self.is_stop_asked || !self.instances.values().any(is_left),
                "nobody stopped the canary"
            );
            if self.warm == Some(rollout.canary) {
                self.warm = None;
            }
        }
        self.leave_rollout();
        // An engine that did not answer leaves instances behind; clearing them is recovery's.
        self.sweep_orphans(None);
        self.rollout = None;
        // What was given up for a canary that went back is started again.
        self.top_up();
        self.full_stable = self.stable_instances.len();
        true
    }

    /// What the stable before a switch ran on.
    pub(super) fn former(&self, stable: Option<RevisionId>) -> Vec<Instance> {
        if self.former.as_ref().is_some_and(|(revision, _)| Some(*revision) == stable) {
            return self.former.as_ref().map(|(_, list)| list.clone()).unwrap_or_default();
        }
        if stable.is_none() { Vec::new() } else { self.stable_instances.clone() }
    }

    pub(super) fn running(&self, revision: RevisionId) -> Vec<Instance> {
        let of = |(number, copy): (&u32, &Copy)| {
            (copy.revision == revision && copy.life == Life::Running).then(|| instance(*number))
        };
        self.instances.iter().filter_map(of).collect()
    }

    pub(super) fn current(&self) -> &Rollout {
        self.rollout.as_ref().expect("effects come from a rollout")
    }
}

pub(super) fn instance(number: u32) -> Instance {
    let port = u16::try_from(number).expect("a seed has not that many instances");
    Instance {
        id: InstanceId::new(&format!("web-{number}")),
        address: ([127, 0, 0, 1], port).into(),
    }
}
