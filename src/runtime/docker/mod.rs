//! Runtime `docker`: instances are containers on a Docker Engine.
//!
//! Creates, starts, inspects, stops and removes containers that carry our labels, and touches no
//! others. Does not restart what ended (the engine is told not to, either), publishes no ports, and
//! does not log in to registries.
//!
//! Invariants: what is ours is told by labels alone, so a daemon that comes back finds it; a failed
//! launch leaves no container; an engine that is gone, hung or strange makes calls fail within their
//! deadlines and nothing else.

mod adopt;
pub mod build;
mod client;
mod container;
pub mod data;
mod diagnose;
mod hardening;
mod image;
pub mod keep;
mod labelled;
mod once;
mod output;
mod private;
mod room;
mod watch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, NetworkConnectRequest};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, RemoveContainerOptions, StopContainerOptions,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use self::client::{ANSWER, Client, Host, Trouble};
use super::hook::Ran;
use super::room::{Room, Spent, Usage};
use super::{Found, Runtime, RuntimeError, RuntimeEvent, State, Written};
use crate::model::id::InstanceId;
use crate::model::instance::{Instance, Ownership};
use crate::model::labelled::Labelled;
use crate::model::progress::Listener;
use crate::model::revision::{RevisionSpec, Source};

/// What creating or starting a container may take: a fraction of a second, on a busy disk more.
const START: Duration = Duration::from_secs(60);

/// What removing a container, with its layer on disk, may take.
const REMOVE: Duration = Duration::from_secs(60);

/// Beyond its grace, what a stop may take: the engine kills and then waits up to 10 s itself.
const STOP_SLACK: Duration = Duration::from_secs(20);

/// How often a name that somebody takes at this moment is looked at, and the pause between: an engine
/// creates a container within a fraction of a second, on a busy disk within a few.
const NAME_TRIES: u32 = 100;
const NAME_PAUSE: Duration = Duration::from_millis(100);

/// Lines of output that a failed launch carries.
const LAST_LINES: usize = 50;

/// Runs instances as containers.
#[derive(Debug)]
pub struct DockerRuntime {
    client: Arc<Client>,
    daemon: String,
    secrets: Option<PathBuf>,
    tasks: TaskTracker,
}

impl DockerRuntime {
    /// A runtime on the engine at `docker_host` (in the words of `DOCKER_HOST`) for the daemon with
    /// this id: only containers with its label are ours. Connects to nothing yet.
    ///
    /// # Errors
    /// When `docker_host` is neither `unix://` nor `tcp://`.
    pub fn new(docker_host: &str, daemon: &str) -> Result<Self, RuntimeError> {
        let host = Host::parse(docker_host).map_err(RuntimeError::Failed)?;
        let (client, daemon) = (Arc::new(Client::new(host)), daemon.to_owned());
        Ok(Self { client, daemon, secrets: None, tasks: TaskTracker::new() })
    }

    /// All running containers with labels that say what they serve, and that we did not launch.
    pub async fn labelled(&self) -> Result<Vec<Labelled>, RuntimeError> {
        labelled::list(&self.client).await
    }

    /// Tells of them, now and whenever they may have changed, until nobody listens.
    pub fn follow_labelled(&self, changes: mpsc::Sender<Vec<Labelled>>) {
        self.tasks.spawn(labelled::follow(Arc::clone(&self.client), changes));
    }

    /// Makes an image of a root file system (a tar) that starts `program`.
    pub async fn import(
        &self,
        name: &str,
        root: Vec<u8>,
        program: &str,
    ) -> Result<(), RuntimeError> {
        image::import(&self.client, name, root, program).await
    }

    async fn resolved(
        &self,
        spec: &RevisionSpec,
        told: &Listener,
    ) -> Result<RevisionSpec, RuntimeError> {
        self.check_secrets(spec)?;
        let always = spec.container.pull_always;
        let mut prepared = spec.clone();
        if let Some(id) = &spec.container.image_id {
            // What was prepared before is this image, whatever its name means by now.
            image::resolve(&self.client, id, false, told).await?;
            return Ok(prepared);
        }
        let found = image::resolve(&self.client, image(spec)?, always, told).await?;
        prepared.container.image_id = Some(found.id);
        prepared.container.digest = found.digest;
        Ok(self.with_user(prepared).await)
    }

    async fn start(
        &self,
        spec: &RevisionSpec,
        ownership: &Ownership,
    ) -> Result<Instance, RuntimeError> {
        let spec = &self.on_own_network(spec, &ownership.service).await?;
        let (id, fresh) = self.create(spec, ownership).await?;
        if let Err(error) = self.run(spec, &id, fresh).await {
            self.discard(&id).await;
            return Err(error);
        }
        let found = self.look(&id).await?.ok_or_else(|| {
            RuntimeError::Failed(format!("somebody removed the container {id} while it started"))
        })?;
        match container::state(&found) {
            State::Running { instance, .. } => Ok(instance),
            _ if found.state.as_ref().and_then(|state| state.running) == Some(true) => {
                self.discard(&id).await;
                Err(RuntimeError::Failed(format!(
                    "the container has no address on the network {}: name a network in [service] networks that gives addresses",
                    container::network(spec)
                )))
            }
            State::Ended(exit) => {
                let logs = self.tail(&id, LAST_LINES).await.unwrap_or_default();
                self.discard(&id).await;
                let hint = hardening::hint(spec, &logs);
                Err(RuntimeError::Ended { exit, logs, hint })
            }
            State::Gone => Err(RuntimeError::Failed(format!("the engine says nothing about {id}"))),
        }
    }

    /// The container of this ownership: its id, and whether it was created just now. The name is
    /// what makes it unique; when another daemon on the same engine has it, ours is added.
    async fn create(
        &self,
        spec: &RevisionSpec,
        ownership: &Ownership,
    ) -> Result<(String, bool), RuntimeError> {
        let typed = image(spec)?;
        let image = spec.container.image_id.as_deref().unwrap_or(typed);
        let plain = container::name(ownership);
        let mut fetched = false;
        for name in [plain.clone(), format!("{plain}-{}", self.daemon)] {
            for _ in 0..NAME_TRIES {
                if let Some(found) = self.look(&name).await? {
                    if !self.is_of(&found, ownership) {
                        break;
                    }
                    let id = found.id.clone().unwrap_or_default();
                    let state = found.state.unwrap_or_default();
                    let started = state.started_at.is_some_and(|at| !at.starts_with("0001-"));
                    if state.running == Some(true) {
                        return Ok((id, false));
                    }
                    if !started {
                        return Ok((id, true));
                    }
                    // It ran and ended: an instance begins afresh.
                    self.remove(&id).await?;
                }
                let options = CreateContainerOptions {
                    name: Some(name.clone()),
                    ..CreateContainerOptions::default()
                };
                let mut body = container::body(spec, image, ownership, &self.daemon);
                self.give_secrets(spec, &name, &mut body).await?;
                let create = |docker: Docker| async move {
                    docker.create_container(Some(options), body).await
                };
                match self.client.call("creating a container", START, create).await {
                    Ok(created) => return Ok((created.id, true)),
                    // Somebody has the name: another daemon that was a moment faster, or a launch of
                    // ours that was cut short and is still under way. The next look tells.
                    Err(Trouble::Refused { status: 409, .. }) => sleep(NAME_PAUSE).await,
                    Err(Trouble::Refused { status: 404, .. }) if !fetched => {
                        fetched = true;
                        self.fetch_again(typed, spec).await?;
                    }
                    Err(Trouble::Refused { status: 404, .. }) => return Err(gone(typed, "")),
                    Err(trouble) => return Err(trouble.into()),
                }
            }
        }
        Err(RuntimeError::Failed(format!(
            "a container named {plain} exists and is not ours: remove or rename it"
        )))
    }

    /// Pulls the image of a revision that somebody removed from the engine, by its digest.
    async fn fetch_again(&self, typed: &str, spec: &RevisionSpec) -> Result<(), RuntimeError> {
        let Some(digest) = &spec.container.digest else { return Err(gone(typed, "")) };
        let (name, _) = image::split(typed.split('@').next().unwrap_or(typed));
        let exactly = format!("{name}@{digest}");
        tracing::info!(image = exactly, "pulling what was removed from the engine");
        let pulled = image::resolve(&self.client, &exactly, false, &Listener::default()).await;
        pulled.map(drop).map_err(|error| gone(typed, &format!(" ({error})")))
    }

    fn is_of(&self, found: &ContainerInspectResponse, ownership: &Ownership) -> bool {
        container::ownership(&container::labels(found), &self.daemon).as_ref() == Some(ownership)
    }

    /// Removes what a failed launch left; the failure of the launch is what is told.
    async fn discard(&self, id: &str) {
        if let Err(error) = self.remove(id).await {
            tracing::warn!(container = id, %error, "a container that failed to start stays behind");
        }
    }

    /// Joins the further networks and starts.
    async fn run(&self, spec: &RevisionSpec, id: &str, fresh: bool) -> Result<(), RuntimeError> {
        if !fresh {
            return Ok(());
        }
        for network in spec.container.networks.iter().skip(1) {
            let endpoint_config = container::endpoint(spec, network);
            let request = NetworkConnectRequest { container: id.to_owned(), endpoint_config };
            let join =
                |docker: Docker| async move { docker.connect_network(network, request).await };
            match self.client.call("joining a network", START, join).await {
                // 403: it is there already, from a launch that was cut short.
                Ok(()) | Err(Trouble::Refused { status: 403, .. }) => {}
                Err(Trouble::Refused { status: 404, .. }) => return Err(no_network(network)),
                Err(trouble) => return Err(trouble.into()),
            }
        }
        let name = id.to_owned();
        let start = |docker: Docker| async move { docker.start_container(&name, None).await };
        match self.client.call("starting a container", START, start).await {
            Ok(()) => Ok(()),
            Err(Trouble::Refused { message, .. })
                if message.contains("network") && message.contains("not found") =>
            {
                Err(no_network(container::network(spec)))
            }
            Err(Trouble::Refused { message, .. }) => Err(RuntimeError::Failed(format!(
                "{} cannot be started: {}",
                spec.source,
                message.trim()
            ))),
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// Inspects a container by id or name; none when there is no such.
    async fn look(&self, name: &str) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let name = name.to_owned();
        let inspect = |docker: Docker| async move { docker.inspect_container(&name, None).await };
        match self.client.call("looking at a container", ANSWER, inspect).await {
            Ok(found) => Ok(Some(found)),
            Err(Trouble::Refused { status: 404, .. }) => Ok(None),
            Err(trouble) => Err(trouble.into()),
        }
    }

    async fn find_all(&self) -> Result<Vec<Found>, RuntimeError> {
        let filter = vec![format!("{}={}", container::DAEMON, self.daemon)];
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), filter)])),
            ..ListContainersOptions::default()
        };
        let list = |docker: Docker| async move { docker.list_containers(Some(options)).await };
        if self.keeps_secrets() {
            self.forget_secrets().await?;
        }
        let mut all = Vec::new();
        for summary in self.client.call("listing containers", ANSWER, list).await? {
            let Some(id) = summary.id else { continue };
            // Removed between the list and the look: not there.
            let Some(found) = self.look(&id).await? else { continue };
            match container::ownership(&container::labels(&found), &self.daemon) {
                Some(ownership) => {
                    let state = container::state(&found);
                    all.push(Found { id: InstanceId::new(&id), ownership, state });
                }
                None => tracing::warn!(container = id, "its labels are not whole: left alone"),
            }
        }
        Ok(all)
    }

    async fn end(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let options = StopContainerOptions {
            t: i32::try_from(seconds).ok(),
            ..StopContainerOptions::default()
        };
        let name = id.to_owned();
        let stop =
            |docker: Docker| async move { docker.stop_container(&name, Some(options)).await };
        match self.client.call("stopping a container", grace + STOP_SLACK, stop).await {
            // 304: it has ended already.
            Ok(()) | Err(Trouble::Refused { status: 304, .. }) => self.remove(id).await,
            Err(Trouble::Refused { status: 404, .. }) => Ok(()),
            Err(trouble) => Err(trouble.into()),
        }
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let found = if self.keeps_secrets() { self.look(id).await? } else { None };
        let secrets = found.and_then(|found| self.secrets_of(&found));
        self.remove_it(id).await?;
        if let Some(dir) = secrets {
            let _gone = tokio::fs::remove_dir_all(dir).await;
        }
        Ok(())
    }

    async fn remove_it(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptions { force: true, v: true, link: false };
        let name = id.to_owned();
        let remove =
            |docker: Docker| async move { docker.remove_container(&name, Some(options)).await };
        match self.client.call("removing a container", REMOVE, remove).await {
            // 409: somebody else removes it at this moment.
            Ok(()) | Err(Trouble::Refused { status: 404 | 409, .. }) => Ok(()),
            Err(trouble) => Err(trouble.into()),
        }
    }
}

impl Runtime for DockerRuntime {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn prepare<'a>(
        &'a self,
        spec: &'a RevisionSpec,
    ) -> BoxFuture<'a, Result<RevisionSpec, RuntimeError>> {
        async move { self.resolved(spec, &Listener::default()).await }.boxed()
    }

    fn prepare_telling<'a>(
        &'a self,
        spec: &'a RevisionSpec,
        told: &'a Listener,
    ) -> BoxFuture<'a, Result<RevisionSpec, RuntimeError>> {
        self.resolved(spec, told).boxed()
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
        self.end(&instance.0, grace).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>, RuntimeError>> {
        self.find_all().boxed()
    }

    fn inspect<'a>(
        &'a self,
        instance: &'a InstanceId,
    ) -> BoxFuture<'a, Result<State, RuntimeError>> {
        async move {
            let found = self.look(&instance.0).await?;
            Ok(found.as_ref().map_or(State::Gone, container::state))
        }
        .boxed()
    }

    fn logs<'a>(
        &'a self,
        instance: &'a InstanceId,
        lines: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, RuntimeError>> {
        self.tail(&instance.0, lines).boxed()
    }

    fn written<'a>(
        &'a self,
        instance: &'a InstanceId,
        lines: usize,
        since: Option<jiff::Timestamp>,
    ) -> BoxFuture<'a, Result<Vec<Written>, RuntimeError>> {
        self.written_by(&instance.0, lines, since).boxed()
    }

    fn diagnose<'a>(&'a self, instance: &'a Instance) -> BoxFuture<'a, Option<String>> {
        self.explain(instance).boxed()
    }

    fn usage<'a>(&'a self, instance: &'a InstanceId) -> BoxFuture<'a, Option<Usage>> {
        self.used_by(&instance.0).boxed()
    }

    fn spent<'a>(&'a self, instance: &'a InstanceId) -> BoxFuture<'a, Option<Spent>> {
        self.spent_by(&instance.0).boxed()
    }

    fn room(&self) -> BoxFuture<'_, Room> {
        self.room_left().boxed()
    }

    fn run_once<'a>(
        &'a self,
        spec: &'a RevisionSpec,
        ownership: &'a Ownership,
        what: &'a str,
        command: &'a [String],
        env: &'a std::collections::BTreeMap<String, String>,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Ran, RuntimeError>> {
        Box::pin(self.once(spec, ownership, what, command, env, limit))
    }

    fn watch(&self, events: mpsc::Sender<RuntimeEvent>) {
        let client = Arc::clone(&self.client);
        self.tasks.spawn(watch::watch(client, self.daemon.clone(), events));
    }
}

fn image(spec: &RevisionSpec) -> Result<&str, RuntimeError> {
    match &spec.source {
        Source::Image(image) => Ok(image),
        Source::Command(_) | Source::Endpoints(_) => Err(RuntimeError::Failed(format!(
            "{} is not an image, and the runtime docker runs nothing else",
            spec.source
        ))),
    }
}

fn gone(image: &str, why: &str) -> RuntimeError {
    RuntimeError::NotFound(format!(
        "image {image} is not on this engine any more{why}: deploy it again, or restore a checkpoint \
         that has it (`docker image prune -a` takes every image without a container)"
    ))
}

fn no_network(name: &str) -> RuntimeError {
    RuntimeError::NotFound(format!(
        "there is no network {name} on this engine: create it (docker network create {name}), or change networks"
    ))
}
