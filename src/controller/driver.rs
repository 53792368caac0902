//! The driver: one task that owns every service and every rollout, so that nothing needs a lock.
//!
//! It takes what was asked, what completed, what runtimes and probes report, and ten ticks a second;
//! it hands events to the rollout machine and performs the effects that come out. It never waits for
//! work: whatever takes time is a task of the executor or the store's thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::archivist::Archivist;
use super::executor::{Completion, Done, Executor};
use super::fleet::Fleet;
use super::handle::{Ask, Handle, Refused};
use super::journal::{Happening, Journal, Kind};
use super::labels::Labels;
use super::measured::Former;
use super::prepare::Prepared;
use super::runtimes::Runtimes;
use super::service::{Active, Service};
use super::status::{DaemonStatus, ServiceStatus};
use super::way_back::Archived;
use crate::config::Service as ServiceConfig;
use crate::model::certificate::CertificateStatus;
use crate::model::id::{InstanceId, RolloutId, ServiceName};
use crate::model::labelled::Labelled;
use crate::model::moment::Moment;
use crate::rollout::event::Event;
use crate::rollout::phase::Phase;
use crate::routing::live::Live;
use crate::runtime::docker::DockerRuntime;
use crate::runtime::{Found, RuntimeEvent};
use crate::store::Everything;
use crate::store::writer::Writer;

/// How often the evidence is weighed: often enough that a dead canary is gone within a second.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Ticks between two looks at the counters while no rollout is under way.
const CALM_TICKS: u32 = 3;
/// Questions, completions and reports that may wait for the driver.
const QUEUE: usize = 1024;
/// Connects that fail in a row before an endpoint is given up without waiting for a probe.
pub(super) const CONNECTS_LOST: u32 = 5;

/// Reads the configuration again: the services, and a sentence for what else changed.
pub type Reload = Box<dyn Fn() -> Result<(Vec<ServiceConfig>, String), String> + Send>;

/// What a driver is made of.
pub struct Parts {
    /// Where tables are published.
    pub live: Live,
    /// How many workers write scorecards.
    pub workers: usize,
    /// What launches.
    pub runtimes: Runtimes,
    /// Where images are, when that is a Docker Engine.
    pub images: Option<Arc<DockerRuntime>>,
    /// Who archives checkpoints.
    pub archivist: Option<Archivist>,
    /// Where state is written.
    pub writer: Writer,
    /// What was read from it.
    pub everything: Everything,
    /// The directory below which rollouts are recorded.
    pub recordings: std::path::PathBuf,
    /// The services as configured.
    pub services: Vec<ServiceConfig>,
    /// How to read the configuration again.
    pub reload: Reload,
    /// Containers with labels that run now.
    pub containers: Vec<Labelled>,
    /// Where changes of them are told; `None` when nobody asks.
    pub labelled: Option<mpsc::Receiver<Vec<Labelled>>>,
    /// Certificates as they are; `None` without TLS.
    pub certificates: Option<watch::Receiver<Arc<Vec<CertificateStatus>>>>,
    /// Stops the driver.
    pub shutdown: CancellationToken,
    /// Cancelled once no former process serves any more; until then a drain lasts to its deadline.
    pub alone: CancellationToken,
}

/// What a probe concluded, with what the runtime added to the reason.
#[derive(Debug)]
pub(super) struct Probed {
    pub instance: InstanceId,
    pub healthy: bool,
    pub why: String,
    /// Nothing is concluded yet; this is how it looks.
    pub early: bool,
}

/// The driver.
pub struct Driver {
    pub(super) origin: Instant,
    /// How often it has looked around.
    ticks: u32,
    /// The origin in milliseconds since the Unix epoch.
    pub(super) base: u64,
    pub(super) recordings: std::path::PathBuf,
    pub(super) fleet: Fleet,
    pub(super) services: BTreeMap<ServiceName, Service>,
    pub(super) runtimes: Runtimes,
    pub(super) images: Option<Arc<DockerRuntime>>,
    pub(super) archivist: Option<Archivist>,
    pub(super) archived: mpsc::Sender<Archived>,
    pub(super) executor: Executor,
    pub(super) tasks: TaskTracker,
    pub(super) writer: Writer,
    pub(super) journal: Journal,
    pub(super) reload: Reload,
    pub(super) last_rollout: u64,
    pub(super) daemon: DaemonStatus,
    pub(super) config_note: Option<String>,
    pub(super) store_note: Option<String>,
    pub(super) docker_note: Option<String>,
    certificates: Option<watch::Receiver<Arc<Vec<CertificateStatus>>>>,
    /// The services of the file.
    pub(super) configured: Vec<ServiceConfig>,
    pub(super) labels: Labels,
    pub(super) measured: Former,
    pub(super) prepared: mpsc::Sender<Prepared>,
    pub(super) probes: mpsc::Sender<Probed>,
    pub(super) reports: mpsc::Sender<RuntimeEvent>,
    pub(super) processes: mpsc::Sender<RuntimeEvent>,
    pub(super) latecomers: mpsc::Sender<Vec<Found>>,
    /// Which runtimes are watched: docker, process.
    pub(super) watches: [bool; 2],
    pub(super) shutdown: CancellationToken,
    services_seen: watch::Sender<Arc<Vec<ServiceStatus>>>,
    daemon_seen: watch::Sender<Arc<DaemonStatus>>,
    inbox: Inbox,
}

struct Inbox {
    asks: mpsc::Receiver<Ask>,
    done: mpsc::Receiver<Done>,
    prepared: mpsc::Receiver<Prepared>,
    archived: mpsc::Receiver<Archived>,
    probes: mpsc::Receiver<Probed>,
    runtime: mpsc::Receiver<RuntimeEvent>,
    processes: mpsc::Receiver<RuntimeEvent>,
    latecomers: mpsc::Receiver<Vec<Found>>,
    labelled: mpsc::Receiver<Vec<Labelled>>,
}

impl Driver {
    /// Builds a driver and the handle by which it is spoken to. What served last is routed to; nothing
    /// else happens before [`Driver::run`].
    #[must_use]
    pub fn new(parts: Parts) -> (Self, Handle) {
        let (asks_in, asks) = mpsc::channel(QUEUE);
        let (done_in, done) = mpsc::channel(QUEUE);
        let (prepared_in, prepared) = mpsc::channel(QUEUE);
        let (archived_in, archived) = mpsc::channel(QUEUE);
        let (probes_in, probes) = mpsc::channel(QUEUE);
        let (runtime_in, runtime) = mpsc::channel(QUEUE);
        let (processes_in, processes) = mpsc::channel(QUEUE);
        let (latecomers_in, latecomers) = mpsc::channel(1);
        let labelled = parts.labelled.unwrap_or_else(|| mpsc::channel(1).1);
        let tasks = TaskTracker::new();
        let started = format!("{:.3}", jiff::Timestamp::now());
        let daemon = DaemonStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            configured: started.clone(),
            reload_refused: false,
            started,
            listen: Vec::new(),
            docker: None,
            notes: Vec::new(),
            stopping: false,
            certificates: Vec::new(),
            notify: Vec::new(),
            disk_free: None,
        };
        let last_event = parts
            .everything
            .active
            .iter()
            .map(|active| &active.events)
            .chain(parts.everything.history.iter().map(|entry| &entry.events))
            .flat_map(|events| events.iter().map(|event| event.id))
            .max()
            .unwrap_or(0);
        let last_rollout = parts
            .everything
            .active
            .iter()
            .map(|active| active.checkpoint.id)
            .chain(parts.everything.history.iter().map(|entry| entry.checkpoint.id))
            .max()
            .map_or(0, |id| id.0);
        let (services_seen, services_watch) = watch::channel(Arc::default());
        let (daemon_seen, daemon_watch) = watch::channel(Arc::new(daemon.clone()));
        let journal = Journal::new(last_event);
        let (events, recent) = journal.ends();
        let handle = Handle::new(asks_in, services_watch, daemon_watch, events, recent);
        let mut driver = Self {
            origin: Instant::now(),
            ticks: 0,
            base: u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0),
            recordings: parts.recordings,
            fleet: Fleet::new(parts.live, parts.workers),
            services: BTreeMap::new(),
            executor: Executor::new(done_in, tasks.clone(), parts.shutdown.clone(), parts.alone),
            tasks,
            runtimes: parts.runtimes,
            images: parts.images,
            archivist: parts.archivist,
            archived: archived_in,
            writer: parts.writer,
            journal,
            reload: parts.reload,
            last_rollout,
            daemon,
            config_note: None,
            store_note: None,
            docker_note: None,
            certificates: parts.certificates,
            configured: parts.services,
            labels: Labels::default(),
            measured: Former::default(),
            prepared: prepared_in,
            probes: probes_in,
            watches: [false; 2],
            reports: runtime_in,
            processes: processes_in,
            latecomers: latecomers_in,
            shutdown: parts.shutdown,
            services_seen,
            daemon_seen,
            inbox: Inbox {
                asks,
                done,
                prepared,
                archived,
                probes,
                runtime,
                processes,
                latecomers,
                labelled,
            },
        };
        driver.labels.take(&parts.containers, &driver.configured);
        for config in driver.wanted() {
            driver.add_service(config);
        }
        driver.remember(parts.everything);
        driver.route_as_remembered();
        (driver, handle)
    }

    /// Runs until it is told to stop. What serves goes on serving until the proxy is closed; child
    /// processes and containers are left to [`Driver::close`].
    pub async fn run(mut self) -> Self {
        self.recover().await;
        self.publish_status();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let shutdown = self.shutdown.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(done) = self.inbox.done.recv() => self.completed(done),
                Some(event) = self.inbox.runtime.recv() => self.engine_reported(event),
                Some(event) = self.inbox.processes.recv() => self.reported(event),
                Some(event) = self.inbox.probes.recv() => self.probed(event),
                Some(ask) = self.inbox.asks.recv() => {
                    let is_question = ask.is_question();
                    self.asked(ask);
                    if is_question {
                        continue;
                    }
                }
                Some(found) = self.inbox.latecomers.recv() => {
                    self.stop_strangers(&BTreeMap::from([("docker", found)]));
                }
                Some(found) = self.inbox.labelled.recv() => self.relabel(&found),
                Some(prepared) = self.inbox.prepared.recv() => self.begin_prepared(prepared),
                Some(archived) = self.inbox.archived.recv() => self.archived(archived),
                _ = ticks.tick() => {
                    if !self.tick() {
                        continue;
                    }
                }
            }
            self.keep_together();
            self.publish_status();
        }
        self.daemon.stopping = true;
        self.publish_status();
        self
    }

    pub(super) fn known(&self, name: &ServiceName) -> Result<&Service, Refused> {
        self.services.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.services.keys().map(ServiceName::as_str).collect();
            let there_are = match names.as_slice() {
                [] => "the configuration has none".to_owned(),
                [only] => format!("the only one is {only}"),
                names => format!("there are {}", names.join(", ")),
            };
            Refused::NotFound(format!("there is no service {name}: {there_are}"))
        })
    }

    pub(super) fn now(&self) -> Moment {
        Moment(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn next_rollout(&mut self) -> RolloutId {
        self.last_rollout += 1;
        RolloutId(self.last_rollout)
    }

    /// Tells of something that concerns a service; goes into its rollout's record when one is under
    /// way.
    pub(super) fn tell(&mut self, name: &ServiceName, kind: Kind, message: String) {
        let rollout = self.services.get(name).and_then(|s| s.active.as_ref()).map(|a| a.rollout.id);
        let happening = Happening { kind, service: Some(name), rollout, phase: None, message };
        let recorded = self.journal.tell(happening);
        if let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) {
            active.remember(recorded);
        }
    }

    /// Hands an event to a service's rollout and performs what comes out.
    pub(super) fn step(&mut self, name: &ServiceName, event: Event) -> bool {
        let now = self.now();
        let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) else {
            return false;
        };
        let before = active.rollout.attempt;
        let step = active.rollout.step(event, now);
        if active.rollout.attempt != before {
            self.entered(name);
        }
        if !step.effects.is_empty() {
            self.perform(name, step.effects);
        }
        !step.ignored
    }

    /// Looks around; whether there may be news. While no rollout is under way, what is counted is
    /// only for people, and three times a second are often enough.
    fn tick(&mut self) -> bool {
        let now = self.now();
        self.ticks = self.ticks.wrapping_add(1);
        let is_calm = self.services.values().all(|service| service.active.is_none());
        let looks = !is_calm || self.ticks.is_multiple_of(CALM_TICKS);
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in &names {
            self.follow_labels(name);
            self.keep(name, now);
            if looks {
                self.weigh(name, now);
            }
            self.look_for_lost(name);
            self.look_for_ready(name);
            self.look_for_restored(name);
            let diagnosis = self
                .services
                .get(name)
                .and_then(|s| s.active.as_ref())
                .and_then(|active| active.diagnosis.clone());
            self.step(name, Event::Tick { diagnosis });
        }
        looks
    }

    fn completed(&mut self, done: Done) {
        let Done { service: name, rollout, attempt, what } = done;
        match what {
            Completion::Relaunched { revision, replica, result } => {
                self.relaunched(&name, revision, replica, result);
                return;
            }
            Completion::Retired { revision } => {
                self.retired(&name, revision);
                return;
            }
            Completion::Left { revision } => {
                self.left(&name, revision);
                self.step(&name, Event::Cleared { attempt });
                return;
            }
            Completion::Hooked { moment, ran } => {
                self.hooked(&name, rollout, moment, &ran);
                return;
            }
            Completion::Outside(answer) => {
                self.answered_outside(&name, rollout, attempt, answer);
                return;
            }
            Completion::Fresh { revision, result } => {
                self.fresh_launched(&name, rollout, revision, result);
                return;
            }
            _ => {}
        }
        let current = self
            .services
            .get(&name)
            .and_then(|s| s.active.as_ref())
            .is_some_and(|active| active.rollout.id == rollout);
        if let Completion::Saved(result) = &what {
            self.written(&name, result);
        }
        if !current {
            if let Completion::Launched { revision, result: Ok(instances) } = what {
                self.discard(&name, revision, instances);
            }
            return;
        }
        match what {
            Completion::Launched { revision, result: Ok(instances) } => {
                if !self.step(&name, Event::Launched { attempt, instances: instances.clone() }) {
                    // Nobody waits for them any more: an abort came first.
                    self.discard(&name, revision, instances);
                }
            }
            Completion::Launched { result: Err(failure), .. } => {
                self.tell_logs(&name, "the instance", &failure.logs);
                self.step(&name, Event::LaunchFailed { attempt, sentence: failure.sentence });
            }
            Completion::Drained { cut } => {
                if cut > 0 {
                    let message = format!("{cut} requests were cut at the drain deadline");
                    self.tell(&name, Kind::Note, message);
                }
                self.step(&name, Event::Drained { attempt });
            }
            Completion::Stopped { logs } => {
                for (instance, lines) in logs {
                    self.tell_logs(&name, instance.short(), &lines);
                }
                self.step(&name, Event::Stopped { attempt });
            }
            Completion::Saved(result) => self.saved(&name, attempt, result),
            Completion::Smoked { failure } => {
                self.step(&name, Event::Smoked { attempt, failure });
            }
            Completion::Relaunched { .. }
            | Completion::Retired { .. }
            | Completion::Left { .. }
            | Completion::Fresh { .. }
            | Completion::Outside(_)
            | Completion::Hooked { .. } => {}
        }
    }

    /// Notes on which addresses the proxy listens, for people.
    pub fn listens(&mut self, addresses: Vec<String>) {
        self.daemon.listen = addresses;
        self.publish_status();
    }

    pub(super) fn publish_status(&mut self) {
        let now = self.now();
        let services: Vec<ServiceStatus> =
            self.services.values().map(|service| self.status_of(service, now)).collect();
        self.services_seen.send_replace(Arc::new(services));
        let notes = [&self.config_note, &self.store_note, &self.docker_note];
        self.daemon.notes = notes.into_iter().flatten().cloned().collect();
        if let Some(certificates) = &mut self.certificates {
            if certificates.has_changed().unwrap_or(false) || self.daemon.certificates.is_empty() {
                self.daemon.certificates = certificates.borrow_and_update().to_vec();
            }
            let notes = self.daemon.certificates.iter().filter_map(|one| one.note.clone());
            self.daemon.notes.extend(notes);
        }
        self.daemon.notes.extend(self.labels.notes.iter().cloned());
        if **self.daemon_seen.borrow() != self.daemon {
            self.daemon_seen.send_replace(Arc::new(self.daemon.clone()));
        }
    }
}

impl Active {
    /// Whether the rollout is past the point where a canary instance's end means anything.
    pub(super) fn is_going_back(&self) -> bool {
        matches!(
            self.rollout.phase,
            Phase::RollingBack { .. } | Phase::Restoring { .. } | Phase::RolledBack { .. }
        )
    }
}
