//! Keeps what serves serving: probes, instances that end, warm revisions whose time is up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::driver::{CONNECTS_LOST, Driver, Probed};
use super::journal::Kind;
use super::owner::Owner;
use super::service::{Relaunch, Watched};
use crate::model::id::{InstanceId, RevisionId, RolloutId, ServiceName};
use crate::model::instance::{Exit, Instance, Ownership};
use crate::model::moment::Moment;
use crate::model::revision::ProbeKind;
use crate::model::revision::{RevisionSpec, Source};
use crate::prober::{self, Target};
use crate::rollout::event::Event;
use crate::routing::endpoint::Endpoint;
use crate::runtime::{Runtime, RuntimeError, RuntimeEvent, State};
use crate::store::records::{Placed, Warm};

/// The wait before an ended instance of stable is started again doubles from the first to the last:
/// at once for the common single crash, and not more often than this for one that cannot live.
const RELAUNCH_FIRST: Duration = Duration::from_millis(500);
const RELAUNCH_LAST: Duration = Duration::from_secs(30);
/// How often an engine that has not concluded whether an instance is healthy is asked what it has seen.
const EARLY_LOOK: Duration = Duration::from_secs(1);

impl Driver {
    /// Begins to probe an instance, unless it is probed already.
    pub(super) fn watch_instance(
        &mut self,
        name: &ServiceName,
        instance: &Instance,
        spec: &RevisionSpec,
    ) {
        let probes = self.probes.clone();
        let runtime = self.runtimes.of(&spec.source);
        let Some(service) = self.services.get_mut(name) else { return };
        if service.watched.contains_key(&instance.id) {
            return;
        }
        let cancel = CancellationToken::new();
        let engine = watch::Sender::new(None);
        let hears = engine.clone();
        let watched = Watched { cancel: cancel.clone(), healthy: false, diagnosis: None, engine };
        service.watched.insert(instance.id.clone(), watched);
        let target = Target {
            instance: instance.clone(),
            spec: spec.probe.clone(),
            speech: spec.speech(),
            engine: None,
        };
        self.tasks.spawn(watch_on(target, hears, runtime, probes, cancel));
    }

    /// A probe changed its mind, or said why it has not.
    pub(super) fn probed(&mut self, probed: Probed) {
        let Probed { instance, healthy, why, early } = probed;
        let Some((name, owner)) = self.owner(&instance) else { return };
        let Some(service) = self.services.get_mut(&name) else { return };
        if early {
            if let Some(active) = service.active.as_mut().filter(|_| owner == Owner::Canary) {
                active.diagnosis = Some(why);
            }
            return;
        }
        let Some(watched) = service.watched.get_mut(&instance) else { return };
        let changed = watched.healthy != healthy;
        watched.healthy = healthy;
        watched.diagnosis = (!healthy).then(|| why.clone());
        self.fleet.set_healthy(&instance, healthy);
        if owner == Owner::Canary
            && !healthy
            && let Some(active) = &mut service.active
        {
            active.diagnosis = Some(why.clone());
        }
        if changed {
            let is = if healthy { "is healthy" } else { "is not healthy" };
            self.tell(&name, Kind::Instance, format!("{} {is}: {why}", instance.short()));
        }
        if owner == Owner::Fresh && !healthy {
            self.fresh_is_unhealthy(&name);
        }
        self.look_for_ready(&name);
    }

    /// A canary whose instances are all healthy is ready.
    pub(super) fn look_for_ready(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        let Some(active) = &service.active else { return };
        if !active.rollout.phase.probes() || active.rollout.instances.is_empty() {
            return;
        }
        let healthy =
            |i: &Instance| service.watched.get(&i.id).is_some_and(|watched| watched.healthy);
        let now = self.now();
        if active.rollout.instances.iter().all(healthy) && !active.waits_for_fresh(service, now) {
            let attempt = active.rollout.attempt;
            self.step(name, Event::Ready { attempt });
        }
    }

    /// The fast lane: a canary that cannot be connected to, or whose probes all fail while stable's
    /// do not, is given up without waiting for evidence.
    pub(super) fn look_for_lost(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        let Some(active) = &service.active else { return };
        if !active.rollout.phase.is_asked() {
            return;
        }
        let canary = self.fleet.endpoints(name, active.rollout.canary);
        let stable = active.rollout.stable.map(|id| self.fleet.endpoints(name, id));
        let stable_serves = stable.is_none_or(|endpoints| {
            // Where stable was stopped for it, there is nothing to compare with.
            endpoints.is_empty()
                || endpoints.iter().any(|e| e.is_healthy() && e.connect_failures() == 0)
        });
        if !stable_serves || canary.is_empty() {
            return;
        }
        let rolls = active.rollout.rolls() && !active.rollout.phase.probes();
        let is_given_up = |e: &Arc<Endpoint>| !e.is_healthy() && service.is_given_up(&e.instance);
        let sentence = if canary.iter().all(|e| e.connect_failures() >= CONNECTS_LOST) {
            let endpoint = &canary[0];
            format!(
                "the canary cannot be connected to: {} connects in a row failed at {}",
                endpoint.connect_failures(),
                endpoint.address
            )
        } else if rolls && canary.iter().any(is_given_up) || canary.iter().all(is_given_up) {
            let why = active.diagnosis.as_deref().unwrap_or("its probes fail");
            format!("the canary is not healthy any more: {why}")
        } else {
            return;
        };
        self.step(name, Event::Lost { sentence });
    }

    /// Hears from now on what runtimes report that a service needs.
    pub(super) fn watch_runtimes(&mut self) {
        let is_image = |source: &Source| matches!(source, Source::Image(_));
        let needs_docker = self.services.values().any(|service| {
            // What runs may have been launched by another runtime than what is configured now.
            let mut runs = service.placed().into_iter().filter_map(|p| service.source(p.revision));
            is_image(&service.config.template.source) || runs.any(is_image)
        });
        let [docker, process] = &mut self.watches;
        if needs_docker && !std::mem::replace(docker, true) {
            self.runtimes.docker.watch(self.reports.clone());
        }
        if !std::mem::replace(process, true) {
            self.runtimes.process.watch(self.processes.clone());
        }
    }

    /// The Docker Engine reports.
    pub(super) fn engine_reported(&mut self, event: RuntimeEvent) {
        match &event {
            RuntimeEvent::Connected => {
                if self.daemon.docker.replace(true) == Some(false) {
                    self.docker_note = None;
                    self.tell_all(Kind::Runtime, "the Docker engine is back".to_owned());
                    self.start_what_waited();
                }
            }
            RuntimeEvent::Disconnected { reason } => {
                if self.daemon.docker.replace(false) != Some(false) {
                    let message = format!(
                        "the Docker engine cannot be reached ({reason}); what serves goes on serving"
                    );
                    self.docker_note = Some(message.clone());
                    self.tell_all(Kind::Runtime, message);
                }
            }
            RuntimeEvent::Ended { .. } | RuntimeEvent::Health { .. } => {}
        }
        self.reported(event);
    }

    /// Begins what could not even be prepared while the engine was away.
    fn start_what_waited(&mut self) {
        let waits = |service: &&super::service::Service| {
            service.history.is_empty() && super::settings::names_a_version(&service.config)
        };
        let waiting: Vec<ServiceName> =
            self.services.values().filter(waits).map(|s| s.config.name.clone()).collect();
        for name in waiting {
            self.start_if_new(&name);
        }
    }

    /// A runtime reports.
    pub(super) fn reported(&mut self, event: RuntimeEvent) {
        match event {
            RuntimeEvent::Ended { instance, exit } => self.ended(&instance, &exit),
            RuntimeEvent::Health { instance, healthy } => {
                for service in self.services.values() {
                    if let Some(watched) = service.watched.get(&instance) {
                        watched.engine.send_replace(Some(healthy));
                    }
                }
            }
            RuntimeEvent::Connected => self.look_again(),
            RuntimeEvent::Disconnected { .. } => {}
        }
    }

    /// Asks for every instance that is thought to run, because events may have been lost.
    fn look_again(&mut self) {
        let mut asked = Vec::new();
        for service in self.services.values() {
            for placed in service.placed() {
                let Some(source) = service.source(placed.revision) else { continue };
                if matches!(source, Source::Image(_)) {
                    let runtime = self.runtimes.of(source);
                    asked.extend(placed.instances.into_iter().map(|i| (Arc::clone(&runtime), i)));
                }
            }
        }
        let ended = self.reports.clone();
        self.tasks.spawn(async move {
            for (runtime, instance) in asked {
                let exit = match runtime.inspect(&instance.id).await {
                    Ok(crate::runtime::State::Ended(exit)) => exit,
                    Ok(crate::runtime::State::Gone) => Exit::default(),
                    _ => continue,
                };
                let _ = ended.send(RuntimeEvent::Ended { instance: instance.id, exit }).await;
            }
        });
    }

    fn ended(&mut self, instance: &InstanceId, exit: &Exit) {
        let Some((name, owner)) = self.owner(instance) else { return };
        self.fleet.set_healthy(instance, false);
        let now = self.now();
        let Some(service) = self.services.get_mut(&name) else { return };
        match service.watched.remove(instance) {
            Some(watched) => watched.cancel.cancel(),
            // Told before.
            None if owner == Owner::Warm => return,
            None => {}
        }
        match owner {
            Owner::Canary => {
                let is_going_back =
                    service.active.as_ref().is_some_and(super::service::Active::is_going_back);
                let sentence = format!("{} {exit}", instance.short());
                if !is_going_back || exit.out_of_memory {
                    self.tell(&name, Kind::Instance, sentence.clone());
                }
                if is_going_back {
                    return;
                }
                self.step(&name, Event::Lost { sentence });
            }
            Owner::Stable(replica) => {
                let relaunch = service.relaunches.entry(replica).or_insert(Relaunch {
                    failures: 0,
                    not_before: now,
                    under_way: false,
                });
                relaunch.under_way = false;
                self.tell(
                    &name,
                    Kind::Instance,
                    format!("{} {exit}; starting it again", instance.short()),
                );
            }
            Owner::Fresh => {
                let message = format!("{} {exit}", instance.short());
                self.tell(&name, Kind::Instance, message);
                self.give_up_fresh(&name, "the fresh instance of stable ended");
            }
            Owner::Warm => {
                let message =
                    format!("{} {exit}; it was warm and is not started again", instance.short());
                self.tell(&name, Kind::Instance, message);
                let Some(service) = self.services.get_mut(&name) else { return };
                let watched = &service.watched;
                let is_gone = |i: &Instance| !watched.contains_key(&i.id);
                // It keeps its place: when its revision comes back, it is started again.
                let gone = |warm: &mut Warm| warm.placed.instances.iter().all(is_gone);
                if let Some(warm) = service.record.warm.take_if(gone) {
                    self.fleet.remove(&name, warm.placed.revision);
                }
                self.save(&name);
            }
        }
    }

    /// Starts ended replicas of stable again when their time has come, and retires a warm revision
    /// whose time is up.
    pub(super) fn keep(&mut self, name: &ServiceName, now: Moment) {
        self.keep_confirmed(name);
        let unsaved = self.services.get(name).and_then(|service| service.unsaved);
        if unsaved.is_some_and(|again| now >= again) {
            self.note_unsaved(name, true);
            self.save(name);
        }
        let wall = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        let Some(service) = self.services.get_mut(name) else { return };
        if service.active.is_none()
            && service.is_written()
            && service.record.warm.as_ref().is_some_and(|w| w.until <= wall)
            && let Some(warm) = service.record.warm.take()
        {
            let message = format!("revision {} was warm long enough", warm.placed.revision);
            self.tell(name, Kind::Note, message);
            self.retire(name, warm.placed);
            self.save(name);
        }
        self.fill(name, now);
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(stable) = &service.record.stable else { return };
        let Some(revision) = service.revisions.get(&stable.revision) else { return };
        for (replica, relaunch) in &mut service.relaunches {
            if !relaunch.under_way && now >= relaunch.not_before {
                relaunch.under_way = true;
                let ownership = Ownership {
                    service: name.clone(),
                    revision: revision.id,
                    rollout: RolloutId(0),
                    replica: *replica,
                };
                let runtime = self.runtimes.of(&revision.spec.source);
                self.executor.relaunch(runtime, revision.spec.clone(), ownership);
            }
        }
    }

    pub(super) fn relaunched(
        &mut self,
        name: &ServiceName,
        revision: RevisionId,
        replica: u32,
        result: Result<Instance, RuntimeError>,
    ) {
        let now = self.now();
        let Some(service) = self.services.get_mut(name) else { return };
        let is_stable = service.record.stable.as_ref().is_some_and(|s| s.revision == revision);
        let relaunch = service.relaunches.get_mut(&replica).filter(|_| is_stable);
        let Some(relaunch) = relaunch else {
            // Another revision took its place while it started.
            if let Ok(instance) = result {
                self.discard(name, revision, vec![instance]);
            }
            return;
        };
        relaunch.under_way = false;
        match result {
            Err(error) => {
                let wait = RELAUNCH_FIRST * 2_u32.saturating_pow(relaunch.failures.min(16));
                relaunch.failures += 1;
                relaunch.not_before = now.after(wait.min(RELAUNCH_LAST));
                if relaunch.failures.is_power_of_two() {
                    let message = format!("replica {replica} of stable was not started: {error}");
                    self.tell(name, Kind::Instance, message);
                }
            }
            Ok(instance) => {
                let failures = relaunch.failures;
                // Whoever ends again soon waits longer: the count stays until the next switch.
                relaunch.failures = failures + 1;
                let wait = RELAUNCH_FIRST * 2_u32.saturating_pow(failures.min(16));
                relaunch.not_before = now.after(wait.min(RELAUNCH_LAST));
                relaunch.under_way = true;
                let Some(stable) = &mut service.record.stable else { return };
                let old = match stable.instances.get_mut(replica as usize) {
                    Some(old) => Some(std::mem::replace(old, instance.clone())),
                    None => {
                        stable.instances.push(instance.clone());
                        None
                    }
                };
                let instances = stable.instances.clone();
                let Some(spec) = service.revisions.get(&revision).map(|r| r.spec.clone()) else {
                    return;
                };
                let side = crate::model::weight::Side::Stable;
                self.fleet.place(name, side, revision, &instances, spec.speech());
                self.fleet.publish();
                self.watch_instance(name, &instance, &spec);
                if let Some(old) = old.filter(|old| old.id != instance.id) {
                    self.discard(name, revision, vec![old]);
                }
                self.save(name);
            }
        }
    }

    /// Drains and stops a revision that is not wanted any more.
    pub(super) fn retire(&mut self, name: &ServiceName, placed: Placed) {
        let endpoints = self.fleet.endpoints(name, placed.revision);
        let Some(service) = self.services.get_mut(name) else { return };
        for instance in &placed.instances {
            if let Some(watched) = service.watched.remove(&instance.id) {
                watched.cancel.cancel();
            }
        }
        let drain = service.config.plan.drain_deadline;
        let Some(service) = self.services.get(name) else { return };
        let (runtime, grace) = self.launcher(service, placed.revision);
        let times = (drain, grace);
        let revision = placed.revision;
        self.executor.retire(name.clone(), runtime, revision, endpoints, placed.instances, times);
    }

    pub(super) fn retired(&mut self, name: &ServiceName, revision: RevisionId) {
        self.fleet.remove_drained(name, revision);
        self.tell(name, Kind::Instance, format!("revision {revision} is stopped"));
    }
}

/// Probes an instance until cancelled, adding what the runtime knows to the reasons.
async fn watch_on(
    mut target: Target,
    engine: watch::Sender<Option<bool>>,
    runtime: Arc<dyn Runtime>,
    probes: mpsc::Sender<Probed>,
    cancel: CancellationToken,
) {
    let instance = target.instance.clone();
    if target.spec.kind == ProbeKind::Auto {
        let found = runtime.inspect(&instance.id).await;
        if let Ok(State::Running { health: Some(healthy), .. }) = found {
            target.engine = Some(engine.subscribe());
            // An engine tells only changes of mind; what it thought before we listened is asked once.
            // Not healthy may only mean not yet.
            engine.send_if_modified(|said| {
                let news = said.is_none() && healthy;
                *said = said.or(healthy.then_some(true));
                news
            });
        }
    }
    drop(engine);
    let mut early = target.engine.clone();
    let (events_in, mut events) = mpsc::channel(8);
    let asking = prober::watch(target, events_in, cancel.clone());
    let telling = async {
        while let Some(event) = events.recv().await {
            let mut why = event.diagnosis.to_string();
            if !event.healthy && event.diagnosis.wants_a_closer_look() {
                why = runtime.diagnose(&instance).await.unwrap_or(why);
            } else if !event.healthy && event.diagnosis.may_be_hindered() {
                let more = runtime.diagnose(&instance).await;
                why.extend(more.map(|more| format!("; {more}")));
            }
            let (instance, healthy) = (event.instance, event.healthy);
            if probes.send(Probed { instance, healthy, why, early: false }).await.is_err() {
                return;
            }
        }
    };
    // An engine may take longer to conclude than anybody waits, and it is asked why.
    let looking = async {
        let Some(engine) = &mut early else { return };
        loop {
            let concluded = engine.wait_for(Option::is_some);
            if tokio::time::timeout(EARLY_LOOK, concluded).await.is_ok() {
                return;
            }
            let Some(why) = runtime.diagnose(&instance).await else { continue };
            let instance = instance.id.clone();
            let probed = Probed { instance, healthy: false, why, early: true };
            if probes.send(probed).await.is_err() {
                return;
            }
        }
    };
    let looking = cancel.run_until_cancelled(looking);
    tokio::join!(asking, telling, looking);
}
