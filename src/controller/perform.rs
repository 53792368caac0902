//! Effects, performed in order; and what follows from entering a phase.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::handle::Refused;
use super::journal::{Happening, Kind};
use super::service::{Relaunch, Service, Waiting};
use crate::model::id::{RevisionId, RolloutId, ServiceName};
use crate::model::instance::{Instance, Ownership};
use crate::model::weight::Side;
use crate::rollout::effect::Effect;
use crate::rollout::event::{Attempt, Event};
use crate::rollout::phase::{Cause, PauseReason, Phase};
use crate::runtime::Runtime;
use crate::store::records::{Placed, RolloutEntry, Warm};
use crate::store::{Change, StoreError};
use crate::telemetry::metrics;

/// How long after a failed write the next is tried: soon after room was made on the disk.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// Past rollouts remembered per service.
const HISTORY: usize = 100;

impl Driver {
    /// Performs effects. After a checkpoint that must stand, the rest waits for the store's answer.
    pub(super) fn perform(&mut self, name: &ServiceName, effects: Vec<Effect>) {
        let mut effects = effects.into_iter();
        while let Some(effect) = effects.next() {
            let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) else {
                return;
            };
            let (rollout, attempt) = (active.rollout.id, active.rollout.attempt);
            match effect {
                Effect::Checkpoint { must } => {
                    if must {
                        active.pending = Some((attempt, effects.by_ref().collect()));
                    }
                    self.write(name, rollout, attempt);
                    if must {
                        return;
                    }
                }
                Effect::Launch => self.launch_in_room(name),
                Effect::Probe => {
                    self.place_canary(name);
                    self.fleet.publish();
                    self.look_for_ready(name);
                }
                Effect::Smoke => self.smoke(name),
                Effect::Mirror => self.mirror(name),
                Effect::Queue(queues) => {
                    let next = effects.as_slice().first();
                    let follows = matches!(next, Some(Effect::Shift(_) | Effect::Switch));
                    self.queue(name, queues, queues || !follows);
                }
                Effect::Clear => self.clear(name),
                Effect::Release { taken, of } => self.release(name, taken, of),
                // The keeper does, one after the other.
                Effect::Restore => {}
                Effect::Shift(weight) => self.shift(name, weight),
                Effect::Drain => self.drain(name),
                Effect::Stop => self.stop(name),
                Effect::Switch => {
                    self.switch(name);
                    self.step(name, Event::Switched { attempt });
                }
            }
        }
    }

    /// Tells the rollout what became of a checkpoint. What waited for it is done only if the rollout
    /// still wants it: it may have gone back in the meantime.
    pub(super) fn saved(
        &mut self,
        name: &ServiceName,
        attempt: u32,
        result: Result<(), StoreError>,
    ) {
        let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) else {
            return;
        };
        let asked = active.take_waiting(attempt);
        let waiting = active.pending.take_if(|(waiting, _)| *waiting == attempt);
        match result {
            Ok(()) => {
                if self.step(name, Event::Saved { attempt })
                    && let Some((_, effects)) = waiting
                {
                    self.perform(name, effects);
                }
            }
            Err(error) => {
                self.step(name, Event::Unsaved { attempt, sentence: error.to_string() });
            }
        }
        self.answer(name, asked);
    }

    /// Answers those who waited for a checkpoint. Refuses where the rollout stands still or goes back
    /// because it could not be written.
    pub(super) fn answer(&self, name: &ServiceName, waiting: Vec<Waiting>) {
        let Some(service) = self.services.get(name) else { return };
        let refused = service.active.as_ref().and_then(|active| match &active.rollout.phase {
            Phase::Paused { reason: PauseReason::Unsaved { sentence }, .. }
            | Phase::RollingBack { cause: Cause::LaunchFailed { sentence }, .. } => {
                Some(Refused::Unavailable(sentence.clone()))
            }
            _ => None,
        });
        for waiting in waiting {
            // An asker who went away is no reason not to have done it.
            match waiting {
                Waiting::Rollout(answer, accepted) => {
                    let _ = answer.send(refused.clone().map_or(Ok(accepted), Err));
                }
                Waiting::Command(answer) => {
                    let status = || Ok(self.status_of(service, self.now()));
                    let _ = answer.send(refused.clone().map_or_else(status, Err));
                }
            }
        }
    }

    pub(super) fn launch(&mut self, name: &ServiceName) {
        if self.waits_outside(name) {
            return;
        }
        let before = self.hook_before(name).filter(|_| self.begins(name));
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(active) = &mut service.active else { return };
        let Some(revision) = service.revisions.get(&active.rollout.canary) else { return };
        let ownership = Ownership {
            service: name.clone(),
            revision: revision.id,
            rollout: active.rollout.id,
            replica: 0,
        };
        let cancel = CancellationToken::new();
        active.launch = Some(cancel.clone());
        let runtime = self.runtimes.of(&revision.spec.source);
        let spec = revision.spec.clone();
        let rollout = &active.rollout;
        let all = if rollout.rolls() { rollout.wanted() } else { spec.instances() };
        let there = u32::try_from(rollout.instances.len()).unwrap_or(all);
        let attempt = rollout.attempt;
        self.executor.launch(runtime, spec, ownership, attempt, cancel, (before, there..all));
        self.launch_fresh(name);
    }

    /// Whether the canary's first instances are being launched.
    fn begins(&self, name: &ServiceName) -> bool {
        let active = self.services.get(name).and_then(|service| service.active.as_ref());
        active.is_some_and(|active| active.rollout.phase == Phase::Launching)
    }

    /// Puts the canary's instances into the fleet, at the weight it has, and begins to probe them.
    pub(super) fn place_canary(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        let Some(active) = &service.active else { return };
        let Some(revision) = service.revisions.get(&active.rollout.canary) else { return };
        let (id, spec) = (revision.id, revision.spec.clone());
        let instances = active.rollout.instances.clone();
        self.fleet.place(name, Side::Canary, id, &instances, spec.speech());
        for instance in instances {
            self.watch_instance(name, &instance, &spec);
        }
    }

    pub(super) fn restart_rates(&mut self, name: &ServiceName) {
        if let Some(service) = self.services.get_mut(name) {
            service.rates = Default::default();
        }
    }

    fn drain(&mut self, name: &ServiceName) {
        let Some(active) = self.services.get(name).and_then(|s| s.active.as_ref()) else { return };
        if let Some(launch) = &active.launch {
            launch.cancel();
        }
        let rollout = &active.rollout;
        let endpoints = self.fleet.endpoints(name, rollout.canary);
        let deadline = rollout.plan.drain_deadline;
        self.executor.drain(name.clone(), rollout.id, rollout.attempt, endpoints, deadline);
    }

    fn stop(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(active) = &service.active else { return };
        let Some(revision) = service.revisions.get(&active.rollout.canary) else { return };
        let runtime = self.runtimes.of(&revision.spec.source);
        let grace = revision.spec.stop_grace;
        let (instances, id) = (active.rollout.instances.clone(), active.rollout.id);
        let attempt = active.rollout.attempt;
        let revision = revision.id;
        // A warm one that was to come back and could not.
        service.record.warm.take_if(|warm| warm.placed.revision == revision);
        for instance in &instances {
            if let Some(watched) = service.watched.remove(&instance.id) {
                watched.cancel.cancel();
            }
        }
        self.fleet.remove(name, revision);
        self.executor.stop(name.clone(), id, attempt, runtime, instances, grace);
    }

    /// What launched a revision, and how long its instances have to end. Not what is configured now:
    /// that may be another runtime since.
    pub(super) fn launcher(
        &self,
        service: &Service,
        revision: RevisionId,
    ) -> (Arc<dyn Runtime>, Duration) {
        let spec = service.revisions.get(&revision).map(|revision| &revision.spec);
        let spec = spec.unwrap_or(&service.config.template);
        (self.runtimes.of(&spec.source), spec.stop_grace)
    }

    /// Stops instances that nobody wants any more, and clears what they left.
    pub(super) fn discard(
        &mut self,
        name: &ServiceName,
        revision: RevisionId,
        instances: Vec<Instance>,
    ) {
        let Some(service) = self.services.get(name) else { return };
        let (runtime, grace) = self.launcher(service, revision);
        self.executor.stop(name.clone(), RolloutId(0), 0, runtime, instances, grace);
    }

    fn switch(&mut self, name: &ServiceName) {
        self.fleet.switch(name);
        self.restart_rates(name);
        let (now, not_before) = (jiff::Timestamp::now().as_millisecond(), self.now());
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(active) = &service.active else { return };
        let canary =
            Placed { revision: active.rollout.canary, instances: active.rollout.instances.clone() };
        let keep = active.rollout.plan.keep_warm;
        let confirm = super::gates::confirm(&active.rollout);
        let former = service.record.stable.replace(canary).filter(|f| !f.instances.is_empty());
        // What ended while it was warm is wanted back.
        let stable = service.record.stable.iter().flat_map(|placed| &placed.instances);
        let gone = stable.zip(0..).filter(|(i, _)| !service.watched.contains_key(&i.id));
        let relaunch = |replica| (replica, Relaunch { failures: 0, not_before, under_way: false });
        service.relaunches = gone.map(|(_, replica)| relaunch(replica)).collect();
        service.since = now;
        // The one that was warm until now gives up its place; the one that comes back is stable.
        let stable = service.record.stable.as_ref().map(|placed| placed.revision);
        let before = service.record.warm.take().filter(|w| Some(w.placed.revision) != stable);
        let until = u64::try_from(now).unwrap_or(0)
            + u64::try_from(keep.as_millis()).unwrap_or(u64::MAX / 2);
        // What may come back by itself is there until then, and a little longer.
        // What is left of one whose instances were given up cannot bear its traffic.
        let is_whole = |placed: &Placed| {
            let spec = service.revisions.get(&placed.revision).map(|revision| &revision.spec);
            spec.is_none_or(|spec| placed.instances.len() >= spec.instances() as usize)
        };
        let until = if former.as_ref().is_none_or(is_whole) { until } else { 0 };
        let until = confirm.as_ref().map_or(until, |confirm| until.max(confirm.until + 60_000));
        service.record.confirm = confirm;
        service.record.warm = former.map(|placed| Warm { placed, until });
        if let Some(before) = before {
            self.retire(name, before.placed);
        }
    }

    /// Tells of the phase that was entered; ends the rollout when it is over.
    pub(super) fn entered(&mut self, name: &ServiceName) {
        let millis = jiff::Timestamp::now().as_millisecond();
        let Some(service) = self.services.get_mut(name) else { return };
        if let Some(active) = &mut service.active {
            active.since = millis;
        }
        let Some(active) = &service.active else { return };
        let rollout = &active.rollout;
        let message = super::report::sentence(service, rollout);
        let phase = Some((rollout.phase.as_str(), rollout.weight.percent()));
        let repeated = matches!(rollout.phase, Phase::RollingBack { drained: true, .. });
        let served = repeated || rollout.phase == Phase::Promoted;
        if repeated {
            self.tell_shielded(name);
            return;
        }
        let ends = matches!(rollout.phase, Phase::RollingBack { .. } | Phase::RolledBack { .. })
            || rollout.phase == Phase::Promoted;
        let happening = Happening {
            kind: Kind::Phase,
            service: Some(name),
            rollout: Some(rollout.id),
            phase,
            message,
        };
        let recorded = self.journal.tell(happening);
        if let Some(active) = &mut service.active {
            active.remember(recorded);
        }
        if served {
            self.tell_shielded(name);
        }
        self.end_mirror(name);
        self.ask_outside(name);
        if ends {
            self.end_fresh(name);
        }
    }

    /// Says what the shield spared visitors, once the canary has answered its last request as one.
    fn tell_shielded(&mut self, name: &ServiceName) {
        let total = self.fleet.shielded(name);
        let Some(active) = self.services.get(name).and_then(|s| s.active.as_ref()) else { return };
        let rollout = &active.rollout;
        let told = super::report::shielded(rollout.canary, total.since(active.shielded));
        if let Some(message) = told {
            self.tell(name, Kind::Note, message);
        }
    }

    /// The changes that write a service; a rollout that is over moves to the history with them.
    pub(super) fn changes(&mut self, name: &ServiceName) -> Vec<Change> {
        let Some(service) = self.services.get_mut(name) else { return Vec::new() };
        let over = service.active.as_ref().is_some_and(|a| a.rollout.phase.is_over());
        let (mut changes, mut ended) = (Vec::new(), None);
        if over && let Some(mut active) = service.active.take() {
            service.asked.extend(active.take_waiting(Attempt::MAX));
            active.end_recording();
            let entry = RolloutEntry {
                checkpoint: active.checkpoint(),
                events: active.events,
                verdict: active.verdict,
                ended: u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0),
            };
            let outcome = super::report::outcome_of(&entry.checkpoint.phase).unwrap_or("");
            let labels = [("service", name.as_str()), ("result", outcome)];
            metrics::count(&metrics::ROLLOUTS, &labels);
            service.since = jiff::Timestamp::now().as_millisecond();
            changes.push(Change::History(Box::new(entry.clone())));
            let hook = super::hooks::after(&entry.checkpoint);
            service.record.hooks.extend(hook.clone());
            ended = hook;
            service.history.push(entry);
            if service.history.len() > HISTORY {
                let oldest = service.history.remove(0);
                changes.push(Change::DropHistory(oldest.checkpoint.id));
            }
        }
        if service.unsaved.is_some()
            && !over
            && let Some(last) = service.history.last()
        {
            changes.push(Change::History(Box::new(last.clone())));
        }
        changes.extend(service.changes());
        if let Some(hook) = ended {
            self.run_pending(name, hook);
        }
        changes
    }

    /// Remembers that a service's last write failed. A rollout under way writes again by itself; after
    /// its end the keeper does.
    pub(super) fn note_unsaved(&mut self, name: &ServiceName, failed: bool) {
        let again = self.now().after(WRITE_AGAIN);
        if let Some(service) = self.services.get_mut(name) {
            service.unsaved = failed.then_some(again);
        }
    }

    /// Writes a service down; nothing waits for it.
    pub(super) fn save(&mut self, name: &ServiceName) {
        self.write(name, RolloutId(0), 0);
    }

    fn write(&mut self, name: &ServiceName, rollout: RolloutId, attempt: Attempt) {
        let changes = self.changes(name);
        if let Some(service) = self.services.get_mut(name) {
            service.writes += 1;
        }
        let written = self.writer.write(changes);
        self.executor.saved(name.clone(), rollout, attempt, written);
    }

    /// A write of a service was answered. Whoever asked for a rollout that is over hears of its end
    /// when that is written, or when it is known that it is not.
    pub(super) fn written(&mut self, name: &ServiceName, result: &Result<(), StoreError>) {
        self.store_note = result.as_ref().err().map(ToString::to_string);
        self.note_unsaved(name, result.is_err());
        let Some(service) = self.services.get_mut(name) else { return };
        service.writes = service.writes.saturating_sub(1);
        if service.asked.is_empty() || (service.writes > 0 && result.is_ok()) {
            return;
        }
        let asked = std::mem::take(&mut service.asked);
        let stable = service.record.stable.as_ref().map(|placed| placed.revision);
        if let (Err(error), Some(stable)) = (result, stable) {
            let message = format!(
                "revision {stable} has the traffic, but a restart would not know it: {error}"
            );
            self.tell(name, Kind::Note, message);
        }
        self.answer(name, asked);
    }
}
