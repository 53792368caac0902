//! What an image and a volume hold, as streams; and commands in a container.
//!
//! A volume is read and written through a container of ours that has it mounted and is never started:
//! the engine has no other way, and it keeps what is written within the volume.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptions, DownloadFromContainerOptions, ImportImageOptions,
    ListContainersOptions, ListVolumesOptions, RemoveVolumeOptions, UploadToContainerOptions,
};
use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::client::{ANSWER, Trouble};
use super::{DockerRuntime, REMOVE, START};
use crate::model::id::{InstanceId, ServiceName};
use crate::runtime::RuntimeError;

/// The label of what is ours and no instance: a container that only holds a volume, a restored volume.
const HOLDS: &str = "io.switchback.keeps";
/// The label that names the service of a restored volume.
const OF: &str = "io.switchback.service";

/// Where a volume is mounted to be read or written: a path that no image has, so that nothing of the
/// image comes into it.
const MOUNT: &str = "/io.switchback.keeps";

/// What may pass between two pieces of a stream from an engine that is busy with its disk.
const SILENT_FOR: Duration = Duration::from_secs(120);

/// What loading an image or writing a volume may take: tens of gigabytes to a slow disk.
const WRITE: Duration = Duration::from_secs(2 * 60 * 60);

/// Bytes of what a failing command said that are told.
const SAID: usize = 600;

/// Pieces that wait for who reads them.
const WAITING: usize = 8;

/// Bytes as they come.
pub type Flow = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A volume that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptVolume {
    /// Its name.
    pub name: String,
    /// The service that it was restored for.
    pub service: String,
    /// Whether a container has it, running or not.
    pub in_use: bool,
}

impl DockerRuntime {
    /// Bytes of an image with all its layers; none when it is not here.
    pub async fn image_size(&self, id: &str) -> Result<Option<u64>, RuntimeError> {
        let name = id.to_owned();
        let look = |docker: Docker| async move { docker.inspect_image(&name).await };
        match self.client.call("looking at an image", ANSWER, look).await {
            Ok(found) => Ok(Some(u64::try_from(found.size.unwrap_or(0)).unwrap_or(0))),
            Err(Trouble::Refused { status: 404, .. }) => Ok(None),
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// An image as `docker save` writes it.
    pub async fn save_image(&self, id: &str) -> Result<Flow, RuntimeError> {
        let docker = self.client.engine().await?;
        let id = id.to_owned();
        Ok(flow(move |sender| async move {
            pour(&sender, docker.export_image(&id)).await;
        }))
    }

    /// Takes an image in, as `docker save` wrote it.
    pub async fn load_image(&self, image: Flow) -> Result<(), RuntimeError> {
        let docker = self.client.engine().await?;
        let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
        let body = bollard::body_try_stream(image);
        let mut steps = std::pin::pin!(docker.import_image(options, body, None));
        let load = async {
            while let Some(step) = steps.next().await {
                step.map_err(|error| RuntimeError::from(self.client.explain(error)))?;
            }
            Ok(())
        };
        let late = RuntimeError::Timeout { what: "loading an image", after: WRITE };
        timeout(WRITE, load).await.unwrap_or(Err(late))
    }

    /// What is in a volume, or in a directory of the engine's host, as a tar. `image` is any image that
    /// is on the engine.
    pub async fn read_volume(&self, source: &str, image: &str) -> Result<Flow, RuntimeError> {
        let holder = self.hold(source, image, true).await?;
        let docker = self.client.engine().await?;
        let this = self.aside();
        Ok(flow(move |sender| async move {
            let options = DownloadFromContainerOptions { path: format!("{MOUNT}/.") };
            pour(&sender, docker.download_from_container(&holder, Some(options))).await;
            this.discard(&holder).await;
        }))
    }

    /// Fills a volume from a tar.
    pub async fn write_volume(
        &self,
        volume: &str,
        image: &str,
        tar: Flow,
    ) -> Result<(), RuntimeError> {
        let holder = self.hold(volume, image, false).await?;
        let options = UploadToContainerOptions {
            path: MOUNT.to_owned(),
            ..UploadToContainerOptions::default()
        };
        let (name, body) = (holder.clone(), bollard::body_try_stream(tar));
        let write = |docker: Docker| async move {
            docker.upload_to_container(&name, Some(options), body).await
        };
        let written = self.client.call("filling a volume", WRITE, write).await;
        self.discard(&holder).await;
        Ok(written?)
    }

    /// A container that has a volume mounted and is never started; its id.
    async fn hold(&self, source: &str, image: &str, read: bool) -> Result<String, RuntimeError> {
        let mode = if read { "ro" } else { "rw" };
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            // Never started; the engine asks for a command all the same.
            cmd: Some(vec!["-".to_owned()]),
            labels: Some(HashMap::from([(HOLDS.to_owned(), self.daemon.clone())])),
            host_config: Some(HostConfig {
                binds: Some(vec![format!("{source}:{MOUNT}:{mode}")]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let create = |docker: Docker| async move {
            docker.create_container(None::<CreateContainerOptions>, body).await
        };
        Ok(self.client.call("mounting a volume", START, create).await?.id)
    }

    /// Makes a new volume that is marked as ours.
    pub async fn create_volume(
        &self,
        name: &str,
        service: &ServiceName,
    ) -> Result<(), RuntimeError> {
        let exists = {
            let name = name.to_owned();
            let look = |docker: Docker| async move { docker.inspect_volume(&name).await };
            self.client.call("looking for a volume", ANSWER, look).await
        };
        match exists {
            Err(Trouble::Refused { status: 404, .. }) => {}
            Ok(_) => {
                return Err(RuntimeError::Failed(format!(
                    "there is a volume {name} already, and nothing is restored over it"
                )));
            }
            Err(trouble) => return Err(trouble.into()),
        }
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(HashMap::from([
                (HOLDS.to_owned(), self.daemon.clone()),
                (OF.to_owned(), service.to_string()),
            ])),
            ..VolumeCreateRequest::default()
        };
        let create = |docker: Docker| async move { docker.create_volume(request).await };
        self.client.call("making a volume", ANSWER, create).await?;
        Ok(())
    }

    /// Removes a volume; one that a container has stays, and that is an error.
    pub async fn remove_volume(&self, name: &str) -> Result<(), RuntimeError> {
        let name = name.to_owned();
        let remove = |docker: Docker| async move {
            docker.remove_volume(&name, None::<RemoveVolumeOptions>).await
        };
        match self.client.call("removing a volume", REMOVE, remove).await {
            Ok(()) | Err(Trouble::Refused { status: 404, .. }) => Ok(()),
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// The volumes that were restored.
    pub async fn kept_volumes(&self) -> Result<Vec<KeptVolume>, RuntimeError> {
        let label = |only: Option<&str>| {
            let mut filters =
                HashMap::from([("label".to_owned(), vec![format!("{HOLDS}={}", self.daemon)])]);
            if let Some(dangling) = only {
                filters.insert("dangling".to_owned(), vec![dangling.to_owned()]);
            }
            ListVolumesOptions { filters: Some(filters) }
        };
        let mut kept = Vec::new();
        for in_use in [false, true] {
            let options = label(Some(if in_use { "false" } else { "true" }));
            let list = |docker: Docker| async move { docker.list_volumes(Some(options)).await };
            let found = self.client.call("listing volumes", ANSWER, list).await?;
            kept.extend(found.volumes.unwrap_or_default().into_iter().map(|volume| KeptVolume {
                service: volume.labels.get(OF).cloned().unwrap_or_default(),
                name: volume.name,
                in_use,
            }));
        }
        Ok(kept)
    }

    /// Containers of ours that only held a volume and were left behind.
    pub async fn left_holders(&self) -> Result<Vec<InstanceId>, RuntimeError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([(
                "label".to_owned(),
                vec![format!("{HOLDS}={}", self.daemon)],
            )])),
            ..ListContainersOptions::default()
        };
        let list = |docker: Docker| async move { docker.list_containers(Some(options)).await };
        let found = self.client.call("listing containers", ANSWER, list).await?;
        Ok(found.into_iter().filter_map(|one| one.id.map(|id| InstanceId::new(&id))).collect())
    }

    /// Removes a container of ours.
    pub async fn remove_container(&self, id: &InstanceId) -> Result<(), RuntimeError> {
        self.remove(&id.0).await
    }

    /// A command that can be begun in a container: the engine, the command's id there, its program.
    async fn prepare(
        &self,
        instance: &InstanceId,
        command: &[String],
        is_fed: bool,
    ) -> Result<(Docker, String, String), RuntimeError> {
        let config = ExecConfig {
            attach_stdin: Some(is_fed),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..ExecConfig::default()
        };
        let id = instance.0.to_string();
        let create = |docker: Docker| async move { docker.create_exec(&id, config).await };
        let exec = self.client.call("preparing a command", ANSWER, create).await?.id;
        let program = command.first().cloned().unwrap_or_default();
        Ok((self.client.engine().await?, exec, program))
    }

    /// Runs a command in a container and gives what it prints. Ends with an error when the command
    /// fails or takes too long; a command that takes too long goes on in its container.
    pub async fn run_in(
        &self,
        instance: &InstanceId,
        command: &[String],
        within: Duration,
    ) -> Result<Flow, RuntimeError> {
        let (docker, exec, program) = self.prepare(instance, command, false).await?;
        Ok(flow(move |sender| async move {
            let ran = timeout(within, ran(&docker, &exec, &sender)).await;
            let trouble = match ran {
                Ok(Ok(())) => return,
                Ok(Err(trouble)) => format!("{program} {trouble}"),
                Err(_) => format!("{program} took longer than {within:?}"),
            };
            let _ = sender.send(Err(io::Error::other(trouble))).await;
        }))
    }

    /// Runs a command in a container and hands it bytes on its standard input. Ends with an error when
    /// the command fails or takes too long; a command that takes too long goes on in its container.
    pub async fn feed_in(
        &self,
        instance: &InstanceId,
        command: &[String],
        input: Flow,
        within: Duration,
    ) -> Result<(), RuntimeError> {
        let (docker, exec, program) = self.prepare(instance, command, true).await?;
        let trouble = match timeout(within, fed(&docker, &exec, input)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(trouble)) => format!("{program} {trouble}"),
            Err(_) => format!("{program} took longer than {within:?}"),
        };
        Err(RuntimeError::Failed(trouble))
    }

    /// The same line to the engine, for a task of its own.
    fn aside(&self) -> Self {
        Self {
            client: std::sync::Arc::clone(&self.client),
            daemon: self.daemon.clone(),
            secrets: self.secrets.clone(),
            tasks: self.tasks.clone(),
        }
    }
}

/// Writes and reads at a time: a command that nobody listens to stops reading.
async fn fed(docker: &Docker, exec: &str, mut from: Flow) -> Result<(), String> {
    let started = docker.start_exec(exec, None).await.map_err(|error| error.to_string())?;
    let StartExecResults::Attached { mut output, mut input } = started else {
        return Err("was not attached to".to_owned());
    };
    let writing = async {
        while let Some(piece) = from.next().await {
            let piece = piece.map_err(|error| format!("did not get all of it: {error}"))?;
            if input.write_all(&piece).await.is_err() {
                // It has enough, or has ended: its exit code tells.
                break;
            }
        }
        let _ended = input.shutdown().await;
        Ok::<(), String>(())
    };
    let reading = async {
        let mut said = String::new();
        while let Some(piece) = output.next().await {
            let piece = piece.map_err(|error| error.to_string())?;
            if let LogOutput::StdErr { message } = piece {
                keep_last(&mut said, &message);
            }
        }
        Ok::<String, String>(said)
    };
    let (written, said) = tokio::join!(writing, reading);
    written?;
    ended(docker, exec, &said?).await
}

/// The end of what a command complains of.
fn keep_last(said: &mut String, message: &[u8]) {
    said.push_str(&String::from_utf8_lossy(message));
    let more = said.len().saturating_sub(SAID);
    let from = (more..said.len()).find(|at| said.is_char_boundary(*at)).unwrap_or(0);
    said.drain(..from);
}

/// How a command in a container ended.
async fn ended(docker: &Docker, exec: &str, said: &str) -> Result<(), String> {
    let found = docker.inspect_exec(exec).await.map_err(|error| error.to_string())?;
    match found.exit_code {
        Some(0) => Ok(()),
        Some(code) => Err(format!("exited with code {code}: {}", said.trim())),
        None => Err("broke off".to_owned()),
    }
}

async fn ran(
    docker: &Docker,
    exec: &str,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), String> {
    let started = docker.start_exec(exec, None).await.map_err(|error| error.to_string())?;
    let StartExecResults::Attached { mut output, .. } = started else {
        return Err("was not attached to".to_owned());
    };
    let mut said = String::new();
    while let Some(piece) = output.next().await {
        match piece.map_err(|error| error.to_string())? {
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                if sender.send(Ok(message)).await.is_err() {
                    return Ok(());
                }
            }
            LogOutput::StdErr { message } => {
                keep_last(&mut said, &message);
            }
            LogOutput::StdIn { .. } => {}
        }
    }
    ended(docker, exec, &said).await
}

/// A flow that a task of its own feeds.
fn flow<F>(feed: impl FnOnce(mpsc::Sender<io::Result<Bytes>>) -> F) -> Flow
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(feed(sender));
    Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    }))
}

/// Hands a stream of the engine on, until it ends, breaks, falls silent, or nobody reads any more.
async fn pour(
    sender: &mpsc::Sender<io::Result<Bytes>>,
    from: impl Stream<Item = Result<Bytes, bollard::errors::Error>>,
) {
    let mut from = std::pin::pin!(from);
    loop {
        let piece = match timeout(SILENT_FOR, from.next()).await {
            Ok(None) => return,
            Ok(Some(piece)) => piece.map_err(io::Error::other),
            Err(_) => Err(io::Error::other(format!("the engine said nothing for {SILENT_FOR:?}"))),
        };
        let broken = piece.is_err();
        if sender.send(piece).await.is_err() || broken {
            return;
        }
    }
}
