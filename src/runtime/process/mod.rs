//! Runtime `process`: instances are child processes, each behind a [shim](super::shim).
//!
//! Finds the shims of an earlier daemon and takes them over; launches, stops and reports. Does not
//! restart what ended, and does not probe.
//!
//! Invariants: one directory per instance under `<state>/instances`, named after its ownership, which
//! makes launching idempotent; only through its gate is a directory made, judged or removed, so one slow
//! instance holds up no other; a directory in which a shim is there or comes (`lock`) is neither judged
//! nor removed, so that what a daemon began in its last moment is found or ended, never doubled;
//! dropping the runtime stops nothing, and what is not taken over within `orphan_grace` stops by itself.

mod launch;
mod lock;
mod port;
pub(crate) mod program;
mod tether;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedMutexGuard, broadcast, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use self::tether::{Tether, bury};
use super::room::{self, Room, Spent, Usage};
use super::shim::output;
use super::shim::record::{Record, Spec};
use super::shim::wire::{self, Report};
use super::{
    Found, Runtime, RuntimeError, RuntimeEvent, State, Written, listening, procfs, secrets,
};
use crate::model::id::InstanceId;
use crate::model::instance::{Instance, Ownership};
use crate::model::revision::{RevisionSpec, Source};

/// How long a shim has to say that its instance runs. It takes milliseconds; the rest is for a
/// machine that swaps.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// Beyond the grace, what a stop may take: SIGKILL, the last output, the farewell of the shim.
const STOP_SLACK: Duration = Duration::from_secs(5);

/// How long a shim may run on without a daemon: longer than a restart of the daemon, shorter than
/// anybody's patience with processes left behind.
const ORPHAN_GRACE: Duration = Duration::from_secs(30);

/// Events that a slow listener may fall behind before it is told to list again.
const EVENTS: usize = 256;

/// Between tries to connect to a shim that is starting.
const CONNECT_POLL: Duration = Duration::from_millis(5);

/// What a shim that said its last word may take to leave: its own farewell, and the output of an app
/// that closed late.
const LEAVING: Duration = Duration::from_secs(2);

/// Between tries to remove a directory that a leaving shim still writes to.
const REMOVE_POLL: Duration = Duration::from_millis(20);

/// Such tries; with [`REMOVE_POLL`] one second, the farewell of a shim.
const REMOVE_TRIES: u32 = 50;

/// Runs instances as child processes.
#[derive(Debug)]
pub struct ProcessRuntime {
    instances: PathBuf,
    /// Where their secrets lie, if not with them.
    secrets: Option<PathBuf>,
    program: PathBuf,
    orphan_grace: Duration,
    tethers: Mutex<HashMap<InstanceId, Arc<Tether>>>,
    gates: Mutex<HashMap<InstanceId, Arc<tokio::sync::Mutex<()>>>>,
    ports: Mutex<HashMap<InstanceId, u16>>,
    events: broadcast::Sender<RuntimeEvent>,
    tasks: TaskTracker,
}

impl ProcessRuntime {
    /// A runtime that keeps its instances under `state_dir` and starts shims from `program`, the
    /// path of our own binary. Touches nothing yet.
    #[must_use]
    pub fn new(state_dir: &Path, program: PathBuf) -> Self {
        // The path is handed to shims and marks their processes: it must not depend on who looks.
        let state = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
        Self {
            instances: state.join("instances"),
            secrets: None,
            program,
            orphan_grace: ORPHAN_GRACE,
            tethers: Mutex::default(),
            gates: Mutex::default(),
            ports: Mutex::default(),
            events: broadcast::channel(EVENTS).0,
            tasks: TaskTracker::new(),
        }
    }

    /// Keeps secrets of instances launched from now on below `dir`, apart from what else they have.
    #[must_use]
    pub fn with_secrets(mut self, dir: &Path) -> Self {
        self.secrets = Some(std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
        self
    }

    /// Sets how long instances launched from now on run without a daemon; 30 s otherwise.
    #[must_use]
    pub const fn with_orphan_grace(mut self, grace: Duration) -> Self {
        self.orphan_grace = grace;
        self
    }

    fn tethers(&self) -> MutexGuard<'_, HashMap<InstanceId, Arc<Tether>>> {
        whole(&self.tethers)
    }

    /// The right to make, judge or remove an instance's directory, one holder at a time.
    async fn gate(&self, id: &InstanceId) -> OwnedMutexGuard<()> {
        let gate = {
            let mut gates = whole(&self.gates);
            // A gate that nobody holds or waits for is only in the map.
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
            Arc::clone(gates.entry(id.clone()).or_default())
        };
        gate.lock_owned().await
    }

    /// Reserves a free port until the instance is forgotten. One that is written down for another
    /// instance is not free, even while nobody listens on it.
    fn reserve_port(&self, id: &InstanceId) -> Result<u16, RuntimeError> {
        let mut ports = whole(&self.ports);
        let mut taken: HashSet<u16> = ports.values().copied().collect();
        let others = fs::read_dir(&self.instances).into_iter().flatten().flatten();
        taken.extend(others.filter_map(|other| Some(Spec::read(&other.path()).ok()?.port)));
        let port = port::choose(&taken)
            .map_err(|error| RuntimeError::Failed(format!("no free port on loopback: {error}")))?;
        ports.insert(id.clone(), port);
        Ok(port)
    }

    /// The directory of an instance; none for a name that is not one of ours.
    fn dir(&self, id: &InstanceId) -> Option<PathBuf> {
        let mut parts = Path::new(id.0.as_ref()).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        plain.then(|| self.instances.join(id.0.as_ref()))
    }

    fn tie(
        &self,
        id: &InstanceId,
        dir: PathBuf,
        port: u16,
        stream: tokio::net::UnixStream,
    ) -> Arc<Tether> {
        let (id, events) = (id.clone(), self.events.clone());
        whole(&self.ports).insert(id.clone(), port);
        let tether = Arc::new(Tether::new(id.clone(), dir, port, stream, events, &self.tasks));
        self.tethers().insert(id, Arc::clone(&tether));
        tether
    }

    /// The tether to an instance, tied anew when its shim lives from an earlier daemon. Only
    /// through its gate.
    async fn tether(&self, id: &InstanceId) -> Option<Arc<Tether>> {
        let known = self.tethers().get(id).map(Arc::clone);
        if known.is_some() {
            return known;
        }
        let dir = self.dir(id)?;
        let port = Spec::read(&dir).ok()?.port;
        let stream = reach(&dir).await?;
        let tether = self.tie(id, dir, port, stream);
        let up = tether.wait_for(|report| !matches!(report, Report::Starting));
        let _late = timeout(START_DEADLINE, up).await;
        Some(tether)
    }

    /// How an instance is; what is left of a dead one is ended. Only through its gate.
    async fn state(&self, id: &InstanceId) -> State {
        let Some(dir) = self.dir(id).filter(|dir| dir.is_dir()) else { return State::Gone };
        let last = match self.tether(id).await {
            Some(tether) => match tether.report() {
                Report::Starting | Report::Running { .. } => {
                    let instance = Instance { id: id.clone(), address: address(tether.port) };
                    return State::Running { instance, health: None };
                }
                Report::Ended(exit) => Some(exit),
                Report::Failed(_) => None,
            },
            None => None,
        };
        match last {
            Some(exit) => State::Ended(exit),
            None => State::Ended(bury(&dir).await),
        }
    }

    async fn find_all(&self) -> Result<Vec<Found>, RuntimeError> {
        let entries = match fs::read_dir(&self.instances) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(RuntimeError::Failed(format!(
                    "{} cannot be read: {error}",
                    self.instances.display()
                )));
            }
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str().map(InstanceId::new) else { continue };
            let _gate = self.gate(&id).await;
            let Ok(spec) = Spec::read(&entry.path()) else {
                // A daemon died while it made the directory, and no shim was started; or the instance
                // was removed while we waited.
                if !lock::held(&entry.path()) {
                    remove(&entry.path()).await?;
                }
                continue;
            };
            let state = self.state(&id).await;
            found.push(Found { id, ownership: spec.ownership, state });
        }
        Ok(found)
    }

    /// Stops an instance and removes what it leaves.
    async fn end(&self, id: &InstanceId, grace: Duration) -> Result<(), RuntimeError> {
        let Some(dir) = self.dir(id) else { return Ok(()) };
        let gate = self.gate(id).await;
        let stopped = self.tether(id).await;
        drop(gate);
        if let Some(tether) = &stopped {
            tether.stop(grace).await;
            if timeout(grace + STOP_SLACK, tether.wait_for(ended)).await.is_err() {
                tracing::warn!(instance = %id, "the shim did not stop its instance: killing both");
            }
        }
        let _gate = self.gate(id).await;
        let now = self.tethers().get(id).map(Arc::clone);
        if let Some(now) = now
            && !stopped.is_some_and(|stopped| Arc::ptr_eq(&stopped, &now))
        {
            // Launched again since then.
            return Ok(());
        }
        if dir.is_dir() {
            bury(&dir).await;
        }
        self.forget(id, &dir).await
    }

    async fn forget(&self, id: &InstanceId, dir: &Path) -> Result<(), RuntimeError> {
        self.tethers().remove(id);
        let waited = dir.to_owned();
        // Only an absent async runtime keeps the wait from being joined.
        let free = tokio::task::spawn_blocking(move || lock::free(&waited, LEAVING)).await;
        if matches!(free, Ok(false)) {
            return Err(RuntimeError::Failed(format!(
                "the process that watches over {id} does not end, even killed: a disk or the machine hangs"
            )));
        }
        whole(&self.ports).remove(id);
        remove(dir).await
    }
}

impl Runtime for ProcessRuntime {
    fn name(&self) -> &'static str {
        "process"
    }

    fn prepare<'a>(
        &'a self,
        spec: &'a RevisionSpec,
    ) -> BoxFuture<'a, Result<RevisionSpec, RuntimeError>> {
        async move {
            let path = spec.env.get("PATH").map(String::as_str);
            program::locate(command(spec)?, path).map_err(RuntimeError::NotFound)?;
            secrets::check(&spec.secrets)?;
            Ok(spec.clone())
        }
        .boxed()
    }

    fn launch<'a>(
        &'a self,
        spec: &'a RevisionSpec,
        ownership: &'a Ownership,
    ) -> BoxFuture<'a, Result<Instance, RuntimeError>> {
        self.start(spec, ownership).boxed()
    }

    fn stop<'a>(
        &'a self,
        instance: &'a InstanceId,
        grace: Duration,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.end(instance, grace).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>, RuntimeError>> {
        self.find_all().boxed()
    }

    fn inspect<'a>(
        &'a self,
        instance: &'a InstanceId,
    ) -> BoxFuture<'a, Result<State, RuntimeError>> {
        async move {
            let _gate = self.gate(instance).await;
            Ok(self.state(instance).await)
        }
        .boxed()
    }

    fn logs<'a>(
        &'a self,
        instance: &'a InstanceId,
        lines: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, RuntimeError>> {
        async move {
            let Some(dir) = self.dir(instance) else { return Ok(Vec::new()) };
            tail(&dir, lines).await.map_err(|error| {
                RuntimeError::Failed(format!("the output of {instance} cannot be read: {error}"))
            })
        }
        .boxed()
    }

    fn written<'a>(
        &'a self,
        instance: &'a InstanceId,
        lines: usize,
        since: Option<jiff::Timestamp>,
    ) -> BoxFuture<'a, Result<Vec<Written>, RuntimeError>> {
        async move {
            let Some(dir) = self.dir(instance) else { return Ok(Vec::new()) };
            let read = move || output::written(&dir, lines, since);
            let read = tokio::task::spawn_blocking(read).await.map_err(io::Error::other);
            read.and_then(|read| read).map_err(|error| {
                RuntimeError::Failed(format!("the output of {instance} cannot be read: {error}"))
            })
        }
        .boxed()
    }

    fn diagnose<'a>(&'a self, instance: &'a Instance) -> BoxFuture<'a, Option<String>> {
        async move {
            let dir = self.dir(&instance.id)?;
            let child = Record::read(&dir).ok()?.child.filter(procfs::Identity::runs)?;
            let wanted = instance.address;
            let look = move || {
                let ours = |pid: &i32| procfs::group_of(*pid) == Some(child.pid);
                let pids: Vec<i32> = procfs::pids().filter(ours).collect();
                listening::explain(&listening::held_by(&pids)?, wanted, |_| {
                    format!(
                        "it must listen on the port that replaces {{port}} in its command, also in $PORT; here {}",
                        wanted.port()
                    )
                })
            };
            tokio::task::spawn_blocking(look).await.ok()?
        }
        .boxed()
    }

    fn usage<'a>(&'a self, instance: &'a InstanceId) -> BoxFuture<'a, Option<Usage>> {
        async move {
            let dir = self.dir(instance)?;
            let child = Record::read(&dir).ok()?.child.filter(procfs::Identity::runs)?;
            tokio::task::spawn_blocking(move || room::of_group(child.pid)).await.ok()
        }
        .boxed()
    }

    fn spent<'a>(&'a self, instance: &'a InstanceId) -> BoxFuture<'a, Option<Spent>> {
        async move {
            let dir = self.dir(instance)?;
            let child = Record::read(&dir).ok()?.child.filter(procfs::Identity::runs)?;
            tokio::task::spawn_blocking(move || room::spent_by_group(child.pid)).await.ok()
        }
        .boxed()
    }

    fn room(&self) -> BoxFuture<'_, Room> {
        let dir = self.instances.clone();
        async move {
            let look = move || Room::here(&dir);
            tokio::task::spawn_blocking(look).await.unwrap_or_default()
        }
        .boxed()
    }

    fn watch(&self, events: mpsc::Sender<RuntimeEvent>) {
        let mut ours = self.events.subscribe();
        self.tasks.spawn(async move {
            let mut next = RuntimeEvent::Connected;
            loop {
                if events.send(next).await.is_err() {
                    return;
                }
                next = tokio::select! {
                    received = ours.recv() => match received {
                        Ok(event) => event,
                        // What was missed is found by listing, which is what `Connected` asks for.
                        Err(broadcast::error::RecvError::Lagged(_)) => RuntimeEvent::Connected,
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                    () = events.closed() => return,
                };
            }
        });
    }
}

/// Locks a map of which only whole entries are put in and taken out: a panic elsewhere leaves it sound.
fn whole<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

const fn ended(report: &Report) -> bool {
    matches!(report, Report::Ended(_) | Report::Failed(_))
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn id(ownership: &Ownership) -> InstanceId {
    let Ownership { service, revision, rollout, replica } = ownership;
    InstanceId::new(&format!("{service}-r{revision}-{rollout}-{replica}"))
}

fn command(spec: &RevisionSpec) -> Result<&[String], RuntimeError> {
    match &spec.source {
        Source::Command(command) => Ok(command),
        Source::Image(_) | Source::Endpoints(_) => Err(RuntimeError::Failed(format!(
            "{} is not a command, and the runtime process runs nothing else",
            spec.source
        ))),
    }
}

/// Connects to the shim of a directory; waits for one that is still to come. None when there is none
/// and none will be, or when it hangs.
async fn reach(dir: &Path) -> Option<tokio::net::UnixStream> {
    let deadline = tokio::time::Instant::now() + START_DEADLINE;
    loop {
        // In this order: who listens after the look had the lock at the look.
        let held = lock::held(dir);
        if let Ok(stream) = wire::connect(dir).await {
            return Some(stream);
        }
        let over = |record: Record| record.exit.is_some() || record.failure.is_some();
        if !held || Record::read(dir).is_ok_and(over) || tokio::time::Instant::now() > deadline {
            return None;
        }
        sleep(CONNECT_POLL).await;
    }
}

async fn tail(dir: &Path, lines: usize) -> io::Result<Vec<String>> {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || output::tail(&dir, lines))
        .await
        .map_err(io::Error::other)?
}

async fn remove(dir: &Path) -> Result<(), RuntimeError> {
    launch::forget_secrets(dir);
    let mut tries = 0;
    loop {
        match fs::remove_dir_all(dir) {
            Ok(()) => return Ok(()),
            // Gone, or never there, or below what is not a directory.
            Err(_) if fs::symlink_metadata(dir).is_err() => return Ok(()),
            Err(_) if tries < REMOVE_TRIES => tries += 1,
            Err(error) => {
                return Err(RuntimeError::Failed(format!(
                    "{} cannot be removed: {error}",
                    dir.display()
                )));
            }
        }
        sleep(REMOVE_POLL).await;
    }
}
