//! One more instance of stable, started together with the canary and stopped with the rollout.
//!
//! An instance that has run for a month and one that was just started are not alike whatever their
//! revision: caches, pools, a heap that has grown. With `fresh_baseline` the canary is compared with an
//! instance of stable of its own age and its own load, and with nothing else; the rest of stable serves
//! the rest. Where it does not come up, or ends, the canary is compared with all of stable, and that is
//! said. It belongs to the rollout's present process: after a restart of the daemon there is none.

use super::driver::Driver;
use super::journal::Kind;
use super::service::{Active, Service};
use crate::model::id::{InstanceId, RevisionId, RolloutId, ServiceName};
use crate::model::instance::{Instance, Ownership};
use crate::model::moment::Moment;
use crate::model::revision::Source;
use crate::model::weight::Weight;
use crate::rollout::machine::Kind as RolloutKind;
use crate::rollout::phase::Phase;
use crate::runtime::RuntimeError;
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
        active.fresh = Fresh::Launching(stable);
        let ownership = Ownership {
            service: name.clone(),
            revision: stable,
            rollout: rollout.id,
            // Beyond those that stable has.
            replica: revision.spec.instances(),
        };
        let runtime = self.runtimes.of(&revision.spec.source);
        self.executor.launch_fresh(runtime, revision.spec.clone(), ownership);
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
