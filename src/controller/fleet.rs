//! The pools and endpoints that exist now, and the only one who publishes them.
//!
//! Owned by the driver. Every change builds a new routing table from the fleet's own state and
//! publishes it; nothing is ever read back from the live table. Scorecards are per epoch: a change
//! of weight retires both sides' cards, whose counts go on in a ledger for `/metrics`.

mod compared;
mod deployment;
mod mirrored;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use self::deployment::{Deployment, OVERDUE_LEAST};
use super::group::Group;
use crate::analysis::scorecard::Sample;
use crate::analysis::troubled::Troubled;
use crate::edge::limit::Seed;
use crate::edge::policy::Policy;
use crate::edge::rules::{Maintenance, Spec};
use crate::model::id::{InstanceId, RevisionId, ServiceName};
use crate::model::instance::Instance;
use crate::model::revision::Speech;
use crate::model::weight::{Side, Weight};
use crate::routing::budget::{Budget, Shielded};
use crate::routing::endpoint::{Endpoint, EndpointId};
use crate::routing::index::Index;
use crate::routing::live::Live;
use crate::routing::pool::Pool;
use crate::routing::settings::{Affinity, ServiceSettings};
use crate::routing::split::Salt;
use crate::routing::table::{FreshEntry, Route, RoutingTable, ServiceEntry};

/// All that can be routed to.
#[derive(Debug)]
pub struct Fleet {
    live: Live,
    workers: usize,
    generation: u64,
    last_endpoint: u64,
    /// How policies tell clients apart, for as long as the daemon runs.
    seed: Seed,
    services: BTreeMap<ServiceName, Deployment>,
    /// The routes of all of them, until one changes.
    index: Option<Arc<Index>>,
}

impl Fleet {
    /// An empty fleet for so many workers.
    #[must_use]
    pub fn new(live: Live, workers: usize) -> Self {
        Self {
            live,
            workers,
            generation: 0,
            last_endpoint: 0,
            seed: Seed::new(),
            services: BTreeMap::new(),
            index: None,
        }
    }

    /// Adds a service or changes how its requests are routed and treated.
    pub fn set_service(
        &mut self,
        name: &ServiceName,
        routes: Vec<Route>,
        settings: ServiceSettings,
        policy: Spec,
    ) {
        let settings = Arc::new(settings);
        let former = self.services.get(name).and_then(|deployment| deployment.policy.as_deref());
        let policy = (!policy.is_empty())
            .then(|| Arc::new(Policy::new(policy, former, &self.seed, Instant::now())));
        match self.services.get_mut(name) {
            Some(deployment) => {
                deployment.policy = policy;
                if deployment.routes != routes {
                    deployment.routes = routes;
                    self.index = None;
                }
                deployment.settings = settings;
            }
            None => {
                let deployment = Deployment {
                    routes,
                    overdue: OVERDUE_LEAST.min(settings.response_timeout),
                    settings,
                    policy,
                    maintenance: None,
                    salt: Salt::new(0),
                    weight: Weight::ZERO,
                    sessions: None,
                    compares_instances: false,
                    fresh: None,
                    fresh_weight: Weight::ZERO,
                    mirror: None,
                    stable: None,
                    canary: None,
                    aside: Vec::new(),
                    budget: Arc::new(Budget::new(self.workers)),
                };
                self.services.insert(name.clone(), deployment);
                self.index = None;
            }
        }
    }

    /// Keeps a service's visitors from it, or lets them in again.
    pub fn maintain(&mut self, name: &ServiceName, maintenance: Option<Maintenance>) {
        if let Some(deployment) = self.services.get_mut(name) {
            deployment.maintenance = maintenance;
        }
    }

    /// Forgets a service: its hosts answer 404 from now on.
    pub fn remove_service(&mut self, name: &ServiceName) {
        self.services.remove(name);
        self.index = None;
    }

    /// Makes instances of a revision one side of a service. Endpoints of instances that it had keep
    /// their health and their requests. What is aside is left alone, be it of the same revision: that
    /// one drains.
    pub fn place(
        &mut self,
        name: &ServiceName,
        side: Side,
        revision: RevisionId,
        instances: &[Instance],
        speech: Speech,
    ) {
        let workers = self.workers;
        let mut last = self.last_endpoint;
        let Some(deployment) = self.services.get_mut(name) else { return };
        let held = match side {
            Side::Stable => &mut deployment.stable,
            Side::Canary => &mut deployment.canary,
        };
        let known: Vec<Arc<Endpoint>> = held
            .as_ref()
            .filter(|group| group.pool.revision == revision)
            .map(|group| group.pool.endpoints.to_vec())
            .unwrap_or_default();
        let endpoints: Vec<Arc<Endpoint>> = instances
            .iter()
            .map(|instance| {
                let same =
                    |e: &&Arc<Endpoint>| e.instance == instance.id && e.address == instance.address;
                known.iter().find(same).cloned().unwrap_or_else(|| {
                    last += 1;
                    Endpoint::new(EndpointId(last), instance.id.clone(), instance.address, speech)
                })
            })
            .collect();
        self.last_endpoint = last;
        for gone in known.iter().filter(|old| !endpoints.iter().any(|new| new.id == old.id)) {
            gone.begin_drain();
            gone.cut();
        }
        match held {
            Some(group) if group.pool.revision == revision => {
                group.pool = Arc::new(Pool::new(revision, endpoints));
            }
            _ => *held = Some(Group::new(revision, endpoints, workers)),
        }
    }

    /// Keeps instances of a former revision at hand, without a side.
    pub fn place_aside(
        &mut self,
        name: &ServiceName,
        revision: RevisionId,
        instances: &[Instance],
        speech: Speech,
    ) {
        let stable = self.services.get_mut(name).and_then(|d| d.stable.take());
        self.place(name, Side::Stable, revision, instances, speech);
        if let Some(deployment) = self.services.get_mut(name)
            && let Some(group) = std::mem::replace(&mut deployment.stable, stable)
        {
            deployment.aside.push(group);
        }
    }

    /// Moves a revision that is at hand to the canary's side, at weight 0.
    pub fn bring_back(&mut self, name: &ServiceName, revision: RevisionId) {
        let Some(deployment) = self.services.get_mut(name) else { return };
        if let Some(at) = deployment.aside.iter().rposition(|g| g.pool.revision == revision) {
            let group = deployment.aside.remove(at);
            for endpoint in &group.pool.endpoints {
                endpoint.end_drain();
            }
            deployment.canary = Some(group);
        }
    }

    /// Gives the canary a weight and begins an epoch. `salt` chooses whom affinity sends there.
    pub fn shift(&mut self, name: &ServiceName, weight: Weight, salt: u64) {
        let workers = self.workers;
        if let Some(deployment) = self.services.get_mut(name) {
            if deployment.weight == Weight::ZERO {
                let assigns_clients = deployment.settings.affinity != Affinity::None;
                deployment.sessions = assigns_clients.then(Arc::default);
            }
            deployment.weight = weight;
            deployment.fresh_weight = deployment.part_for(weight);
            deployment.mirror = None;
            deployment.salt = Salt::new(salt);
            deployment.begin_epoch(workers);
        }
        self.publish();
    }

    /// Makes the canary stable and puts the former stable aside. One publish.
    pub fn switch(&mut self, name: &ServiceName) {
        let workers = self.workers;
        if let Some(deployment) = self.services.get_mut(name) {
            if let Some(canary) = deployment.canary.take() {
                deployment.aside.extend(deployment.stable.replace(canary));
            }
            deployment.weight = Weight::ZERO;
            deployment.sessions = None;
            deployment.fresh_weight = Weight::ZERO;
            deployment.mirror = None;
            deployment.compares_instances = false;
            deployment.begin_epoch(workers);
        }
        self.publish();
    }

    /// Takes all but the first `keep` endpoints of stable out of its pool, and publishes. They stay
    /// aside until they are drained.
    pub fn give_up(
        &mut self,
        name: &ServiceName,
        revision: RevisionId,
        keep: usize,
    ) -> Vec<Arc<Endpoint>> {
        let workers = self.workers;
        let mut gone = Vec::new();
        if let Some(deployment) = self.services.get_mut(name)
            && let Some(stable) = &mut deployment.stable
            && stable.pool.revision == revision
        {
            let mut kept = stable.pool.endpoints.to_vec();
            gone = kept.split_off(keep.min(kept.len()));
            stable.pool = Arc::new(Pool::new(revision, kept));
            if !gone.is_empty() {
                deployment.aside.insert(0, Group::new(revision, gone.clone(), workers));
            }
        }
        self.publish();
        gone
    }

    /// Forgets a revision that has no requests any more.
    pub fn remove(&mut self, name: &ServiceName, revision: RevisionId) {
        if let Some(deployment) = self.services.get_mut(name) {
            let is_it = |group: &Group| group.pool.revision == revision;
            if deployment.canary.as_ref().is_some_and(is_it) {
                deployment.canary = None;
                deployment.weight = Weight::ZERO;
            }
            if deployment.stable.as_ref().is_some_and(is_it) {
                deployment.stable = None;
            }
            deployment.aside.retain(|group| !is_it(group));
        }
        self.publish();
    }

    /// Forgets what is aside of a revision and was drained. Others of the same revision may serve by
    /// now: it was returned to in the meantime.
    pub fn remove_drained(&mut self, name: &ServiceName, revision: RevisionId) {
        if let Some(deployment) = self.services.get_mut(name) {
            let is_drained = |group: &Group| group.pool.endpoints.iter().all(|e| e.is_draining());
            deployment.aside.retain(|group| group.pool.revision != revision || !is_drained(group));
        }
        self.publish();
    }

    /// Makes the fleet as it is now live.
    pub fn publish(&mut self) {
        self.generation += 1;
        let services = self.services.iter().map(|(name, deployment)| ServiceEntry {
            name: name.clone(),
            settings: Arc::clone(&deployment.settings),
            policy: deployment.policy.clone(),
            maintenance: deployment.maintenance,
            canary_weight: if deployment.canary.is_some() {
                deployment.weight
            } else {
                Weight::ZERO
            },
            salt: deployment.salt.clone(),
            overdue: deployment.overdue,
            stable: deployment.stable.as_ref().filter(|group| group.serves()).map(Group::entry),
            canary: deployment.canary.as_ref().map(Group::entry),
            warm: deployment.aside.last().map(Group::entry),
            mirror: deployment.mirror.clone(),
            budget: deployment.canary.as_ref().map(|_| Arc::clone(&deployment.budget)),
            fresh: deployment
                .fresh
                .as_ref()
                .filter(|_| deployment.fresh_weight > Weight::ZERO)
                .map(|group| FreshEntry { weight: deployment.fresh_weight, side: group.entry() }),
        });
        let routes = || self.services.iter().map(|(name, service)| (name, &service.routes[..]));
        let index = self.index.get_or_insert_with(|| Arc::new(Index::new(routes())));
        let table = RoutingTable::over(self.generation, services.collect(), Arc::clone(index));
        self.live.publish(table);
    }

    /// The generation of the live table.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The canary's weight.
    #[must_use]
    pub fn weight(&self, name: &ServiceName) -> Weight {
        self.services.get(name).map_or(Weight::ZERO, |deployment| deployment.weight)
    }

    /// The endpoints of a revision.
    #[must_use]
    pub fn endpoints(&self, name: &ServiceName, revision: RevisionId) -> Vec<Arc<Endpoint>> {
        let group = self.services.get(name).and_then(|d| d.group(revision));
        group.map(|group| group.pool.endpoints.to_vec()).unwrap_or_default()
    }

    /// Notes what probes concluded of an instance. Says whether it is known.
    pub fn set_healthy(&self, instance: &InstanceId, healthy: bool) -> bool {
        let mut known = false;
        for deployment in self.services.values() {
            for group in deployment.groups() {
                for endpoint in group.pool.endpoints.iter().filter(|e| e.instance == *instance) {
                    endpoint.set_healthy(healthy);
                    known = true;
                }
            }
        }
        known
    }

    /// Whether an instance has an endpoint, be it one whose last requests finish.
    #[must_use]
    pub fn has(&self, instance: &InstanceId) -> bool {
        let mut groups = self.services.values().flat_map(Deployment::groups);
        groups.any(|group| group.pool.endpoints.iter().any(|e| e.instance == *instance))
    }

    /// What a side counted in this epoch.
    #[must_use]
    pub fn sample(&self, name: &ServiceName, side: Side) -> Sample {
        let Some(deployment) = self.services.get(name) else { return Sample::default() };
        let group = match side {
            Side::Stable => &deployment.stable,
            Side::Canary => &deployment.canary,
        };
        let mut sample = group.as_ref().map(|group| group.card.sample()).unwrap_or_default();
        if let (Side::Stable, Some(fresh)) = (side, &deployment.fresh) {
            fresh.card.add_to(&mut sample);
        }
        sample
    }

    /// On which routes a side had errors in this epoch.
    #[must_use]
    pub fn troubled(&self, name: &ServiceName, side: Side) -> Troubled {
        let Some(deployment) = self.services.get(name) else { return Troubled::default() };
        let group = match side {
            Side::Stable => &deployment.stable,
            Side::Canary => &deployment.canary,
        };
        group.as_ref().map(|group| group.card.troubled()).unwrap_or_default()
    }

    /// What every revision counted since it came: (service, revision, side, counts). A revision that
    /// was put aside is told as stable, which it was.
    #[must_use]
    pub fn totals(&self) -> Vec<(ServiceName, RevisionId, Side, Sample)> {
        let mut totals: Vec<(ServiceName, RevisionId, Side, Sample)> = Vec::new();
        for (name, deployment) in &self.services {
            for group in deployment.groups() {
                let is_canary = deployment
                    .canary
                    .as_ref()
                    .is_some_and(|canary| canary.pool.revision == group.pool.revision);
                let side = if is_canary { Side::Canary } else { Side::Stable };
                let revision = group.pool.revision;
                let same = |(of, number, on, _): &&mut (ServiceName, RevisionId, Side, Sample)| {
                    of == name && *number == revision && *on == side
                };
                match totals.iter_mut().find(same) {
                    Some((.., total)) => total.merge(&group.total()),
                    None => totals.push((name.clone(), revision, side, group.total())),
                }
            }
        }
        totals
    }

    /// What the shield did for a service since it came.
    #[must_use]
    pub fn shielded(&self, name: &ServiceName) -> Shielded {
        self.services.get(name).map(|deployment| deployment.budget.total()).unwrap_or_default()
    }

    /// What stable counted since it came.
    #[must_use]
    pub fn stable_history(&self, name: &ServiceName) -> Sample {
        let stable = self.services.get(name).and_then(|d| d.stable.as_ref());
        stable.map(Group::total).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
