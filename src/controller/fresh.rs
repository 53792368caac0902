//! One more instance of stable, started together with the canary and stopped with the rollout.
//!
//! An instance that has run for a month and one that was just started are not alike whatever their
//! revision: caches, pools, a heap that has grown. With `fresh_baseline` the canary is compared with an
//! instance of stable of its own age and its own load, and with nothing else; the rest of stable serves
//! the rest. Where it does not come up, or ends, the canary is compared with all of stable, and that is
//! said. Nothing is written down of it: after a restart of the daemon it is known by its mark.

use std::collections::BTreeMap;

use super::driver::Driver;
use super::journal::Kind;
use super::service::{Active, Service};
use crate::model::id::{InstanceId, RevisionId, RolloutId, ServiceName};
use crate::model::instance::{Instance, Ownership};
use crate::model::moment::Moment;
use crate::model::revision::{RevisionSpec, Source};
use crate::model::weight::Weight;
use crate::rollout::machine::Kind as RolloutKind;
use crate::rollout::phase::Phase;
use crate::runtime::{Found, RuntimeError, State};
use crate::store::records::Placed;

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Fresh {
    /// Not wanted, or given up.
    #[default]
    None,
    /// Being launched, as an instance of this revision.
    Launching(RevisionId),
    /// It runs.
    Running(RevisionId, Instance),
}

impl Fresh {
    /// Whether it is this instance.
    pub fn is(&self, instance: &InstanceId) -> bool {
        matches!(self, Self::Running(_, fresh) if fresh.id == *instance)
    }

    /// What runs of it.
    pub fn placed(&self) -> Option<Placed> {
        match self {
            Self::Running(revision, instance) => {
                Some(Placed { revision: *revision, instances: vec![instance.clone()] })
            }
            _ => None,
        }
    }
}

impl Active {
    /// Whether the canary's traffic waits for the instance that it is to be compared with: for half of
    /// the time that the canary itself has to become healthy.
    pub(super) fn waits_for_fresh(&self, service: &Service, now: Moment) -> bool {
        let patience = self.rollout.plan.probe_deadline / 2;
        if now.since(self.rollout.since) >= patience {
            return false;
        }
        match &self.fresh {
            Fresh::None => false,
            Fresh::Launching(_) => true,
            Fresh::Running(_, instance) => {
                !service.watched.get(&instance.id).is_some_and(|watched| watched.healthy)
            }
        }
    }
}

/// How it is marked, wherever it runs.
fn mark(
    service: &ServiceName,
    stable: RevisionId,
    rollout: RolloutId,
    spec: &RevisionSpec,
) -> Ownership {
    // Beyond the replicas that stable has.
    Ownership { service: service.clone(), revision: stable, rollout, replica: spec.instances() }
}

impl Driver {
    /// Launches it, where the plan wants one.
    pub(super) fn launch_fresh(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(active) = &mut service.active else { return };
        let rollout = &active.rollout;
        let wanted = rollout.plan.fresh_baseline && rollout.kind == RolloutKind::Canary;
        let Some(stable) = rollout.stable.filter(|_| wanted && active.fresh == Fresh::None) else {
            return;
        };
        let Some(revision) = service.revisions.get(&stable) else { return };
        if matches!(revision.spec.source, Source::Endpoints(_)) {
            return;
        }
        let ownership = mark(name, stable, rollout.id, &revision.spec);
        active.fresh = Fresh::Launching(stable);
        let runtime = self.runtimes.of(&revision.spec.source);
        self.executor.launch_fresh(runtime, revision.spec.clone(), ownership);
    }

    /// Finds it again after a restart, so that the canary is compared with what it was compared with.
    pub(super) fn recover_fresh(
        &mut self,
        name: &ServiceName,
        found: &BTreeMap<&'static str, Vec<Found>>,
    ) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(active) = &mut service.active else { return };
        let rollout = &active.rollout;
        let is_compared = matches!(
            rollout.phase,
            Phase::Probing
                | Phase::Smoke
                | Phase::Mirroring
                | Phase::Baking { .. }
                | Phase::Paused { .. }
        );
        let wanted = rollout.plan.fresh_baseline && rollout.kind == RolloutKind::Canary;
        let Some(stable) = rollout.stable.filter(|_| wanted && is_compared) else { return };
        let Some(revision) = service.revisions.get(&stable) else { return };
        let spec = revision.spec.clone();
        if matches!(spec.source, Source::Endpoints(_)) {
            return;
        }
        let mark = mark(name, stable, rollout.id, &spec);
        let mut known = found.get(self.runtimes.of(&spec.source).name()).into_iter().flatten();
        let instance = known.find_map(|found| match &found.state {
            State::Running { instance, .. } if found.ownership == mark => Some(instance.clone()),
            _ => None,
        });
        let Some(instance) = instance else {
            let message = "the fresh instance of stable is gone since the restart: \
                the canary is compared with all of stable";
            self.tell(name, Kind::Note, message.to_owned());
            return;
        };
        active.fresh = Fresh::Running(stable, instance.clone());
        self.fleet.place_fresh(name, stable, &instance, spec.speech());
        // It answered when the canary's traffic began, and is asked again in a moment.
        self.fleet.set_healthy(&instance.id, true);
        self.watch_instance(name, &instance, &spec);
    }

    /// It runs, or does not.
    pub(super) fn fresh_launched(
        &mut self,
        name: &ServiceName,
        rollout: RolloutId,
        launched: RevisionId,
        result: Result<Instance, RuntimeError>,
    ) {
        let active = self.services.get_mut(name).and_then(|service| service.active.as_mut());
        let wanted = active.filter(|active| {
            let is_early = matches!(active.rollout.phase, Phase::Launching | Phase::Probing);
            active.rollout.id == rollout && is_early
        });
        let revision = match (&wanted, &result) {
            (Some(active), _) => match active.fresh {
                Fresh::Launching(revision) => revision,
                _ => return,
            },
            (None, Ok(instance)) => {
                self.discard(name, launched, vec![instance.clone()]);
                return;
            }
            (None, Err(_)) => return,
        };
        match result {
            Err(error) => self.give_up_fresh(name, &error.to_string()),
            Ok(instance) => {
                if let Some(active) = wanted {
                    active.fresh = Fresh::Running(revision, instance.clone());
                }
                let spec = self.services.get(name).and_then(|s| s.revisions.get(&revision));
                let Some(spec) = spec.map(|revision| revision.spec.clone()) else { return };
                self.fleet.place_fresh(name, revision, &instance, spec.speech());
                self.watch_instance(name, &instance, &spec);
                let message = format!(
                    "started {} of revision {revision} to compare the canary with",
                    instance.id.short()
                );
                self.tell(name, Kind::Instance, message);
            }
        }
    }

    /// It does not answer any more: while it does not, nothing could be compared.
    pub(super) fn fresh_is_unhealthy(&mut self, name: &ServiceName) {
        let active = self.services.get(name).and_then(|service| service.active.as_ref());
        let is_compared = active.is_some_and(|active| {
            matches!(active.rollout.phase, Phase::Baking { .. } | Phase::Paused { .. })
        });
        if is_compared {
            self.give_up_fresh(name, "the fresh instance of stable is not healthy");
        }
    }

    /// The canary is compared with all of stable after all.
    pub(super) fn give_up_fresh(&mut self, name: &ServiceName, why: &str) {
        let active = self.services.get(name).and_then(|service| service.active.as_ref());
        let weight = match active.map(|active| &active.rollout) {
            Some(rollout)
                if matches!(rollout.phase, Phase::Baking { .. } | Phase::Paused { .. }) =>
            {
                rollout.settled
            }
            _ => Weight::ZERO,
        };
        self.end_fresh(name);
        let message = format!("{why}: the canary is compared with all of stable");
        self.tell(name, Kind::Note, message);
        if weight > Weight::ZERO {
            self.shift(name, weight);
        }
    }

    /// Stops it, if there is one.
    pub(super) fn end_fresh(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(active) = &mut service.active else { return };
        let Fresh::Running(revision, instance) = std::mem::take(&mut active.fresh) else { return };
        if let Some(watched) = service.watched.remove(&instance.id) {
            watched.cancel.cancel();
        }
        let Some(revision) = service.revisions.get(&revision) else { return };
        let runtime = self.runtimes.of(&revision.spec.source);
        let times = (active.rollout.plan.drain_deadline, revision.spec.stop_grace);
        let endpoints = self.fleet.remove_fresh(name);
        self.executor.release(runtime, endpoints, instance.id, times);
    }
}
