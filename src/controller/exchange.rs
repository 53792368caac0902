//! What strategies do to stable's instances: those that are given up for the canary's, those that come
//! back, and the visitors who wait meanwhile.
//!
//! What was given up leaves the record at once and finishes its requests aside. So stable may have
//! fewer instances than its revision says; the keeper starts what is missing, one after the other, as
//! soon as no rollout wants the room.

use super::driver::Driver;
use super::journal::Kind;
use super::service::{Relaunch, Service};
use crate::edge::rules::Maintenance;
use crate::model::id::{RevisionId, ServiceName};
use crate::model::moment::Moment;
use crate::rollout::event::Event;
use crate::rollout::phase::Phase;

impl Service {
    /// How many instances stable is to have.
    fn wanted(&self) -> usize {
        self.stable_spec().map_or(0, |spec| spec.instances() as usize)
    }

    /// Whether what stable lacks may be started now: not while a rollout uses its room.
    fn may_fill(&self) -> bool {
        let active = self.active.as_ref().map(|active| &active.rollout);
        self.leaving == 0
            && active.is_none_or(|rollout| {
                let exchanges = rollout.rolls() || rollout.recreates();
                !exchanges || matches!(rollout.phase, Phase::Restoring { .. })
            })
    }

    /// How its visitors are kept from it, if they are: what a person said comes first.
    pub(super) fn kept_out(&self) -> Option<Maintenance> {
        let said = self.record.maintenance.as_ref().map(super::maintenance::meaning);
        let plan = self.active.as_ref().map(|active| &active.rollout.plan);
        let held = plan.filter(|_| self.queues);
        said.or(held.map(|plan| Maintenance { queue: plan.queue, most: plan.queue_limit }))
    }
}

impl Driver {
    /// Has visitors wait for a while each, or lets them in; `at_once`, or with the next publish.
    pub(super) fn queue(&mut self, name: &ServiceName, queues: bool, at_once: bool) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.queues = queues;
        self.fleet.maintain(name, service.kept_out());
        if at_once {
            self.fleet.publish();
        }
    }

    /// Gives up all of stable.
    pub(super) fn clear(&mut self, name: &ServiceName) {
        self.give_up(name, 0);
    }

    /// Gives up as large a part of stable as the canary has taken, but never all of it.
    pub(super) fn release(&mut self, name: &ServiceName, taken: u32, of: u32) {
        let Some(service) = self.services.get(name) else { return };
        let all = service.wanted();
        let gone = all.saturating_mul(taken as usize) / (of as usize).max(1);
        self.give_up(name, all.saturating_sub(gone).max(1));
    }

    /// Stable goes on with its first `keep` instances. The others finish their requests and stop.
    fn give_up(&mut self, name: &ServiceName, keep: usize) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(active) = &service.active else { return };
        let (rollout, attempt) = (active.rollout.id, active.rollout.attempt);
        let drain = active.rollout.plan.drain_deadline;
        let Some(stable) = &mut service.record.stable else { return };
        let revision = stable.revision;
        let gone = stable.instances.split_off(keep.min(stable.instances.len()));
        service.relaunches.retain(|replica, _| (*replica as usize) < keep);
        for instance in &gone {
            if let Some(watched) = service.watched.remove(&instance.id) {
                watched.cancel.cancel();
            }
        }
        service.leaving += 1;
        let endpoints = self.fleet.give_up(name, revision, keep);
        if let [first, rest @ ..] = &gone[..] {
            let more = if rest.is_empty() { String::new() } else { format!(" and {}", rest.len()) };
            let message = format!("{}{more} of revision {revision} makes room", first.id.short());
            self.tell(name, Kind::Instance, message);
        }
        let Some(service) = self.services.get(name) else { return };
        let (runtime, grace) = self.launcher(service, revision);
        let asked = (name.clone(), rollout, attempt);
        self.executor.leave(asked, runtime, revision, endpoints, gone, (drain, grace));
        self.save(name);
    }

    /// What was given up is gone.
    pub(super) fn left(&mut self, name: &ServiceName, revision: RevisionId) {
        self.fleet.remove_drained(name, revision);
        if let Some(service) = self.services.get_mut(name) {
            service.leaving = service.leaving.saturating_sub(1);
            let active = service.active.as_ref();
            let still = active.is_some_and(|active| active.rollout.phase.launches());
            if service.leaving == 0 && std::mem::take(&mut service.launch_waits) && still {
                self.launch(name);
            }
        }
    }

    /// Launches the canary's next instances when what makes room for them has stopped.
    pub(super) fn launch_in_room(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.launch_waits = service.leaving > 0;
        if !service.launch_waits {
            self.launch(name);
        }
    }

    /// Starts what stable lacks, the next one when the one before runs.
    pub(super) fn fill(&mut self, name: &ServiceName, now: Moment) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(stable) = &service.record.stable else { return };
        let have = stable.instances.len();
        if have >= service.wanted() || !service.may_fill() {
            return;
        }
        let Ok(replica) = u32::try_from(have) else { return };
        let missing = Relaunch { failures: 0, not_before: now, under_way: false };
        service.relaunches.entry(replica).or_insert(missing);
    }

    /// Stable is back when it lacks nothing and all of it is healthy.
    pub(super) fn look_for_restored(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        let Some(active) = &service.active else { return };
        let (Phase::Restoring { .. }, Some(stable)) =
            (&active.rollout.phase, &service.record.stable)
        else {
            return;
        };
        let healthy = |id| service.watched.get(id).is_some_and(|watched| watched.healthy);
        let is_back = stable.instances.len() >= service.wanted()
            && stable.instances.iter().all(|instance| healthy(&instance.id));
        if is_back {
            let attempt = active.rollout.attempt;
            self.step(name, Event::Restored { attempt });
        }
    }
}
