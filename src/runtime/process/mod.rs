//! Runtime `process`: instances are child processes, each behind a [shim](super::shim).
//!
//! Finds the shims of an earlier daemon and takes them over; launches, stops and reports. Does not
//! restart what ended, and does not probe.
//!
//! Invariants: one directory per instance under `<state>/instances`, named after its ownership, which
//! makes launching idempotent; only under `starting` are directories made or judged; dropping the
//! runtime stops nothing, and what is not taken over within `orphan_grace` stops by itself.

mod port;
mod program;
mod tether;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use self::tether::{Tether, bury};
use super::shim::output;
use super::shim::record::{Record, Spec};
use super::shim::wire::{self, Report};
use super::{Found, Runtime, RuntimeError, RuntimeEvent, State, listening, procfs};
use crate::model::id::InstanceId;
use crate::model::instance::{Exit, Instance, Ownership};
use crate::model::revision::{RevisionSpec, Source};

/// How long a shim has to say that its instance runs. It takes milliseconds; the rest is for a
/// machine that swaps.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// How long a new instance is watched for ending at once (a wrong flag, a missing file), so that
/// its launch can say so.
const SETTLE: Duration = Duration::from_millis(50);

/// Beyond the grace, what a stop may take: SIGKILL, the last output, the farewell of the shim.
const STOP_SLACK: Duration = Duration::from_secs(5);

/// How long a shim may run on without a daemon: longer than a restart of the daemon, shorter than
/// anybody's patience with processes left behind.
const ORPHAN_GRACE: Duration = Duration::from_secs(30);

/// Bytes of output kept per log file, two files per instance.
const LOG_BYTES: u64 = 1024 * 1024;

/// Lines of output that a failed launch carries.
const LAST_LINES: usize = 50;

/// Events that a slow listener may fall behind before it is told to list again.
const EVENTS: usize = 256;

/// Between tries to connect to a shim that is starting.
const CONNECT_POLL: Duration = Duration::from_millis(5);

/// Between tries to remove a directory that a leaving shim still writes to.
const REMOVE_POLL: Duration = Duration::from_millis(20);

/// Such tries; with [`REMOVE_POLL`] one second, the farewell of a shim.
const REMOVE_TRIES: u32 = 50;

/// Runs instances as child processes.
#[derive(Debug)]
pub struct ProcessRuntime {
    instances: PathBuf,
    program: PathBuf,
    orphan_grace: Duration,
    tethers: Mutex<HashMap<InstanceId, Arc<Tether>>>,
    starting: tokio::sync::Mutex<()>,
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
            program,
            orphan_grace: ORPHAN_GRACE,
            tethers: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            events: broadcast::channel(EVENTS).0,
            tasks: TaskTracker::new(),
        }
    }

    /// Sets how long instances launched from now on run without a daemon; 30 s otherwise.
    #[must_use]
    pub const fn with_orphan_grace(mut self, grace: Duration) -> Self {
        self.orphan_grace = grace;
        self
    }

    fn tethers(&self) -> MutexGuard<'_, HashMap<InstanceId, Arc<Tether>>> {
        // Only whole entries are put in and taken out: a panic elsewhere leaves the map sound.
        self.tethers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory of an instance; none for a name that is not one of ours.
    fn dir(&self, id: &InstanceId) -> Option<PathBuf> {
        let mut parts = Path::new(id.0.as_ref()).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        plain.then(|| self.instances.join(id.0.as_ref()))
    }

    async fn start(
        &self,
        spec: &RevisionSpec,
        ownership: &Ownership,
    ) -> Result<Instance, RuntimeError> {
        let command = command(spec)?;
        let id = id(ownership);
        let starting = self.starting.lock().await;
        let tether = match self.tether(&id).await {
            Some(tether) if !ended(&tether.report()) => tether,
            _ => self.make(&id, spec, command, ownership).await?,
        };
        drop(starting);

        let up = tether.wait_for(|report| !matches!(report, Report::Starting));
        match timeout(START_DEADLINE, up).await {
            Err(_) => {
                self.end(&id, Duration::ZERO).await?;
                return Err(RuntimeError::Timeout {
                    what: "starting an instance",
                    after: START_DEADLINE,
                });
            }
            Ok(Report::Starting | Report::Running { .. }) => {
                // Timing out is the good end.
                let _runs = timeout(SETTLE, tether.wait_for(ended)).await;
            }
            Ok(Report::Ended(_) | Report::Failed(_)) => {}
        }
        let last = match tether.report() {
            Report::Starting | Report::Running { .. } => {
                return Ok(Instance { id, address: address(tether.port) });
            }
            last => last,
        };
        let logs = tail(&tether.dir, LAST_LINES).await.unwrap_or_default();
        self.forget(&id, &tether.dir).await?;
        Err(match last {
            Report::Failed(failure) if failure.command => RuntimeError::NotFound(failure.reason),
            Report::Failed(failure) => RuntimeError::Failed(failure.reason),
            Report::Ended(exit) => RuntimeError::Ended { exit, logs },
            Report::Starting | Report::Running { .. } => {
                RuntimeError::Ended { exit: Exit::default(), logs }
            }
        })
    }

    /// Makes the directory and starts the shim. Only under `starting`.
    async fn make(
        &self,
        id: &InstanceId,
        spec: &RevisionSpec,
        command: &[String],
        ownership: &Ownership,
    ) -> Result<Arc<Tether>, RuntimeError> {
        let dir = self.instances.join(id.0.as_ref());
        self.forget(id, &dir).await?;
        let taken: HashSet<u16> = self.tethers().values().map(|tether| tether.port).collect();
        let port = port::choose(&taken)
            .map_err(|error| RuntimeError::Failed(format!("no free port on loopback: {error}")))?;
        let spec = Spec {
            ownership: ownership.clone(),
            command: command.to_vec(),
            port,
            env: spec.env.clone(),
            stop_grace: spec.stop_grace,
            orphan_grace: self.orphan_grace,
            log_bytes: LOG_BYTES,
        };
        let unwritable = |error: io::Error| {
            RuntimeError::Failed(format!(
                "{} cannot be written ({error}): make room or give the right to, or set [state] dir to another place",
                dir.display()
            ))
        };
        make_dir(&dir).map_err(unwritable)?;
        spec.write(&dir).map_err(unwritable)?;
        let log = fs::File::create(dir.join("shim.log")).map_err(unwritable)?;
        let output = log.try_clone().map_err(unwritable)?;

        let mut shim = tokio::process::Command::new(&self.program)
            .args(["instance-shim".as_ref(), "--dir".as_ref(), dir.as_os_str()])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .spawn()
            .map_err(|error| {
                RuntimeError::Failed(format!(
                    "{} cannot be started: {error}",
                    self.program.display()
                ))
            })?;

        let deadline = Instant::now() + START_DEADLINE;
        let connected = loop {
            if let Ok(stream) = wire::connect(&dir).await {
                break Some(stream);
            }
            let left = shim.try_wait().map_or(true, |status| status.is_some());
            if left || Instant::now() > deadline {
                break None;
            }
            sleep(CONNECT_POLL).await;
        };
        // A child must be waited for, or it stays a zombie while we live.
        self.tasks.spawn(async move { shim.wait().await });
        if let Some(stream) = connected {
            return Ok(self.tie(id, dir, port, stream));
        }
        // It left before we came: the record says why, or else what it complained of.
        let failure = Record::read(&dir).ok().and_then(|record| record.failure);
        let said = fs::read_to_string(dir.join("shim.log")).unwrap_or_default();
        let exit = bury(&dir).await;
        let logs = tail(&dir, LAST_LINES).await.unwrap_or_default();
        self.forget(id, &dir).await?;
        Err(match failure {
            Some(failure) if failure.command => RuntimeError::NotFound(failure.reason),
            Some(failure) => RuntimeError::Failed(failure.reason),
            None if exit == Exit::default() => RuntimeError::Failed(format!(
                "the process that watches over the instance ended at once: {}",
                said.lines().last().unwrap_or("it said nothing")
            )),
            None => RuntimeError::Ended { exit, logs },
        })
    }

    fn tie(
        &self,
        id: &InstanceId,
        dir: PathBuf,
        port: u16,
        stream: tokio::net::UnixStream,
    ) -> Arc<Tether> {
        let (id, events) = (id.clone(), self.events.clone());
        let tether = Arc::new(Tether::new(id.clone(), dir, port, stream, events, &self.tasks));
        self.tethers().insert(id, Arc::clone(&tether));
        tether
    }

    /// The tether to an instance, tied anew when its shim lives from an earlier daemon. Only under
    /// `starting`.
    async fn tether(&self, id: &InstanceId) -> Option<Arc<Tether>> {
        let known = self.tethers().get(id).map(Arc::clone);
        if known.is_some() {
            return known;
        }
        let dir = self.dir(id)?;
        let port = Spec::read(&dir).ok()?.port;
        let stream = wire::connect(&dir).await.ok()?;
        let tether = self.tie(id, dir, port, stream);
        let up = tether.wait_for(|report| !matches!(report, Report::Starting));
        let _late = timeout(START_DEADLINE, up).await;
        Some(tether)
    }

    /// How an instance is; what is left of a dead one is ended. Only under `starting`.
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
        let starting = self.starting.lock().await;
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
            let Ok(spec) = Spec::read(&entry.path()) else {
                // A daemon died while it made the directory: no shim was started.
                remove(&entry.path()).await?;
                continue;
            };
            let state = self.state(&id).await;
            found.push(Found { id, ownership: spec.ownership, state });
        }
        drop(starting);
        Ok(found)
    }

    /// Stops an instance and removes what it leaves.
    async fn end(&self, id: &InstanceId, grace: Duration) -> Result<(), RuntimeError> {
        let Some(dir) = self.dir(id) else { return Ok(()) };
        let starting = self.starting.lock().await;
        let tether = self.tether(id).await;
        drop(starting);
        if let Some(tether) = tether {
            tether.stop(grace).await;
            if timeout(grace + STOP_SLACK, tether.wait_for(ended)).await.is_err() {
                tracing::warn!(instance = %id, "the shim did not stop its instance: killing both");
            }
        }
        let starting = self.starting.lock().await;
        if dir.is_dir() {
            bury(&dir).await;
        }
        self.forget(id, &dir).await?;
        drop(starting);
        Ok(())
    }

    async fn forget(&self, id: &InstanceId, dir: &Path) -> Result<(), RuntimeError> {
        self.tethers().remove(id);
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
            let _starting = self.starting.lock().await;
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

/// Others must not reach the socket or read the output.
fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

async fn tail(dir: &Path, lines: usize) -> io::Result<Vec<String>> {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || output::tail(&dir, lines))
        .await
        .map_err(io::Error::other)?
}

async fn remove(dir: &Path) -> Result<(), RuntimeError> {
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
