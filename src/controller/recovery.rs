//! At the start: what was written down against what runs.
//!
//! Services get their stable and warm revisions back, rollouts go on where their checkpoint says,
//! and what runs without anybody knowing why is stopped. An engine that cannot be reached changes
//! nothing of that: the addresses written down are the last good ones, and probes decide.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::driver::Driver;
use super::fresh::Fresh;
use super::journal::Kind;
use super::prepare::Wanted;
use super::service::{Active, Relaunch, Service};
use super::settings::route_texts;
use crate::config::Service as ServiceConfig;
use crate::model::id::{InstanceId, RevisionId, RolloutId, ServiceName};
use crate::model::instance::{Instance, Ownership};
use crate::model::weight::Side;
use crate::rollout::event::Event;
use crate::rollout::machine::Rollout;
use crate::rollout::phase::Phase;
use crate::routing::budget::Shielded;
use crate::runtime::{Found, Runtime, State};
use crate::store::Everything;
use crate::store::records::ActiveRecord;

/// When an engine has made what it was asked for before the start, also a busy one.
const LATE: std::time::Duration = std::time::Duration::from_secs(5);

impl Driver {
    /// Adds a service as configured, with nothing running.
    pub(super) fn add_service(&mut self, config: ServiceConfig) {
        let name = config.name.clone();
        let (routes, settings) = (config.routes.clone(), config.settings.clone());
        self.fleet.set_service(&name, routes, settings, config.policy.clone());
        let service = Service {
            routes: route_texts(&config),
            config,
            record: Default::default(),
            revisions: BTreeMap::new(),
            active: None,
            history: Vec::new(),
            preparing: false,
            relaunches: BTreeMap::new(),
            leaving: 0,
            launch_waits: false,
            queues: false,
            writes: 0,
            asked: Vec::new(),
            unsaved: None,
            since: jiff::Timestamp::now().as_millisecond(),
            rates: Default::default(),
            watched: HashMap::new(),
        };
        self.services.insert(name, service);
    }

    /// Takes in what was written down. Records of services that are not configured are left alone.
    pub(super) fn remember(&mut self, everything: Everything) {
        for (name, record) in everything.services {
            if let Some(service) = self.services.get_mut(&name) {
                service.record = record;
            }
        }
        for (name, revision) in everything.revisions {
            if let Some(service) = self.services.get_mut(&name) {
                service.revisions.insert(revision.id, revision);
            }
        }
        for entry in everything.history {
            if let Some(service) = self.services.get_mut(entry.service()) {
                service.history.push(entry);
            }
        }
        for active in everything.active {
            let name = active.checkpoint.service.clone();
            if self.services.contains_key(&name) {
                self.take_up(&name, active);
            }
        }
    }

    fn take_up(&mut self, name: &ServiceName, record: ActiveRecord) {
        let now = self.now();
        let ActiveRecord { checkpoint, events } = record;
        let criteria = checkpoint.plan.criteria.clone();
        let judge = checkpoint
            .memory
            .as_ref()
            .map(|memory| crate::analysis::judge::Judge::resume(criteria, memory, now));
        let started = checkpoint.started;
        let weighed = checkpoint.phase.is_weighed();
        // A record that should be there and is not was lost: its evidence begins with less.
        let lost = u32::from(weighed && checkpoint.memory.is_none());
        let attempts =
            self.services.get(name).map_or(0, |s| s.attempts_at(checkpoint.canary)) + lost;
        // The effects are made anew when the world is known; see `recover`.
        let (rollout, _) = Rollout::resume(checkpoint, now);
        if let Some(service) = self.services.get_mut(name) {
            service.active = Some(Active {
                rollout,
                judge,
                seen: Default::default(),
                seen_of: Vec::new(),
                verdict: None,
                started,
                events,
                pending: None,
                since: jiff::Timestamp::now().as_millisecond(),
                diagnosis: None,
                remembered: 0,
                shielded: Shielded::default(),
                launch: None,
                attempts,
                fresh: Fresh::None,
                recorder: None,
                epoch: 0,
                mirror: None,
                outside: Default::default(),
                waiting: Vec::new(),
            });
        }
    }

    /// Routes to stable as it was written down, before anybody is asked what runs: visitors come as
    /// soon as the proxy listens, and an engine may take its time to answer.
    pub(super) fn route_as_remembered(&mut self) {
        for (name, service) in &mut self.services {
            service.queues = service.active.as_ref().is_some_and(|a| a.rollout.may_be_down());
            self.fleet.maintain(name, service.kept_out());
            let Some(stable) = &service.record.stable else { continue };
            let Some(revision) = service.revisions.get(&stable.revision) else { continue };
            let speech = revision.spec.speech();
            self.fleet.place(name, Side::Stable, stable.revision, &stable.instances, speech);
        }
        self.fleet.publish();
        self.publish_status();
    }

    /// Puts the world where the records say it is. Called once, before anything else happens.
    pub(super) async fn recover(&mut self) {
        self.watch_runtimes();
        let found = self.find().await;
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in &names {
            self.recover_service(name, &found);
            self.recover_fresh(name, &found);
        }
        self.stop_strangers(&found);
        self.fleet.publish();
        for name in &names {
            self.recover_hooks(name);
            self.recover_rollout(name, &found);
            self.ask_outside(name);
            self.start_if_new(name);
        }
        self.look_for_latecomers();
    }

    /// Lists once more after a while: a container that the former daemon asked for in its last moment
    /// comes to be when the first look is over.
    fn look_for_latecomers(&self) {
        if !self.watches[0] {
            return;
        }
        let (docker, found) = (Arc::clone(&self.runtimes.docker), self.latecomers.clone());
        let look = async move {
            tokio::time::sleep(LATE).await;
            // An engine that is gone has had nothing to make.
            if let Ok(list) = docker.list().await {
                let _ = found.send(list).await;
            }
        };
        self.tasks.spawn(self.shutdown.clone().run_until_cancelled_owned(look));
    }

    /// What runs, by runtime name; nothing for a runtime that cannot be asked.
    async fn find(&mut self) -> BTreeMap<&'static str, Vec<Found>> {
        let mut runtimes: BTreeMap<&'static str, Arc<dyn Runtime>> = BTreeMap::new();
        for service in self.services.values() {
            let sources = service.revisions.values().map(|revision| &revision.spec.source);
            for source in sources.chain(std::iter::once(&service.config.template.source)) {
                let runtime = self.runtimes.of(source);
                runtimes.insert(runtime.name(), runtime);
            }
        }
        let mut found = BTreeMap::new();
        for (name, runtime) in runtimes {
            match runtime.list().await {
                Ok(list) => {
                    if name == "docker" {
                        self.daemon.docker = Some(true);
                    }
                    found.insert(name, list);
                }
                Err(error) => {
                    if name == "docker" {
                        self.daemon.docker = Some(false);
                        self.docker_note = Some(error.to_string());
                    }
                    let message = format!(
                        "{name} cannot be asked what runs, so the last known addresses are used: {error}"
                    );
                    self.tell_all(Kind::Runtime, message);
                }
            }
        }
        found
    }

    fn recover_service(&mut self, name: &ServiceName, found: &BTreeMap<&'static str, Vec<Found>>) {
        let now = self.now();
        let Some(service) = self.services.get_mut(name) else { return };
        let runtimes = &self.runtimes;
        let revisions = &service.revisions;
        let stands = |revision: RevisionId, instance: &Instance| {
            let source = revisions.get(&revision).map(|revision| &revision.spec.source);
            let known = source.and_then(|source| found.get(runtimes.of(source).name()));
            stands(known, &instance.id)
        };
        let mut placements = Vec::new();
        // Of what is warm: kept in their places, and not asked any more.
        let mut gone: HashSet<InstanceId> = HashSet::new();
        if let Some(stable) = &mut service.record.stable {
            for (replica, instance) in stable.instances.iter_mut().enumerate() {
                match stands(stable.revision, instance) {
                    Standing::Unknown => {}
                    Standing::Running(there) => *instance = there,
                    Standing::Ended => {
                        let relaunch = Relaunch { failures: 0, not_before: now, under_way: false };
                        service.relaunches.insert(replica as u32, relaunch);
                    }
                }
            }
            placements.push((Side::Stable, stable.revision, stable.instances.clone()));
        }
        if let Some(warm) = &mut service.record.warm {
            let revision = warm.placed.revision;
            let ended = |i: &&Instance| matches!(stands(revision, i), Standing::Ended);
            gone.extend(warm.placed.instances.iter().filter(ended).map(|i| i.id.clone()));
            let placed = warm.placed.clone();
            if gone.len() == placed.instances.len() {
                service.record.warm = None;
            } else {
                placements.push((Side::Canary, placed.revision, placed.instances));
            }
        }
        for (side, revision, instances) in placements {
            let Some(spec) = self
                .services
                .get(name)
                .and_then(|s| s.revisions.get(&revision))
                .map(|revision| revision.spec.clone())
            else {
                continue;
            };
            match side {
                Side::Stable => {
                    self.fleet.place(name, side, revision, &instances, spec.speech());
                }
                Side::Canary => {
                    self.fleet.place_aside(name, revision, &instances, spec.speech());
                }
            }
            for instance in instances.iter().filter(|instance| !gone.contains(&instance.id)) {
                self.watch_instance(name, instance, &spec);
            }
        }
    }

    fn recover_rollout(&mut self, name: &ServiceName, found: &BTreeMap<&'static str, Vec<Found>>) {
        let now = self.now();
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(active) = &mut service.active else { return };
        let source = service.revisions.get(&active.rollout.canary).map(|r| &r.spec.source);
        let known = source.and_then(|source| found.get(self.runtimes.of(source).name()));
        let mut lost = None;
        for instance in &mut active.rollout.instances {
            match stands(known, &instance.id) {
                Standing::Unknown => {}
                Standing::Running(there) => *instance = there,
                Standing::Ended => {
                    lost = Some(format!("{} was gone after the restart", instance.id.short()));
                }
            }
        }
        let (rollout, effects) = Rollout::resume(active.checkpoint(), now);
        active.rollout = rollout;
        let phase = active.rollout.phase.as_str().replace('_', " ");
        let begins = active.rollout.phase == Phase::Launching;
        let hook = active.rollout.plan.hooks.before_deploy.is_some() && begins;
        let twice = if hook { "; before_deploy may have run already, and runs now" } else { "" };
        let message = format!("taken up again after a restart: {phase}{twice}");
        self.tell(name, Kind::Note, message);
        let placed = |active: &Active| !active.rollout.instances.is_empty();
        let bring_back = self.services.get(name).is_some_and(|service| {
            let warm = service.record.warm.as_ref().map(|warm| warm.placed.revision);
            service.active.as_ref().is_some_and(|a| Some(a.rollout.canary) == warm)
        });
        if bring_back {
            let canary =
                self.services.get(name).and_then(|s| s.active.as_ref()).map(|a| a.rollout.canary);
            if let Some(canary) = canary {
                self.fleet.bring_back(name, canary);
            }
        } else if self.services.get(name).and_then(|s| s.active.as_ref()).is_some_and(placed) {
            self.place_canary(name);
        }
        // What is gone is told before anything is done, so that nothing is sent to it.
        let went_back = lost.is_some_and(|sentence| self.step(name, Event::Lost { sentence }));
        if !went_back {
            self.perform(name, effects);
        }
    }

    /// Launches what the configuration names, when the service never ran anything.
    pub(super) fn start_if_new(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        if service.record.stable.is_some() || service.active.is_some() || service.preparing {
            return;
        }
        let config = &service.config;
        if super::settings::names_a_version(config) {
            let wanted = Wanted::new(config.template.clone(), config.plan.clone());
            self.prepare(name, wanted, None);
        } else if !config.answers_alone() {
            let message = format!("nothing runs yet: `switchback deploy {name}:TAG` begins");
            self.tell(name, Kind::Note, message);
        }
    }

    /// Stops what carries our mark and belongs to nothing that is known.
    pub(super) fn stop_strangers(&self, found: &BTreeMap<&'static str, Vec<Found>>) {
        let mut wanted: HashSet<InstanceId> = HashSet::new();
        let mut launching: HashSet<RolloutId> = HashSet::new();
        for service in self.services.values() {
            let record = &service.record;
            let placed = record.stable.iter().chain(record.warm.as_ref().map(|warm| &warm.placed));
            wanted.extend(placed.flat_map(|p| p.instances.iter().map(|i| i.id.clone())));
            if let Some(active) = &service.active {
                wanted.extend(active.rollout.instances.iter().map(|i| i.id.clone()));
                if active.rollout.phase.launches() {
                    launching.insert(active.rollout.id);
                }
            }
        }
        let runtimes = [&self.runtimes.docker, &self.runtimes.process];
        for runtime in runtimes {
            for stranger in found.get(runtime.name()).into_iter().flatten() {
                let owner = &stranger.ownership;
                let comes = launching.contains(&owner.rollout) || self.is_relaunched(owner);
                if wanted.contains(&stranger.id) || comes || self.fleet.has(&stranger.id) {
                    continue;
                }
                tracing::info!(instance = %stranger.id, "stopping an instance that nobody wants");
                let (runtime, id) = (Arc::clone(runtime), stranger.id.clone());
                self.tasks.spawn(async move {
                    if let Err(error) = runtime.stop(&id, std::time::Duration::from_secs(10)).await
                    {
                        tracing::warn!(instance = %id, %error, "not stopped");
                    }
                });
            }
        }
    }

    /// Whether the keeper launches this very instance, or is about to: it will find it there.
    fn is_relaunched(&self, owner: &Ownership) -> bool {
        self.services.get(&owner.service).is_some_and(|service| {
            // What the keeper starts belongs to no rollout.
            owner.rollout == RolloutId(0)
                && service.record.stable.as_ref().is_some_and(|p| p.revision == owner.revision)
                && service.relaunches.contains_key(&owner.replica)
        })
    }

    /// The services as configured now, for one who goes on in its place.
    #[must_use]
    pub fn configured(&self) -> Vec<ServiceConfig> {
        self.services.values().map(|service| service.config.clone()).collect()
    }

    /// Takes a service out of the configuration: its hosts answer 404 and its instances stop. Its
    /// records stay, so that it can come back.
    pub(super) fn remove_service(&mut self, name: &ServiceName) {
        let Some(service) = self.services.remove(name) else { return };
        for watched in service.watched.values() {
            watched.cancel.cancel();
        }
        let mut stops = Vec::new();
        for placed in service.placed() {
            let (runtime, grace) = self.launcher(&service, placed.revision);
            stops.extend(placed.instances.into_iter().map(|i| (Arc::clone(&runtime), i.id, grace)));
        }
        let drain = service.config.plan.drain_deadline;
        self.fleet.remove_service(name);
        self.tasks.spawn(async move {
            // Requests in flight hold the old table; they get the drain's time to finish.
            tokio::time::sleep(drain.min(std::time::Duration::from_secs(5))).await;
            for (runtime, id, grace) in stops {
                if let Err(error) = runtime.stop(&id, grace).await {
                    tracing::warn!(instance = %id, %error, "not stopped");
                }
            }
        });
    }
}

enum Standing {
    Running(Instance),
    Ended,
    Unknown,
}

fn stands(known: Option<&Vec<Found>>, id: &InstanceId) -> Standing {
    let Some(known) = known else { return Standing::Unknown };
    // Addresses that somebody else runs are listed by no runtime.
    if id.0.starts_with("static-") {
        return Standing::Unknown;
    }
    match known.iter().find(|found| found.id == *id).map(|found| &found.state) {
        Some(State::Running { instance, .. }) => Standing::Running(instance.clone()),
        Some(State::Ended(_) | State::Gone) | None => Standing::Ended,
    }
}
